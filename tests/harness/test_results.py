"""The run directory: nothing whole is lost, nothing torn is kept."""

import errno
import json
import subprocess
import sys

import pytest

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import disk_errors, read_json, write_json
from balbench.harness.results import CellLog, RunDirectory, read_run

ROUND = {"labels": 5, "metrics": {"test": {"accuracy": 0.5}}, "acquired": [1, 2]}


def log_with(tmp_path, rounds):
    log = CellLog(tmp_path / "cell")
    log.open()
    for number in range(rounds):
        log.append([({"round": number, **ROUND}, {"round": number, "seconds": {"fit": 0.1}})])
    return log


def test_rounds_come_back_in_order(tmp_path):
    log = log_with(tmp_path, 3)
    assert [record["round"] for record in log.rounds()] == [0, 1, 2]
    assert log.count() == 3
    assert not log.finished
    log.finish({"device": "x"})
    assert log.finished


@pytest.mark.parametrize("torn", [b"{", b'{"round":3,"labels":5}', b'{"round":3,"la\xff'])
def test_a_torn_last_line_is_dropped_and_cut_off(tmp_path, torn):
    log = log_with(tmp_path, 3)
    path = tmp_path / "cell" / "rounds.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert log.count() == 3
    assert len(log.open()) == 3
    assert path.read_bytes() == whole


def test_damage_in_the_middle_is_named(tmp_path):
    log = log_with(tmp_path, 3)
    path = tmp_path / "cell" / "rounds.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(RunDirectoryError, match=r"rounds.jsonl: line 2 is damaged; delete"):
        log.open()


@pytest.mark.parametrize(
    "lines", [[0, 2], [0, 1, 1, 2], [1, 2]], ids=["a line is missing", "a line stands twice", "the first is missing"]
)
def test_rounds_must_follow_each_other(tmp_path, lines):
    log = log_with(tmp_path, 3)
    path = tmp_path / "cell" / "rounds.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[number] for number in lines))
    with pytest.raises(RunDirectoryError, match=r"line \d is damaged; delete"):
        log.open()


@pytest.mark.parametrize("line", [b"{}", b"[]", b'{"round":0}'])
def test_a_line_that_is_no_round_is_named(tmp_path, line):
    log = log_with(tmp_path, 0)
    (tmp_path / "cell" / "rounds.jsonl").write_bytes(line + b"\n")
    with pytest.raises(RunDirectoryError, match="line 1 is damaged; delete"):
        log.rounds()


@pytest.mark.parametrize("damage", ["delete", "truncate"])
def test_a_manifest_without_its_rounds_is_no_finished_cell(tmp_path, damage):
    log = log_with(tmp_path, 3)
    log.finish({})
    path = tmp_path / "cell" / "rounds.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.unlink() if damage == "delete" else path.write_bytes(whole[0])
    assert not log.finished
    assert len(log.open()) == (0 if damage == "delete" else 1)
    assert not (tmp_path / "cell" / "manifest.json").exists()


def test_of_a_round_timed_twice_the_last_counts(tmp_path):
    log = log_with(tmp_path, 2)
    log._timings.open("ab").write(b'{"round":1,"seconds":{"fit":9.0}}\n')
    assert [record["seconds"]["fit"] for record in log.timings()] == [0.1, 9.0]


def test_numbers_that_json_lacks_are_not_written(tmp_path):
    log = log_with(tmp_path, 1)
    with pytest.raises(ValueError, match=r"metrics\.batch\.score is not finite, which JSON cannot hold"):
        log.append([({"round": 1, "metrics": {"batch": {"score": float("nan")}}}, {"round": 1, "seconds": {}})])
    assert log.count() == 1


def test_a_full_disk_keeps_what_is_whole(tmp_path, monkeypatch):
    log = log_with(tmp_path, 2)
    before = (tmp_path / "cell" / "rounds.jsonl").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("balbench.harness.results.os.fsync", full)
    with pytest.raises(RunDirectoryError, match=r"No space left on device.*free some space and run the same command"):
        log.append([({"round": number, **ROUND}, {"round": number, "seconds": {}}) for number in (2, 3)])
    assert (tmp_path / "cell" / "rounds.jsonl").read_bytes() == before


def test_a_disk_that_takes_a_part_of_a_write_keeps_no_part(tmp_path):
    """In a process of its own, as files of this one must be able to grow."""
    log_with(tmp_path, 2)
    path = tmp_path / "cell" / "rounds.jsonl"
    before = path.read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; from balbench.harness.results import CellLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 5000}, {len(before) + 5000}))\n"
        "rounds = [({'round': n, 'acquired': list(range(500))}, {'round': n, 'seconds': {}}) for n in (2, 3, 4)]\n"
        "CellLog(Path(sys.argv[1])).append(rounds)"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path.parent)], capture_output=True, text=True)
    assert "all finished rounds are kept" in found.stderr
    assert path.read_bytes() == before


