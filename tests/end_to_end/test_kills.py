"""A run that is killed repeatedly ends with the same bytes as an undisturbed run."""

import contextlib
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from balbench.api import Terminated, _stopped_by_signals
from support.command import start
from support.studies import bytes_of, write_study

KILLS = int(os.environ.get("BALBENCH_KILLS", "20"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A study with enough rounds for kills, and the bytes of an undisturbed run."""
    directory = tmp_path_factory.mktemp("undisturbed")
    study = write_study(
        directory, protocol={"initial": 10, "batch": 10, "rounds": 25}, policies=["random", "bald", "bal_pm"]
    )
    assert start("run", study, "--out", directory / "run").wait(timeout=300) == 0
    return study, bytes_of(directory / "run")


@pytest.mark.slow
def test_kill_9_at_random_moments(undisturbed, tmp_path, capsys):
    study, expected = undisturbed
    moments, kills, finishes = random.Random(7), 0, 0
    while kills < KILLS or finishes == 0:
        out = tmp_path / f"run{finishes}"
        process = start("run", study, "--out", out)
        try:
            code = process.wait(timeout=moments.uniform(0.5, 10) if kills < KILLS else 300)
        except subprocess.TimeoutExpired:
            # Every second kill leaves the workers running beside the workers of the next coordinator.
            os.kill(process.pid, signal.SIGKILL) if kills % 2 else os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            process.wait()
            continue
        assert code == 0
        assert bytes_of(out) == expected
        finishes += 1
    with capsys.disabled():
        print(f"\n{kills} kills in {finishes} runs, each with the same bytes")


def react_to_interrupts() -> None:
    """Restore the default handler of Ctrl-C, because a shell makes its background processes ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(study, out, *flags):
    """Start a run and wait for its first rounds. Most of its cells wait, so the run cannot end by itself soon."""
    process = start("run", study, "--out", out, "--fleet", 1, *flags, preexec_fn=react_to_interrupts)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in out.glob("cells/*/rounds.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def stopped(process, code):
    """Assert that the run ended with this code and a message about how to continue."""
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "rounds are kept in" in err
    assert "run the same study again to continue" in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_continue(undisturbed, tmp_path, number, code):
    study, expected = undisturbed
    process = started(study, tmp_path / "run")
    os.kill(process.pid, number)
    stopped(process, code)
    assert start("run", study, "--out", tmp_path / "run").wait(timeout=300) == 0
    assert bytes_of(tmp_path / "run") == expected


def test_sigterm_to_all_processes_keeps_running_rounds(undisturbed, tmp_path):
    """Some schedulers of clusters signal all processes: workers continue, so that their rounds are not lost."""
    study, _ = undisturbed
    process = started(study, tmp_path / "run", "--grace", 60)
    before = rounds_in(tmp_path / "run")
    os.killpg(process.pid, signal.SIGTERM)
    stopped(process, 143)
    assert rounds_in(tmp_path / "run") > before


@dataclass
class Busy:
    """A scheduler with tasks in flight, or without."""

    busy: bool = True
    stopping: bool = False

    def stop(self) -> None:
        self.stopping = True


def signalled(scheduler: Busy, times: int) -> None:
    with _stopped_by_signals(scheduler):
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_signal_stops_at_once():
    before, scheduler = signal.getsignal(signal.SIGTERM), Busy()
    signalled(scheduler, 1)
    assert scheduler.stopping
    with pytest.raises(Terminated):
        signalled(Busy(), 2)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_while_no_task_runs_stops_at_once():
    """No task runs while data are built, for example, which may take hours."""
    with pytest.raises(Terminated):
        signalled(Busy(busy=False), 1)


def rounds_in(run):
    return sum(path.read_bytes().count(b"\n") for path in run.glob("cells/*/rounds.jsonl"))


def processes_of(group: int) -> list[str]:
    """Return the names of the live processes of a process group."""
    names = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            state, _parent, pgrp = rest.split()[:3]
            if int(pgrp) == group and state != "Z":
                names.append(name)
    return names


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="no /proc to find processes in")
def test_workers_end_with_their_coordinator(undisturbed, tmp_path):
    study, _ = undisturbed
    process = started(study, tmp_path / "run")
    assert len(processes_of(process.pid)) > 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while processes_of(process.pid):
        assert time.monotonic() < deadline, processes_of(process.pid)
        time.sleep(0.2)
