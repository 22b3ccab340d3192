"""Kill a run again and again: it ends with the same bytes as one that was left in peace."""

import os
import random
import signal
import subprocess
import time

import pytest

from support.command import start
from support.studies import bytes_of, write_study

KILLS = int(os.environ.get("BALBENCH_KILLS", "20"))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """An undisturbed run of a study with enough rounds to be killed in."""
    directory = tmp_path_factory.mktemp("quiet")
    study = write_study(
        directory, protocol={"initial": 10, "batch": 10, "rounds": 25}, policies=["random", "bald", "bal_pm"]
    )
    assert start("run", study, "--out", directory / "run").wait(timeout=300) == 0
    return study, bytes_of(directory / "run")


@pytest.mark.slow
def test_kill_9_at_random_moments(quiet, tmp_path):
    study, wanted = quiet
    moments, kills, finishes = random.Random(7), 0, 0
    while kills < KILLS or finishes == 0:
        out = tmp_path / f"run{finishes}"
        process = start("run", study, "--out", out)
        try:
            code = process.wait(timeout=moments.uniform(0.5, 10) if kills < KILLS else 300)
        except subprocess.TimeoutExpired:
            # Every other time the workers are left behind, to run into the next coordinator's.
            os.kill(process.pid, signal.SIGKILL) if kills % 2 else os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            process.wait()
            continue
        assert code == 0
        assert bytes_of(out) == wanted
        finishes += 1


def heed_interrupts() -> None:
    """Where tests run in the background, a shell has made its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on(quiet, tmp_path, number, code):
    study, wanted = quiet
    process = start("run", study, "--out", tmp_path / "run", preexec_fn=heed_interrupts)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("run/cells/*/rounds.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "rounds are kept in" in err
    assert "run the same command to go on" in err
    assert "Traceback" not in err
    assert start("run", study, "--out", tmp_path / "run").wait(timeout=300) == 0
    assert bytes_of(tmp_path / "run") == wanted
