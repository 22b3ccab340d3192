"""The log of a cell: nothing whole is lost, nothing torn is kept."""

import errno
import json
import subprocess
import sys

import pytest

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results import CellLog
from balbench.harness.results.records import up_to

FACTS = {"key": "k", "sources": {}, "code": ""}


def log_with(tmp_path, rounds, last_of=None):
    """A log with so many rounds; the last of `last_of` rounds buys nothing."""
    log = CellLog(tmp_path / "cell")
    log.open(FACTS, 99)
    for number in range(rounds):
        log.append([line(number, last=number + 1 == last_of)])
    return log


def line(number, last=False):
    metrics = {"test": {"accuracy": number / 10}} | ({} if last else {"pool": {"x": 1.0}, "batch": {"y": 1.0}})
    record = {"round": number, "labels": 5, "metrics": metrics, "acquired": [] if last else [number, number + 100]}
    return record, {"round": number, "seconds": {"fit": 0.1}}


def test_rounds_come_back_in_order(tmp_path):
    log = log_with(tmp_path, 3)
    assert [record["round"] for record in log.rounds()] == [0, 1, 2]
    assert log.count() == 3
    assert not log.is_finished(3)
    log.finish({"device": "x"})
    assert log.is_finished(3)
    assert log.manifest["machine"] == {"device": "x"}


@pytest.mark.parametrize("torn", [b"{", b'{"round":3,"labels":5}', b'{"round":3,"la\xff'])
def test_a_torn_last_line_is_dropped_and_cut_off(tmp_path, torn):
    log = log_with(tmp_path, 3)
    path = tmp_path / "cell" / "rounds.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert log.count() == 3
    assert len(log.open(FACTS, 4)) == 3
    assert path.read_bytes() == whole


def test_damage_in_the_middle_is_named(tmp_path):
    log = log_with(tmp_path, 3)
    path = tmp_path / "cell" / "rounds.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(RunDirectoryError, match=r"rounds.jsonl: line 2 is damaged; delete"):
        log.open(FACTS, 4)


@pytest.mark.parametrize(
    "lines", [[0, 2], [0, 1, 1, 2], [1, 2]], ids=["a line is missing", "a line is repeated", "the first is missing"]
)
def test_rounds_must_follow_each_other(tmp_path, lines):
    log = log_with(tmp_path, 3)
    path = tmp_path / "cell" / "rounds.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[number] for number in lines))
    with pytest.raises(RunDirectoryError, match=r"line \d is damaged; delete"):
        log.open(FACTS, 4)


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
    assert not log.is_finished(1)
    assert len(log.open(FACTS, 4)) == (0 if damage == "delete" else 1)
    assert not (tmp_path / "cell" / "manifest.json").exists()


def test_of_a_round_timed_twice_the_last_counts(tmp_path):
    log = log_with(tmp_path, 2)
    log._timings.open("ab").write(b'{"round":1,"seconds":{"fit":9.0}}\n')
    assert [record["seconds"]["fit"] for record in log.timings()] == [0.1, 9.0]


def test_numbers_that_json_lacks_are_not_written(tmp_path):
    log = log_with(tmp_path, 1)
    with pytest.raises(ValueError, match=r"metrics\.batch\.score is not finite, which JSON does not support"):
        log.append([(line(1)[0] | {"metrics": {"batch": {"score": float("nan")}}}, line(1)[1])])
    assert log.count() == 1


def test_a_full_disk_keeps_what_is_whole(tmp_path, monkeypatch):
    log = log_with(tmp_path, 2)
    before = (tmp_path / "cell" / "rounds.jsonl").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("balbench.harness.results.cell_log.os.fsync", full)
    with pytest.raises(RunDirectoryError, match=r"No space left on device.*free some space and run the same command"):
        log.append([line(2), line(3)])
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
    actual = subprocess.run([sys.executable, "-c", code, str(path.parent)], capture_output=True, text=True)
    assert "all finished rounds are kept" in actual.stderr
    assert path.read_bytes() == before


def test_more_rounds_continue_a_finished_cell_from_its_last_round(tmp_path):
    log = log_with(tmp_path, 3, last_of=3)
    log.finish({})
    assert [record["round"] for record in log.open(FACTS, 3)] == [0, 1, 2]
    assert log.is_finished(3)
    assert [record["round"] for record in log.open(FACTS, 5)] == [0, 1]  # the third bought nothing and runs again
    assert not (tmp_path / "cell" / "manifest.json").exists()
    log.append([line(2), line(3), line(4, last=True)])
    log.finish({})
    assert log.is_finished(5)
    assert log.is_finished(2)
    assert not log.is_finished(6)
    whole = log_with(tmp_path / "at once", 5, last_of=5)
    assert log.rounds() == whole.rounds()


def test_a_cell_that_was_killed_while_it_was_extended_is_extended(tmp_path):
    log = log_with(tmp_path, 3, last_of=3)
    for _ in range(2):
        assert len(log.open(FACTS, 5)) == 2


def test_fewer_rounds_read_as_if_no_more_had_run(tmp_path):
    long, short = (log_with(tmp_path / str(rounds), rounds, last_of=rounds) for rounds in (5, 3))
    assert up_to(long.rounds(), 3) == short.rounds()
    assert up_to(long.rounds(), 5) == long.rounds() == up_to(long.rounds(), 9)
    assert long.open(FACTS, 3) == short.rounds()
    assert len(long.rounds()) == 5


def test_facts_are_those_of_the_first_round(tmp_path):
    log = log_with(tmp_path, 1)
    log.open(FACTS | {"sources": {"policies x": "edited"}}, 3)
    assert log.facts == FACTS
    (tmp_path / "cell" / "rounds.jsonl").unlink()
    log.open(FACTS | {"sources": {"policies x": "edited"}}, 3)
    assert log.facts["sources"] == {"policies x": "edited"}


def test_a_manifest_of_another_form_counts_for_nothing(tmp_path):
    log = log_with(tmp_path, 3)
    (tmp_path / "cell" / "manifest.json").write_text(json.dumps({"rounds": 3}))
    assert not log.is_finished(1)
