"""The log of a cell: nothing whole is lost, nothing torn is kept."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results import CellLog
from balbench.harness.results.predictions import read_predictions
from balbench.harness.results.records import FinishedRound, up_to

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
    return FinishedRound(record, {"round": number, "seconds": {"fit": 0.1}}, logits(number))


def logits(number):
    return {"ood": np.full(3, number, np.float16), "test": np.arange(4, dtype=np.float16) - number}


def predictions(log):
    """The stored predictions of all rounds of a log."""
    return read_predictions(log.directory / "predictions.f16", [r.get("predictions") for r in log.rounds()])


def files(log):
    """The bytes of a log's deterministic files."""
    return [(log.directory / name).read_bytes() for name in ("rounds.jsonl", "predictions.f16")]


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
    with pytest.raises(
        RunDirectoryError, match=r"rounds.jsonl: line 2 is damaged .*; remove this line and all after it"
    ):
        log.open(FACTS, 4)
    path.write_bytes(lines[0])  # the remedy
    assert len(log.open(FACTS, 4)) == 1
    log.append([line(1), line(2)])
    assert files(log) == files(log_with(tmp_path / "at once", 3))


@pytest.mark.parametrize(
    "lines", [[0, 2], [0, 1, 1, 2], [1, 2]], ids=["a line is missing", "a line is repeated", "the first is missing"]
)
def test_rounds_must_follow_each_other(tmp_path, lines):
    log = log_with(tmp_path, 3)
    path = tmp_path / "cell" / "rounds.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[number] for number in lines))
    with pytest.raises(RunDirectoryError, match=r"line \d is damaged \(it has round \d, not \d\); remove"):
        log.open(FACTS, 4)


@pytest.mark.parametrize(
    "line",
    [
        *(b"{}", b"[]", b'{"round":0}'),
        *(
            b'{"round":0,"labels":"5","metrics":{},"acquired":[]}',
            b'{"round":0,"labels":5,"metrics":"a","acquired":[]}',
        ),
        b'{"round":0,"labels":5,"metrics":{"test":3},"acquired":[]}',
    ],
)
def test_a_line_that_is_no_round_is_named(tmp_path, line):
    log = log_with(tmp_path, 0)
    (tmp_path / "cell" / "rounds.jsonl").write_bytes(line + b"\n")
    with pytest.raises(RunDirectoryError, match=r"line 1 is damaged .*; remove"):
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


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"labels": 0}, "labels is 0"),
        ({"labels": -5}, "labels is -5"),
        ({"metrics": {"test": {"accuracy": 70}}}, "test.accuracy is 70"),
        ({"metrics": {"ood": {"log_likelihood": math.nan}}}, "ood.log_likelihood is nan"),
        ({"metrics": {"test": {"brier": -math.inf}}}, "test.brier is -inf"),
        ({"metrics": {"test": {"ece": 10**400}}}, "test.ece is 1000"),
        ({"metrics": {"test": {"log_likelihood": 0.7}}}, "test.log_likelihood is 0.7"),
        ({"metrics": {"test": {"accuracy_se": -0.1}}}, "test.accuracy_se is -0.1"),
        ({"metrics": {"test": {"accuracy": "0.7"}}}, "test.accuracy is '0.7'"),
        ({"metrics": {"test": {"accuracy": None}}}, "test.accuracy is None"),
        ({"metrics": {"batch": {"score_mean": math.nan}}}, "batch.score_mean is nan"),
        ({"acquired": [1, "2"]}, "acquired has a value that is no index of a pair"),
        ({"acquired": [1, -2]}, "acquired has a value that is no index of a pair"),
        ({"predictions": []}, "predictions has the wrong form"),
        ({"predictions": {"pairs": {"test": "4"}, "sha256": "0"}}, "predictions.pairs has a value that is no number"),
    ],
)
def test_values_that_no_round_has_are_damage(tmp_path, change, fault):
    log = log_with(tmp_path, 2)
    path = log.directory / "rounds.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + json.dumps(json.loads(second) | change).encode() + b"\n")
    for read in (log.rounds, lambda: log.open(FACTS, 4), lambda: log.finish({})):
        with pytest.raises(RunDirectoryError) as caught:
            read()
        message = str(caught.value)
        assert message.startswith(f"{path}: line 2 is damaged ({fault}")
        assert message.endswith(
            "remove this line and all after it, and run the study again, which keeps the rounds before"
        )


