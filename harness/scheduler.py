"""Cells -> worker processes. One executor of one process each, so that a dying worker takes no other down.

The coordinator holds no results: workers write their cells' logs, and it reads how long they are. Killing anything
at any moment is therefore safe.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from harness.errors import DataError, StudyError
from harness.files import disk_errors, read_json, write_json
from harness.pairs import PreferenceData
from harness.progress import CellState, Display
from harness.results import CellLog, RunDirectory
from harness.study import Cell, Protocol, Study
from harness.worker import THREADS, Task, start_worker, work

POLL_SECONDS = 0.25
DATA_FACTS = "data.json"  # written last: the data set is whole
TRIES = 2  # how often a worker may die on a cell


@dataclass
class Outcome:
    """How a run ended: cells that failed, with the reason."""

    failed: dict[str, str] = field(default_factory=dict)


class Scheduler:
    """Runs the cells of a study that are not finished yet."""

    def __init__(self, study: Study, directory: RunDirectory, jobs: int, device: str, display: Display) -> None:
        self._study, self._directory, self._device, self._display = study, directory, device, display
        self._logs = {cell.key: directory.cell(cell.directory) for cell in study.cells}
        self._progress = {cell.key: _CellProgress(cell, self._logs[cell.key]) for cell in study.cells}
        self._waiting = [cell for cell in study.cells if self._progress[cell.key].state != "finished"]
        self._slots = min(jobs, len(self._waiting))
        self._running: dict[Future, tuple[Cell, ProcessPoolExecutor]] = {}
        self._deaths: dict[str, int] = {}

    def run(self) -> Outcome:
        """Prepare the data and run all cells; can be interrupted at any moment.

        Raises:
            BalbenchError: the data are wrong, or nothing can be written any more.
        """
        self._prepare()
        outcome, idle = Outcome(), [self._executor() for _ in range(self._slots)]
        self._waiting.reverse()
        try:
            while self._waiting or self._running:
                while self._waiting and idle:
                    self._submit(self._waiting.pop(), idle.pop())
                done, _ = wait(self._running, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    idle.append(self._collect(future, outcome))
                self._display.cells(progress.look() for progress in self._progress.values())
        finally:
            for executor in [*idle, *(executor for _, executor in self._running.values())]:
                executor.shutdown(wait=True, kill_workers=True)
        return outcome

    def _executor(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(max_workers=1, initializer=start_worker, env=THREADS)

    def _replacement(self, broken: ProcessPoolExecutor) -> ProcessPoolExecutor:
        broken.shutdown(wait=False, kill_workers=True)
        return self._executor()

    def _submit(self, cell: Cell, executor: ProcessPoolExecutor) -> None:
        self._progress[cell.key].state = "running"
        task = Task(cell, self._directory.path, self._device, os.getpid())
        try:
            future = executor.submit(work, task)
        except BrokenProcessPool:  # its process was killed while it waited for work
            executor = self._replacement(executor)
            future = executor.submit(work, task)
        self._running[future] = (cell, executor)

    def _collect(self, future: Future, outcome: Outcome) -> ProcessPoolExecutor:
        """Take note of how a cell ended; return an executor that can take the next."""
        cell, executor = self._running.pop(future)
        try:
            reason = future.result()
        except BrokenProcessPool:
            executor = self._replacement(executor)
            reason = self._worker_died(cell)
            if reason is None:
                return executor
        self._progress[cell.key].state = "finished" if reason is None else "failed"
        if reason is not None:
            outcome.failed[cell.title] = reason
            self._display.say(f"failed: {cell.title}: {reason}")
        return executor

    def _worker_died(self, cell: Cell) -> str | None:
        """Queue a cell once more after its worker died (None), or give it up (the reason)."""
        deaths = self._deaths[cell.key] = self._deaths.get(cell.key, 0) + 1
        done = self._logs[cell.key].count()
        if deaths < TRIES:
            self._display.say(f"the worker of {cell.title} died; going on from round {done}")
            self._waiting.append(cell)
            self._progress[cell.key].state = "waiting"
            return None
        reason = f"its worker died {deaths} times, last in round {done} (killed, or out of memory?)"
        self._logs[cell.key].fail(reason, "")
        return reason

    def _prepare(self) -> None:
        """Build the data sets that unfinished cells need, and check that they hold enough pairs."""
        by_key = {cell.dataset_key: cell for cell in self._waiting}
        for key, cell in by_key.items():
            mine = [other for other in self._waiting if other.dataset_key == key]
            if read_json(self._directory.data(key) / DATA_FACTS) is None:
                check_budgets(mine, cell.dataset.sizes().pairs)  # building may take long
            known = prepare_data(cell, self._directory, self._display)
            check_budgets(mine, known["pairs"]["pool"])
            check_policies(mine, self._directory.data(key))
            for setting in dict.fromkeys(other.setting for other in mine):
                self._directory.add_lines(setting, known["lines"])
            for other in mine:
                self._progress[other.key].pool_size = known["pairs"]["pool"]


class _CellProgress:
    """How far a cell is, by the length of its log."""

    def __init__(self, cell: Cell, log: CellLog) -> None:
        self._cell, self._log = cell, log
        self.pool_size = cell.protocol.budget
        self.state = "finished" if log.finished else "waiting"
        self._done = cell.rounds if self.state == "finished" else log.count()

    def look(self) -> CellState:
        if self.state == "running":
            self._done = self._log.count()
        elif self.state == "finished":
            self._done = self._cell.rounds
        work = [self._labels(number) for number in range(self._cell.rounds)]
        return CellState(self._cell.label, self.state, self._done, len(work), sum(work[: self._done]), sum(work))

    def _labels(self, number: int) -> int:
        return (
            self.pool_size if self._cell.policy.acquires_all else self._cell.protocol.labels_at(number, self.pool_size)
        )


def prepare_data(cell: Cell, directory: RunDirectory, display: Display) -> dict[str, Any]:
    """Build a cell's data set unless it is there; return {"pairs": {split: N}, "lines": reference lines}."""
    place = directory.data(cell.dataset_key)
    known = read_json(place / DATA_FACTS)
    if known is not None and all((place / name).is_file() for name in known["files"]):
        return known
    data = cell.dataset.build(display.data)
    data.check()
    temporary = place.with_name(f".{place.name}.tmp")
    with disk_errors(place):
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        temporary.mkdir(parents=True)
        data.save(temporary)
    files = sorted(path.name for path in temporary.iterdir())
    write_json(temporary / DATA_FACTS, data_facts(data) | {"files": files})
    os.replace(temporary, place)
    return read_json(place / DATA_FACTS)


