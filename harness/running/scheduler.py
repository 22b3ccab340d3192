"""The coordinator: cells -> fleets -> tasks, and what comes back -> the run directory.

Workers return rounds and the coordinator alone keeps them, so a task that was lost is simply submitted again.
Killing anything at any moment is therefore safe.
"""

from __future__ import annotations

import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from balbench.harness.errors import BalbenchError
from balbench.harness.results import RunDirectory
from balbench.harness.rounds.fleet import Failure, TaskResult
from balbench.harness.rounds.worker import Task
from balbench.harness.running.cell_progress import CellProgress
from balbench.harness.running.data_directory import feature_bytes, feature_dimension, prepare
from balbench.harness.running.engine import Engine, WorkerDied
from balbench.harness.running.placement import Placement, cells_together, count, make_fleets, placed
from balbench.harness.running.progress import Display
from balbench.harness.study.cell import Cell
from balbench.harness.study.study import Study

POLL_SECONDS = 0.25
TASK_SECONDS = 2.0  # a kill loses no more than this and a round
SECONDS_A_SLOT = 0.02  # at least, of a task: the coordinator keeps some hundred reports a second
DEATHS = 3  # of workers of a fleet without a finished round in between, until it is split or given up


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        failed: cells that failed, with the reason.
        stopped: it was told to stop before all was done.
    """

    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


@dataclass(eq=False)
class Fleet:
    """Cells whose rounds run together.

    Attributes:
        deaths: of its workers since its last finished round.
        careful: a worker died on it, so its rounds come back one by one.
    """

    cells: list[Cell]
    deaths: int = 0
    careful: bool = False

    def halves(self) -> list[Fleet]:
        """Two fleets in place of this one."""
        middle = -(-len(self.cells) // 2)
        return [Fleet(part, careful=self.careful) for part in (self.cells[:middle], self.cells[middle:])]


class Scheduler:
    """Runs the cells of a study that are not finished yet."""

    def __init__(
        self,
        study: Study,
        directory: RunDirectory,
        placement: Placement,
        make_engine: Callable[[], Engine],
        display: Display,
    ) -> None:
        """Look at what is finished.

        Args:
            study: what to run.
            directory: where results go; this object must be its only writer.
            placement: the size of fleets, where features lie, and the grace at the end.
            make_engine: called once, and only where there is something to run.
            display: shows the progress.
        """
        self._directory, self._placement, self._display = directory, placement, display
        self._make_engine = make_engine
        # Cells with the same key are one cell, for example those of a grid over rounds: the most rounds count.
        cells = {cell.directory: cell for cell in sorted(study.cells, key=lambda cell: cell.rounds)}
        cells = {cell.directory: cells[cell.directory] for cell in study.cells}
        self._progress = {name: CellProgress(cell, directory.cell(name)) for name, cell in cells.items()}
        self._left = [cell for name, cell in cells.items() if self._progress[name].state != "finished"]
        self._waiting: deque[Fleet] = deque()
        self._running: dict[Future[TaskResult], Fleet] = {}
        self._notices: set[str] = set()  # lines that are printed once
        self._returned: queue.SimpleQueue[Future[TaskResult]] = queue.SimpleQueue()
        self._outcome = Outcome()
        self._stop_at: float | None = None
        self._next_look = 0.0

    @property
    def busy(self) -> bool:
        """Whether tasks are running, so that stopping needs a moment."""
        return bool(self._running)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop_at is not None

    def stop(self) -> None:
        """Submit nothing more, and end when all that runs has come back or the grace is over."""
        self._stop_at = time.monotonic() + self._placement.grace

    def run(self) -> Outcome:
        """Prepare the data and run all cells; can be interrupted at any moment.

        Raises:
            BalbenchError: the data are wrong, or nothing can be written any more.
        """
        self._say_changed_sources()
        if not self._left:
            return self._outcome
        engine = self._make_engine()  # whether a cluster answers is known before the data are built
        try:
            pool_sizes = prepare(self._left, self._directory, self._display)
            for cell in self._left:
                self._progress[cell.directory].open(pool_sizes[cell.dataset_key])
            self._run(engine)
        finally:
            engine.close()
        return self._outcome

    def _say_changed_sources(self) -> None:
        changed = Counter(name for progress in self._progress.values() for name in progress.changed_sources)
        for name, cells in changed.items():
            self._display.say(
                f"warning: {name}: the source of this plug-in changed, but not its version; {count(cells, 'cell')} in "
                f"{self._directory.path} have results of the earlier source; raise `version` to run them again"
            )

    def _run(self, engine: Engine) -> None:
        fleets = self._fleets(engine)
        self._waiting.extend(Fleet(cells) for cells in fleets)
        self._display.say(placed(len(self._left), [len(cells) for cells in fleets], engine.slots, engine.where))
        while self._waiting or self._running:
            if self._stop_at is not None and (not self._running or time.monotonic() >= self._stop_at):
                self._outcome.stopped = True
                return
            while self._waiting and len(self._running) < engine.slots and not self.stopping:
                self._submit(engine, self._waiting.popleft())
            self._collect()
            self._look(engine.slots)

    def _fleets(self, engine: Engine) -> list[list[Cell]]:
        free = engine.free_bytes() if self._placement.fleet is None else None

        def together(cell: Cell) -> int:
            place = self._directory.data(cell.dataset_key)
            return cells_together(cell, free, feature_bytes(place), feature_dimension(place))

        return make_fleets(self._left, engine.slots, self._placement.fleet, free, together)

    def _submit(self, engine: Engine, fleet: Fleet) -> None:
        first = fleet.cells[0]
        for cell in fleet.cells:
            self._progress[cell.directory].state = "running"
        task = Task(
            cells=tuple(fleet.cells),
            pasts=tuple(self._progress[cell.directory].past for cell in fleet.cells),
            dataset_key=first.dataset_key,
            data=self._directory.data(first.dataset_key),
            seconds=0.0 if fleet.careful else max(TASK_SECONDS, SECONDS_A_SLOT * engine.slots),
            features=self._placement.features,
        )
        future = engine.submit(task)
        self._running[future] = fleet
        future.add_done_callback(self._returned.put)

    def _collect(self) -> None:
        """Take in what came back, after a short wait for it."""
        try:
            future = self._returned.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        fleet = self._running.pop(future)
        error = future.exception()
        if error is None:
            self._take_in(fleet, future.result())
        elif isinstance(error, WorkerDied):
            self._worker_died(fleet)
        elif isinstance(error, BalbenchError):
            raise error
        else:  # an oracle's, or one that names no cell
            self._blame(fleet, Failure.of(error))

    def _take_in(self, fleet: Fleet, report: TaskResult) -> None:
        """Keep the rounds of a report, and submit what is left of the fleet again."""
        for line in report.notices:
            if line not in self._notices:
                self._notices.add(line)
                self._display.say(line)
        failed = dict(report.failed)
        rounds: dict[str, list[tuple]] = {}
        for key, record, timings in report.rounds:
            rounds.setdefault(key, []).append((record, timings))
        for key, new in rounds.items():
            try:
                self._progress[key].append(new)
            except (TypeError, ValueError) as error:  # no JSON
                failed.setdefault(key, Failure.of(error))
        if rounds:
            fleet.deaths = 0
        for cell in fleet.cells:
            if cell.directory in failed:
                self._fail(cell, failed[cell.directory])
            elif self._progress[cell.directory].whole:
                self._progress[cell.directory].finish(report.facts)
        fleet.cells = [cell for cell in fleet.cells if self._progress[cell.directory].state == "running"]
        if report.out_of_memory and fleet.cells:
            self._out_of_memory(fleet, report.device)
        elif fleet.cells:
            self._waiting.appendleft(fleet)

    def _fail(self, cell: Cell, failure: Failure) -> None:
        self._progress[cell.directory].fail(failure)
        self._outcome.failed[cell.title] = failure.reason

    def _blame(self, fleet: Fleet, failure: Failure) -> None:
        """Give up a cell, or look for it in the halves of its fleet."""
        if len(fleet.cells) > 1:
            self._waiting.extendleft(reversed(fleet.halves()))
        else:
            self._fail(fleet.cells[0], failure)

    def _worker_died(self, fleet: Fleet) -> None:
        fleet.deaths += 1
        fleet.careful = True
        done = min(self._progress[cell.directory].done for cell in fleet.cells)
        if fleet.deaths < DEATHS:
            self._display.say(f"the worker of {_title(fleet.cells)} died; going on from round {done}")
            self._waiting.appendleft(fleet)
        else:
            reason = f"its worker died {fleet.deaths} times, last in round {done} (killed, or out of memory?)"
            self._blame(fleet, Failure(reason, ""))

    def _out_of_memory(self, fleet: Fleet, device: str) -> None:
        if len(fleet.cells) > 1:
            sizes = " and ".join(str(len(half.cells)) for half in fleet.halves())
            self._display.say(f"out of memory on {device} with {len(fleet.cells)} cells; going on with {sizes}")
        reason = (
            f"out of memory on {device} with this cell alone; lower posterior.members or posterior.hidden, "
            "let fewer processes run (`jobs`, `fleets_per_device`), or set `features` to streamed"
        )
        self._blame(fleet, Failure(reason, ""))

    def _look(self, slots: int) -> None:
        """Show the progress now and then: looking at all cells for each report would cost more than keeping it."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + POLL_SECONDS
            self._display.cells((progress.look() for progress in self._progress.values()), slots)


def _title(cells: Sequence[Cell]) -> str:
    others = f" and {count(len(cells) - 1, 'other cell')}" if len(cells) > 1 else ""
    return f"{cells[0].title}{others}"