def test_labels_never_decrease(tmp_path):
    log = log_with(tmp_path, 2)
    path = log.directory / "rounds.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"labels":5', b'"labels":9', 1))
    with pytest.raises(RunDirectoryError, match=r"line 2 is damaged \(labels is 5 after 9\)"):
        log.rounds()


def test_numbers_of_policies_and_posteriors_have_no_range(tmp_path):
    log = log_with(tmp_path, 0)
    metrics = {split: {"accuracy": 70.0, "log_likelihood": 3} for split in ("fit", "pool", "batch")}
    log.append([line(0)._replace(record=line(0).record | {"metrics": metrics})])
    assert log.rounds()[0]["metrics"] == metrics


@pytest.mark.parametrize("damage", [b"garbage", b"[]", b'{"round":1,"seconds":{"fit":"0.1"}}', b'{"round":1}'])
def test_damaged_timings_lose_seconds_only(tmp_path, damage):
    log = log_with(tmp_path, 3)
    path = log.directory / "timings.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage, lines[2], b""]))
    assert [timing["round"] for timing in log.timings()] == [0, 2]
    assert len(log.open(FACTS, 4)) == 3


@pytest.mark.parametrize("content", ["[3]", "{}", '{"reason": 3, "details": ""}'])
def test_a_damaged_failure_is_named(tmp_path, content):
    log = log_with(tmp_path, 1)
    (log.directory / "failed.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"failed.json: is damaged; delete it and run the study again"):
        _ = log.failure


@pytest.mark.parametrize("name", ["rounds.jsonl", "timings.jsonl"])
def test_a_directory_in_place_of_a_log_is_named(tmp_path, name):
    log = log_with(tmp_path, 0)
    (log.directory / name).mkdir()
    with pytest.raises(RunDirectoryError, match=rf"{name}: cannot be read \(Is a directory\); delete it"):
        log.open(FACTS, 4)


def test_of_a_round_timed_twice_the_last_counts(tmp_path):
    log = log_with(tmp_path, 2)
    log._timings.open("ab").write(b'{"round":1,"seconds":{"fit":9.0}}\n')
    assert [record["seconds"]["fit"] for record in log.timings()] == [0.1, 9.0]


def test_numbers_that_json_lacks_are_not_written(tmp_path):
    log = log_with(tmp_path, 1)
    with pytest.raises(ValueError, match=r"metrics\.batch\.score is not finite, which JSON does not support"):
        log.append([line(1)._replace(record=line(1).record | {"metrics": {"batch": {"score": float("nan")}}})])
    assert log.count() == 1
    assert predictions(log)["test"].shape == (1, 4)


def test_a_full_disk_keeps_what_is_whole(tmp_path, monkeypatch):
    log = log_with(tmp_path, 2)
    before = (tmp_path / "cell" / "rounds.jsonl").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("balbench.harness.results.cell_log.os.fsync", full)
    with pytest.raises(RunDirectoryError, match=r"No space left on device.*free some space and run the same command"):
        log.append([line(2), line(3)])
    assert (tmp_path / "cell" / "rounds.jsonl").read_bytes() == before


def test_predictions_whose_lines_do_not_fit_on_the_disk_are_removed(tmp_path, monkeypatch):
    log = log_with(tmp_path, 2)
    before, sync, calls = files(log), os.fsync, []

    def full_at_the_lines(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:  # timings, predictions, lines
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr("balbench.harness.results.cell_log.os.fsync", full_at_the_lines)
    with pytest.raises(RunDirectoryError, match="No space left"):
        log.append([line(2), line(3)])
    assert files(log) == before
    log.append([line(2)])
    assert files(log) == files(log_with(tmp_path / "at once", 3))


def test_a_disk_that_takes_a_part_of_a_write_keeps_no_part(tmp_path):
    """In a process of its own, as files of this one must be able to grow."""
    log_with(tmp_path, 2)
    path = tmp_path / "cell" / "rounds.jsonl"
    before = path.read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; from balbench.harness.results import CellLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 5000}, {len(before) + 5000}))\n"
        "from balbench.harness.results.records import FinishedRound\n"
        "record = {'acquired': list(range(500))}\n"
        "rounds = [FinishedRound({'round': n, **record}, {'round': n, 'seconds': {}}) for n in (2, 3, 4)]\n"
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
    assert files(log) == files(whole)


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


