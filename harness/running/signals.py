"""Protection of worker processes from signals: only the coordinator handles Ctrl-C and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def starting_processes() -> Iterator[None]:
    """Block the signals that stop a run for processes that start within the block, and handle them after the block.

    A terminal sends Ctrl-C to the whole group of processes. A worker that has just started cannot ignore signals yet
    and would print a traceback, so the worker inherits blocked signals. In this process an interrupt within the block
    would leave a half-started worker, so the handlers are called after the block.
    """
    received: list[tuple[Callable[..., Any], int, Any]] = []
    before = _postpone(received) if threading.current_thread() is threading.main_thread() else {}
    try:
        with _blocked():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for handler, number, frame in received:
        handler(number, frame)


def _postpone(received: list[tuple[Callable[..., Any], int, Any]]) -> dict[int, Any]:
    """Replace the handlers of signals by a handler that only records calls; return the original handlers."""
    before: dict[int, Any] = {number: signal.getsignal(number) for number in STOPPING}

    def record(number: int, frame: Any) -> None:
        received.append((before[number], number, frame))

    before = {number: handler for number, handler in before.items() if callable(handler)}
    for number in before:
        signal.signal(number, record)
    return before


@contextmanager
def _blocked() -> Iterator[None]:
    """Block the signals for this thread; new processes and threads inherit its mask."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows has no signal masks
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
