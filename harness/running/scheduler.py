"""The coordinator: it groups cells into fleets, submits tasks, and writes their results to the run directory.

Workers return rounds and only the coordinator writes them, so a lost task can be submitted again. Any process can
therefore be killed at any time.
"""

from __future__ import annotations

import os
import queue
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from balbench.harness.errors import BalbenchError
from balbench.harness.machine import count
from balbench.harness.results import RunDirectory
from balbench.harness.results.records import FinishedRound
from balbench.harness.rounds.task import Failure, Task, TaskResult
from balbench.harness.running.cell_progress import CellProgress
from balbench.harness.running.data_directory import PreparedData, add_lines, feature_bytes, prepare, restore_facts
from balbench.harness.running.engine import Engine, WorkerDied
from balbench.harness.running.known_runs import remember
from balbench.harness.running.pending_fleet import PendingFleet
from balbench.harness.running.placement import Placement, cells_together, make_fleets, placed
from balbench.harness.running.progress import Display
from balbench.harness.running.reuse import reuse_cells
from balbench.harness.study.cell import Cell
from balbench.harness.study.study import Study

POLL_SECONDS = 0.25
TASK_SECONDS = 2.0  # a kill loses at most the rounds of this time plus one round
SECONDS_PER_SLOT = 0.02  # least length of a task per slot: the coordinator stores some hundred results per second
SMALL_WORK = 5_000  # a study with fewer labels to train on takes less time than the start of a second process
# Time after which a small study gets all processes, because a policy can be slow. The time begins with the first
# result, because on a busy machine the start of the first process alone can take longer than this.
SMALL_SECONDS = 10.0
FIRST_RESULT_SECONDS = 60.0  # a small study without a result gets all processes after this time
DEATHS = 3  # a fleet is split or fails after this number of deaths of workers without a finished round in between


@dataclass
class Outcome:
    """The outcome of a run.

    Attributes:
        failed: the reasons of failed cells, by title.
        stopped: whether `Scheduler.stop` ended the run before all cells were finished.
    """

    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


