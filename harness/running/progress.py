"""Progress of long work: a live table in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from balbench.harness.machine import duration

PLAIN_SECONDS = 10.0  # between plain lines
RATE_SECONDS, LEAST_RATE_SECONDS = 30.0, 1.0  # a rate is over this time, and is unknown before


@dataclass(frozen=True)
class CellState:
    """How far a cell is."""

    policy: str
    state: str  # waiting, running, finished or failed
    rounds_done: int
    rounds: int
    work_done: float  # labels trained on so far
    work: float
    seconds: float  # that a worker took for the rounds of this run


class Rate:
    """The present rate of some work, over the last RATE_SECONDS.

    Work that comes from a cache is done at once, so a rate since the start would promise too much.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self._clock = what, clock
        self._past: deque[tuple[float, int]] = deque()

    def text(self, done: int, total: int) -> str:
        """Return the rate and the time left, for a line that says how much is done; empty until it is known."""
        now = self._clock()
        self._past.append((now, done))
        while self._past[0][0] < now - RATE_SECONDS:
            self._past.popleft()
        since, before = self._past[0]
        seconds = now - since
        if done == total or done <= before or seconds < LEAST_RATE_SECONDS:
            return ""
        rate = (done - before) / seconds
        shown = f"{rate:,.0f} a second" if rate >= 1 else f"{60 * rate:,.0f} a minute"
        return f", {shown}, about {duration((total - done) / rate)} left"


class NotebookLive:
    """One output of a notebook's cell, which each update replaces (rich's own needs the package ipywidgets there)."""

    def __init__(self) -> None:
        self._output: Any = None

    def start(self) -> None:
        """Add the output to the cell."""
        from IPython.display import display

        self._output = display(Text(), display_id=True)

    def update(self, renderable: Table) -> None:
        """Show something else in the output."""
        self._output.update(renderable)

    def stop(self) -> None:
        """Leave the output empty."""
        self._output.update(Text())


def _live(console: Console) -> Live | NotebookLive | None:
    if console.is_terminal:
        return Live(console=console, refresh_per_second=4, transient=True)
    return NotebookLive() if console.is_jupyter and not console.quiet else None


class Display:
    """Shows how far cells and data are. Use it as a context."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = _live(console)
        self._last_line = time.monotonic()
        self._said_of = ""
        self._rate = Rate("")
        self._work_at_start: float | None = None

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def data(self, what: str, done: int, total: int) -> None:
        """Show how far the preparation of data is, its present rate, and the time left at this rate."""
        if self._rate.what != what:
            self._rate = Rate(what)
        line = f"{what}: {done:,} of {total:,}{self._rate.text(done, total)}"
        if self._live:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(escape(line), ProgressBar(total=total, completed=done, width=40))
            self._live.update(bar)
        elif self._due() or (done == total and self._said_of == what):
            self._said_of = what
            self.say(line)

    def cells(self, states: Iterable[CellState], slots: int) -> None:
        """Show how far the cells are; `slots` of their fleets can run at once."""
        states = list(states)
        if self._work_at_start is None:
            self._work_at_start = sum(state.work_done for state in states)
        if self._live:
            self._live.update(self._table(states, slots))
        elif self._due():
            self.say(self._line(states, slots))

    def _due(self) -> bool:
        if time.monotonic() - self._last_line < PLAIN_SECONDS:
            return False
        self._last_line = time.monotonic()
        return True

    def _line(self, states: list[CellState], slots: int) -> str:
        finished = sum(state.state == "finished" for state in states)
        rounds, total = sum(s.rounds_done for s in states), sum(s.rounds for s in states)
        failed = sum(state.state == "failed" for state in states)
        trouble = f", {failed} failed" if failed else ""
        return f"{finished} of {len(states)} cells, {rounds} of {total} rounds{trouble}, {self._left(states, slots)}"

    def _left(self, states: list[CellState], slots: int) -> str:
        """Time left, from the labels trained on in this run so far and what they took (workers need no start now)."""
        done = sum(state.work_done for state in states) - (self._work_at_start or 0.0)
        if not (done and slots):
            return "time left unknown yet"
        left = sum(state.work - state.work_done for state in states if state.state != "failed")
        return f"about {duration(left / done * sum(state.seconds for state in states) / slots)} left"

    def _table(self, states: list[CellState], slots: int) -> Table:
        table = Table(caption=self._line(states, slots), caption_justify="left")
        for column in ("policy", "finished", "running", "rounds"):
            table.add_column(column, justify="left" if column == "policy" else "right")
        for policy in dict.fromkeys(state.policy for state in states):
            mine = [state for state in states if state.policy == policy]
            rounds = f"{sum(s.rounds_done for s in mine)} / {sum(s.rounds for s in mine)}"
            finished = f"{sum(s.state == 'finished' for s in mine)} / {len(mine)}"
            table.add_row(escape(policy), finished, str(sum(s.state == "running" for s in mine)), rounds)
        return table
