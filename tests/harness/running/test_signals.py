"""Signals that stop a run reach the coordinator alone, and never between two steps of a worker's start."""

import os
import signal
import threading

import pytest

from balbench.harness.running.local_engine import LocalEngine
from balbench.harness.running.signals import STOPPING, starting_processes


def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_worker_is_born_with_the_signals_blocked():
    engine = LocalEngine(["cpu"])
    try:
        assert engine._all[0].submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result() >= set(STOPPING)
        assert not blocked() & set(STOPPING)
    finally:
        engine.close()


def test_threads_that_start_within_have_them_blocked_too():
    masks = []
    with starting_processes():
        thread = threading.Thread(target=lambda: masks.append(blocked()))
        thread.start()
        thread.join()
    assert masks[0] >= set(STOPPING)


@pytest.mark.parametrize("thread", ["this", "another"])
def test_an_interrupt_within_comes_after(thread):
    """A signal of the process may reach any of its threads; Python handles it in the main one."""
    steps = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background processes without it

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted(interrupt, thread, steps)
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupted(interrupt, thread, steps):
    go = threading.Event()
    other = threading.Thread(target=lambda: (go.wait(), interrupt()), daemon=True)
    other.start()  # before the block, so that it may receive signals
    with starting_processes():
        if thread == "another":
            go.set()
            other.join()
        else:
            interrupt()
        steps.append("started")
    go.set()
    steps.append("not reached")


def test_other_threads_may_start_processes():
    errors = []

    def start():
        try:
            with starting_processes():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert not errors
