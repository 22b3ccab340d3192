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

PLAIN_SECONDS = 10.0  # time between plain lines
RATE_SECONDS, LEAST_RATE_SECONDS = 30.0, 1.0  # longest and shortest time over which a rate is computed


@dataclass(frozen=True)
class CellState:
    """The progress of a cell."""

    policy: str
    state: str  # waiting, running, finished or failed
    rounds_done: int
    rounds: int
    work_done: float  # labels trained on so far
    work: float
    seconds: float  # time that workers needed for the rounds of this run


class Rate:
    """The present rate of long work, over the last RATE_SECONDS.

    Cached work is done immediately, so a rate since the start would be too high.
    """

    def __init__(self, work: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.work, self._clock = work, clock
        self._past: deque[tuple[float, int]] = deque()

    def text(self, done: int, total: int) -> str:
        """Return the rate and the time left, to append to a line of progress; empty while the rate is unknown."""
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
    """An output of a notebook's cell that each update replaces (rich's class needs the package ipywidgets)."""

    def __init__(self) -> None:
        self._output: Any = None

    def start(self) -> None:
        """Add the output to the cell."""
        from IPython.display import display

        self._output = display(Text(), display_id=True)

    def update(self, renderable: Table) -> None:
        """Replace the output."""
        self._output.update(renderable)

    def stop(self) -> None:
        """Clear the output."""
        self._output.update(Text())


def _live(console: Console) -> Live | NotebookLive | None:
    if console.is_terminal:
        return Live(console=console, refresh_per_second=4, transient=True)
    return NotebookLive() if console.is_jupyter and not console.quiet else None


class Display:
    """Shows the progress of cells and data. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = _live(console)
        self._last_line = time.monotonic()
        self._last_work = ""
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
        """Print a line above the live table."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def data(self, work: str, done: int, total: int) -> None:
        """Show the progress of work on data, its present rate, and the time left at this rate."""
        if self._rate.work != work:
            self._rate = Rate(work)
        line = f"{work}: {done:,} of {total:,}{self._rate.text(done, total)}"
        if self._live:
            bar = Table.grid(padding=(0, 1))
            bar.add_row(escape(line), ProgressBar(total=total, completed=done, width=40))
            self._live.update(bar)
        elif self._due() or (done == total and self._last_work == work):
            self._last_work = work
            self.say(line)

    def cells(self, states: Iterable[CellState], slots: int) -> None:
        """Show the progress of cells; `slots` fleets can run at once."""
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
        """Estimate the time left from the labels on which this run has trained, and the time that they took."""
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
            own = [state for state in states if state.policy == policy]
            rounds = f"{sum(s.rounds_done for s in own)} / {sum(s.rounds for s in own)}"
            finished = f"{sum(s.state == 'finished' for s in own)} / {len(own)}"
            table.add_row(escape(policy), finished, str(sum(s.state == "running" for s in own)), rounds)
        return table