def test_json_is_written_at_once(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "none.json") is None
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left"),
            "(No space left); free some space and run the same command again, all",
        ),
        (OSError("1000 requested and 512 written"), "(1000 requested and 512 written); free some space"),
        (OSError(errno.EFBIG, "File too large"), "(File too large); free some space"),
        (OSError(errno.EACCES, "Permission denied"), "(Permission denied); check its path and permissions"),
    ],
)
def test_disk_errors_say_what_to_do(tmp_path, error, told):
    with pytest.raises(RunDirectoryError) as found:
        raised_within(tmp_path, error)
    assert str(found.value).startswith(f"{tmp_path}: cannot be written {told}")


def test_a_directory_that_is_gone_keeps_nothing(tmp_path):
    with pytest.raises(RunDirectoryError) as found:
        raised_within(tmp_path, FileNotFoundError(errno.ENOENT, "No such file or directory"))
    assert "kept" not in str(found.value)
    assert "see that nobody moves or deletes it" in str(found.value)


def raised_within(path, error):
    with disk_errors(path):
        raise error


def test_disk_errors_pass_other_errors(tmp_path):
    with pytest.raises(KeyError), disk_errors(tmp_path):
        raise KeyError


def test_one_run_at_a_time(tmp_path):
    lock = RunDirectory(tmp_path).lock()
    with pytest.raises(RunDirectoryError, match="another run works here"):
        RunDirectory(tmp_path).lock()
    lock.release()
    RunDirectory(tmp_path).lock().release()


STUDY = {"name": "a", "policies": [{"name": "random"}], "seeds": [0], "protocol": {"rounds": 3}, "reference": "random"}


def test_another_study_is_refused_once_there_are_rounds(tmp_path):
    directory, mended = RunDirectory(tmp_path), STUDY | {"protocol": {"rounds": 4}}
    directory.adopt(STUDY, [])
    directory.adopt(mended, [])  # nothing was run yet
    directory.adopt(STUDY | {"seeds": [0, 1]}, [])
    assert directory.header["study"]["seeds"] == [0, 1]
    log_with(tmp_path / "cells", 1)
    directory.adopt(STUDY | {"seeds": [0]}, [])
    with pytest.raises(RunDirectoryError, match="holds a study with another protocol; give another --out"):
        directory.adopt(mended, [])


def test_a_lost_study_file_can_be_written_again(tmp_path):
    log_with(tmp_path / "cells", 1)
    RunDirectory(tmp_path).adopt(STUDY, [])
    assert RunDirectory(tmp_path).header["study"] == STUDY


@pytest.mark.parametrize("content", ["{}", "[]", '{"study": {}}', '{"study": {}, "cells": [], "lines": {}}'])
def test_a_damaged_study_file_is_named(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"study.json: is damaged; delete it"):
        read_run(tmp_path)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "study.yaml").write_text("name: x")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        read_run(tmp_path / "study.yaml")


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_is_no_place_for_a_run(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file, not a directory; give another --out"):
        RunDirectory(tmp_path / "file" / inside).lock()


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunDirectoryError, match=r"not a run directory .it holds thesis.tex"):
        RunDirectory(tmp_path).adopt(STUDY, [])


def test_reading_what_is_no_run(tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        read_run(tmp_path)


def cell(seed, policy="random", full=False):
    return {
        "setting": "", "policy": policy, "seed": seed, "key": f"k{seed}", "directory": f"{policy}-{seed}", "rounds": 3,
        "full_data": full, "settings": {"beta": 1},
    }  # fmt: skip


def test_a_run_reads_as_tidy_frames(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.adopt(STUDY, [cell(0), cell(1), cell(2), cell(3), cell(0, "full data", full=True)])
    directory.add_lines("", {"best possible": {"test": {"accuracy": 0.8}}})
    for name, rounds in (("random-0", 3), ("random-1", 2), ("full data-0", 1)):
        log = directory.cell(name)
        log.open()
        for number in range(rounds):
            log.append([({"round": number, **ROUND}, {"round": number, "seconds": {"fit": 0.5}})])
    directory.cell("random-0").finish({"device": "x"})
    directory.cell("random-2").open()
    directory.cell("random-2").fail("broke", "trace")
    run = read_run(tmp_path)
    assert run.cells["state"].tolist() == ["finished", "running", "failed", "waiting", "running"]
    assert run.cells["reason"].tolist() == ["", "", "broke", "", ""]
    assert run.curves[["seed", "round", "value"]].values.tolist() == [
        [0, 0, 0.5],
        [0, 1, 0.5],
        [0, 2, 0.5],
        [1, 0, 0.5],
        [1, 1, 0.5],
    ]
    assert run.full_data["value"].tolist() == [0.5]
    assert run.lines.values.tolist() == [["", "best possible", "test", "accuracy", 0.8]]
    assert run.timings["seconds"].sum() == 3.0
    assert run.policies == ["random"]
    assert json.loads(json.dumps(run.policy_settings)) == {"random": {"beta": 1}}
    before = run.fingerprint
    directory.cell("random-1").append([({"round": 2, **ROUND}, {"round": 2, "seconds": {}})])
    assert read_run(tmp_path).fingerprint != before