def data_facts(data: PreferenceData) -> dict[str, Any]:
    """What is worth knowing of a data set without its arrays."""
    pairs = {name: len(split.pairs) for name, split in data.splits.items()}
    pool = data.splits["pool"].pairs
    return {
        "pairs": pairs,
        "responses": len(pool.response_features_RD),
        "prompts": len(pool.prompt_features_PQ),
        "dimension": pool.response_features_RD.shape[1],
        "lines": data.reference_lines,
    }


def check_policies(cells: list[Cell], place: Path) -> None:
    """See that a prepared data set holds what the policies need.

    Raises:
        DataError: with the policy, what is missing and the remedy.
    """
    splits = {name: split.pairs for name, split in PreferenceData.load(place, {}).splits.items()}
    for label, policy in {cell.label: cell.policy for cell in cells}.items():
        try:
            policy.check_data(splits)
        except DataError as error:
            raise DataError(f"policy {label}: {error}") from None


def check_budgets(cells: list[Cell], pool_size: int) -> None:
    """See that every round has a pair to buy (the last batch may be smaller).

    Raises:
        StudyError: the pool is too small.
    """
    for protocol in dict.fromkeys(cell.protocol for cell in cells if not cell.policy.acquires_all):
        _check_budget(protocol, pool_size)


def _check_budget(protocol: Protocol, pool_size: int) -> None:
    if protocol.initial > pool_size:
        raise StudyError(f"protocol.initial: {protocol.initial} labels, but the pool has {pool_size} pairs; lower it")
    most = 2 + (pool_size - protocol.initial - 1) // protocol.batch if pool_size > protocol.initial else 1
    if protocol.rounds > most:
        raise StudyError(
            f"protocol.rounds: {protocol.rounds} rounds need {protocol.budget} labels, but the pool has {pool_size} "
            f"pairs; lower rounds to {most} or the batch"
        )


def usable_jobs(jobs: int | None, device: str) -> int:
    """How many workers to use: as asked, else one for each usable core (one on a GPU)."""
    if jobs is not None:
        return jobs
    if device.startswith("cuda"):
        return 1
    if hasattr(os, "sched_getaffinity"):  # a container may have fewer cores than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_device(name: str) -> str:
    """Resolve auto, cpu, cuda or cuda:i.

    Raises:
        StudyError: there is no such device.
    """
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise StudyError(f"--device {name}: must be auto, cpu, cuda or cuda:i")
    if int(number or 0) >= torch.cuda.device_count():
        raise StudyError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; try --device cpu"
        )
    return f"cuda:{number or 0}"