class Scheduler:
    """Runs the unfinished cells of a study."""

    def __init__(
        self,
        study: Study,
        directory: RunDirectory,
        placement: Placement,
        make_engine: Callable[[], Engine],
        display: Display,
        reuse: bool | None = None,
    ) -> None:
        """Find out which cells are finished.

        Args:
            study: the study to run.
            directory: the run directory; this object must be its only writer.
            placement: the settings of fleets, features and the grace at the end.
            make_engine: called once, and only if there are cells to run.
            display: shows the progress.
            reuse: whether to copy finished cells of other run directories of this machine. None means True, unless the
                environment variable BALBENCH_REUSE is "off".
        """
        self._directory, self._placement, self._display = directory, placement, display
        self._make_engine = make_engine
        self._reuse = os.environ.get("BALBENCH_REUSE") != "off" if reuse is None else reuse
        # Cells with the same key, for example of a grid over rounds, run once, with the largest number of rounds.
        cells = {cell.directory: cell for cell in sorted(study.cells, key=lambda cell: cell.rounds)}
        self._cells = [cells[name] for name in dict.fromkeys(cell.directory for cell in study.running_order)]
        self._progress = {cell.directory: self._progress_of(cell) for cell in self._cells}
        self._left = self._unfinished()
        self._data: dict[str, PreparedData] = {}
        self._waiting: deque[PendingFleet] = deque()
        self._running: dict[Future[TaskResult], PendingFleet] = {}
        self._notices: set[str] = set()  # lines that are printed once
        self._returned: queue.SimpleQueue[Future[TaskResult]] = queue.SimpleQueue()
        self._outcome = Outcome()
        self._stop_at: float | None = None
        self.interrupted = False  # set it to end the run with KeyboardInterrupt
        self._next_display = 0.0
        self._small_until = 0.0
        self._has_result = False

    def _progress_of(self, cell: Cell) -> CellProgress:
        return CellProgress(cell, self._directory.cell(cell.directory))

    def _unfinished(self) -> list[Cell]:
        return [cell for cell in self._cells if self._progress[cell.directory].state != "finished"]

    @property
    def busy(self) -> bool:
        """Whether tasks are running, so that `stop` needs time."""
        return bool(self._running)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_at is not None

    def stop(self) -> None:
        """Submit no more tasks, and end when all running tasks have returned or the grace is over."""
        self._stop_at = time.monotonic() + self._placement.grace

    def run(self) -> Outcome:
        """Prepare the data and run all cells. An interrupt at any time loses no finished round.

        Raises:
            BalbenchError: the data are invalid, or results cannot be written.
        """
        if self._reuse:
            self._copy_finished()
        self._say_changed_sources()
        if not self._left:
            restore_facts(self._cells, self._directory, self._display)
            add_lines(self._cells, self._directory)
            remember(self._directory.path)
            return self._outcome
        engine = self._make_engine()  # made before the data are built, so that errors of a cluster come first
        try:
            self._data = prepare(self._left, self._directory, self._display)
            restore_facts(self._cells, self._directory, self._display)
            add_lines(self._cells, self._directory)
            for cell in self._left:
                self._progress[cell.directory].open(self._data[cell.dataset_key].pool_pairs)
            remember(self._directory.path)
            self._run(engine)
        finally:
            engine.close()
        return self._outcome

    def _copy_finished(self) -> None:
        """Copy cells that other runs of this machine have finished."""
        copied = set(reuse_cells(self._left, self._directory, self._display.say))
        self._progress |= {cell.directory: self._progress_of(cell) for cell in self._left if cell.directory in copied}
        self._left = self._unfinished()

    def _say_changed_sources(self) -> None:
        changed = Counter(name for progress in self._progress.values() for name in progress.changed_sources)
        for name, cells in changed.items():
            self._display.say(
                f"warning: {name}: the source of this plug-in changed, but not its version; {count(cells, 'cell')} in "
                f"{self._directory.path} have results of the earlier source; raise `version` to run them again"
            )

    def _run(self, engine: Engine) -> None:
        self._small_until = time.monotonic() + FIRST_RESULT_SECONDS if self._is_small(engine) else 0.0
        fleets = self._fleets(engine)
        self._waiting.extend(PendingFleet(cells) for cells in fleets)
        sizes = [len(cells) for cells in fleets]
        self._display.say(placed(len(self._left), sizes, self._slots(engine), engine.location))
        while self._waiting or self._running:
            if self.interrupted:
                raise KeyboardInterrupt
            if self._stop_at is not None and (not self._running or time.monotonic() >= self._stop_at):
                self._outcome.stopped = True
                return
            while self._waiting and len(self._running) < self._slots(engine) and not self.stopping:
                self._submit(engine, self._waiting.popleft())
            self._collect()
            self._show(engine.slots)

    def _is_small(self, engine: Engine) -> bool:
        """Return whether the number of processes is an automatic choice, and there is little work."""
        states = [progress.snapshot() for progress in self._progress.values()]
        work = sum(state.work - state.work_done for state in states)
        return self._placement.jobs is None and engine.location == "cpu" and work <= SMALL_WORK

    def _slots(self, engine: Engine) -> int:
        """Return how many tasks can run now: a small study has one process at first."""
        return 1 if time.monotonic() < self._small_until else engine.slots

    def _fleets(self, engine: Engine) -> list[list[Cell]]:
        free = engine.free_bytes() if self._placement.fleet is None else None

        def together(cell: Cell) -> int:
            data = self._data[cell.dataset_key]
            return cells_together(cell, free, feature_bytes(data.path), data.facts["dimension"])

        return make_fleets(self._left, self._slots(engine), self._placement.fleet, free, together)

    def _submit(self, engine: Engine, fleet: PendingFleet) -> None:
        first = fleet.cells[0]
        for cell in fleet.cells:
            self._progress[cell.directory].state = "running"
        task = Task(
            cells=tuple(fleet.cells),
            pasts=tuple(self._progress[cell.directory].past for cell in fleet.cells),
            dataset_key=first.dataset_key,
            data=self._data[first.dataset_key].path,
            seconds=0.0 if fleet.careful else max(TASK_SECONDS, SECONDS_PER_SLOT * engine.slots),
            features=self._placement.features,
        )
        future = engine.submit(task)
        self._running[future] = fleet
        future.add_done_callback(self._returned.put)

    def _collect(self) -> None:
        """Wait a short time for the result of a task, and handle the result."""
        try:
            future = self._returned.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        if not self._has_result:
            self._has_result = True
            self._small_until = min(self._small_until, time.monotonic() + SMALL_SECONDS)
        fleet = self._running.pop(future)
        error = future.exception()
        if error is None:
            self._store(fleet, future.result())
        elif isinstance(error, WorkerDied):
            self._worker_died(fleet)
        elif isinstance(error, BalbenchError):
            raise error
        else:  # an error of an oracle, or another error without a cell
            self._fail_or_split(fleet, Failure.of(error))

    def _store(self, fleet: PendingFleet, result: TaskResult) -> None:
        """Write the rounds of a task, and queue the unfinished cells of the fleet again."""
        for line in result.notices:
            if line not in self._notices:
                self._notices.add(line)
                self._display.say(line)
        failed = dict(result.failed)
        rounds: dict[str, list[FinishedRound]] = {}
        for directory, finished in result.rounds:
            rounds.setdefault(directory, []).append(finished)
        for directory, new in rounds.items():
            try:
                self._progress[directory].append(new)
            except (TypeError, ValueError) as error:  # a value that JSON does not support
                failed.setdefault(directory, Failure.of(error))
        if rounds:
            fleet.deaths = 0
        for cell in fleet.cells:
            if cell.directory in failed:
                self._fail(cell, failed[cell.directory])
            elif self._progress[cell.directory].complete:
                self._progress[cell.directory].finish(result.facts)
        fleet.cells = [cell for cell in fleet.cells if self._progress[cell.directory].state == "running"]
        if result.out_of_memory and fleet.cells:
            self._out_of_memory(fleet, result.device)
        elif fleet.cells:
            self._waiting.appendleft(fleet)

    def _fail(self, cell: Cell, failure: Failure) -> None:
        self._progress[cell.directory].fail(failure)
        self._outcome.failed[cell.title] = failure.reason

    def _fail_or_split(self, fleet: PendingFleet, failure: Failure) -> None:
        """Fail a single cell; split a larger fleet in two to find the faulty cell."""
        if len(fleet.cells) > 1:
            self._waiting.extendleft(reversed(fleet.halves()))
        else:
            self._fail(fleet.cells[0], failure)

    def _worker_died(self, fleet: PendingFleet) -> None:
        fleet.deaths += 1
        fleet.careful = True
        done = min(self._progress[cell.directory].done for cell in fleet.cells)
        if fleet.deaths < DEATHS:
            self._display.say(f"the worker of {fleet.title} died; continuing from round {done}")
            self._waiting.appendleft(fleet)
        else:
            reason = f"its worker died {fleet.deaths} times, last in round {done} (killed, or out of memory?)"
            self._fail_or_split(fleet, Failure(reason, ""))

    def _out_of_memory(self, fleet: PendingFleet, device: str) -> None:
        if len(fleet.cells) > 1:
            sizes = " and ".join(str(len(half.cells)) for half in fleet.halves())
            self._display.say(f"out of memory on {device} with {len(fleet.cells)} cells; continuing with {sizes}")
        reason = (
            f"out of memory on {device} with this cell alone; lower posterior.members or posterior.hidden, "
            "let fewer processes run (`jobs`, `fleets_per_device`), or set `features` to streamed"
        )
        self._fail_or_split(fleet, Failure(reason, ""))

    def _show(self, slots: int) -> None:
        """Show the progress at intervals, because a snapshot of all cells costs more than storing a result."""
        if time.monotonic() >= self._next_display:
            self._next_display = time.monotonic() + POLL_SECONDS
            self._display.cells((progress.snapshot() for progress in self._progress.values()), slots)