def test_a_line_describes_its_row_of_predictions(tmp_path):
    log = log_with(tmp_path, 3)
    assert [record["predictions"]["pairs"] for record in log.rounds()] == [{"ood": 3, "test": 4}] * 3
    stored = predictions(log)
    assert list(stored) == ["ood", "test"]
    for split, logit_TN in stored.items():
        assert logit_TN.dtype == np.float16
        assert np.array_equal(logit_TN, [logits(number)[split] for number in range(3)])
    assert (log.directory / "predictions.f16").stat().st_size == 3 * 7 * 2


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory):
    return log_with(tmp_path_factory.mktemp("whole"), 6, last_of=6)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_write_torn_anywhere_is_continued_to_the_same_bytes(tmp_path_factory, whole_log, data):
    """Rows are written before lines, so a kill leaves the lines of at most as many rounds as there are rows."""
    expected_lines, expected_rows = files(whole_log)
    rows_size = data.draw(st.integers(0, len(expected_rows)))
    ends = [end for end, byte in enumerate(expected_lines, start=1) if byte == ord("\n")]
    lines_size = data.draw(st.integers(0, ([0, *ends])[rows_size // 14]))
    junk = data.draw(st.binary(max_size=20))
    log = CellLog(tmp_path_factory.mktemp("torn") / "cell")
    log.open(FACTS, 6)
    (log.directory / "rounds.jsonl").write_bytes(expected_lines[:lines_size])
    (log.directory / "predictions.f16").write_bytes(expected_rows[:rows_size] + junk)
    done = len(log.open(FACTS, 6))
    assert done == sum(end <= lines_size for end in ends)
    log.append([line(number, last=number == 5) for number in range(done, 6)])
    assert files(log) == [expected_lines, expected_rows]


@settings(max_examples=40, deadline=None)
@given(damage=st.sampled_from(["cut", "flip", "delete"]), place=st.integers(0, 6 * 14 - 1))
def test_rounds_from_the_first_damaged_row_run_again(tmp_path_factory, whole_log, damage, place):
    log = CellLog(tmp_path_factory.mktemp("damaged") / "cell")
    shutil.copytree(whole_log.directory, log.directory)
    path = log.directory / "predictions.f16"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.unlink() if damage == "delete" else path.write_bytes(content[:place] if damage == "cut" else content)
    assert not log.has_predictions()
    if damage == "delete":
        assert predictions(log) is None
    else:
        with pytest.raises(RunDirectoryError, match=rf"the row of round {place // 14} is damaged; delete the file "):
            predictions(log)
    done = len(log.open(FACTS, 6))
    assert done == (0 if damage == "delete" else place // 14)
    log.append([line(number, last=number == 5) for number in range(done, 6)])
    assert files(log) == files(whole_log)
    assert log.has_predictions()


def test_rounds_of_an_older_version_have_no_predictions_and_are_kept(tmp_path):
    log = CellLog(tmp_path / "cell")
    log.open(FACTS, 3)
    log.append([line(number)._replace(logits=None) for number in range(2)])
    assert not (log.directory / "predictions.f16").exists()
    assert len(log.open(FACTS, 3)) == 2
    assert log.has_predictions()
    assert predictions(log) is None
