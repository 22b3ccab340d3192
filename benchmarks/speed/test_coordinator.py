"""The time of the coordinator alone: 1,000 cells of 20 rounds of 100 labels, with workers that answer at once.

Run: tox -e speed -- benchmarks/speed/test_coordinator.py
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from balbench.harness.results import CellLog, RunDirectory
from balbench.harness.results.records import FinishedRound, RoundRecord, RoundTimings
from balbench.harness.rounds.task import Task, TaskResult
from balbench.harness.running.placement import Placement
from balbench.harness.running.progress import Display
from balbench.harness.running.scheduler import Scheduler
from balbench.harness.study.study import check_study

CELLS, ROUNDS, BATCH = 1_000, 20, 100
STUDY = {
    "name": "coordinator",
    "dataset": {"name": "simulated", "pool_pairs": 5_000, "dimension": 8},
    "posterior": {"name": "ensemble"},
    "policies": ["random"],
    "seeds": CELLS,
    "reference_seeds": CELLS,
    "protocol": {"initial": BATCH, "batch": BATCH, "rounds": ROUNDS},
    "full_data": False,
}
LOGITS = {"ood": np.zeros(10_000, np.float16), "test": np.zeros(10_000, np.float16)}
METRICS = {f"metric {n}": n / 7 for n in range(25)}


class AnswersAtOnce:
    """Simulated workers, which return invented records of several rounds for each task."""

    location = "simulated"

    def __init__(self, slots: int, rounds: int) -> None:
        self.slots, self._rounds, self.tasks = slots, rounds, 0

    def free_bytes(self) -> None:
        return None

    def submit(self, task: Task) -> Future[TaskResult]:
        result, self.tasks = TaskResult(facts={"device": "simulated"}), self.tasks + 1
        for cell, past in zip(task.cells, task.pasts, strict=True):
            for number in range(past.rounds, min(past.rounds + self._rounds, ROUNDS)):
                metrics = dict.fromkeys(("eval", "test", "ood", "buffer", "pool", "batch"), METRICS)
                acquired = list(range(number * BATCH, (number + 1) * BATCH)) if number + 1 < ROUNDS else []
                record: RoundRecord = {
                    "round": number,
                    "labels": BATCH * (number + 1),
                    "metrics": metrics,
                    "acquired": acquired,
                }
                timings: RoundTimings = {"round": number, "seconds": {"fit": 1.0, "select": 0.1}}
                result.rounds.append((cell.directory, FinishedRound(record, timings, LOGITS)))
        future: Future[TaskResult] = Future()
        future.set_result(result)
        return future

    def close(self) -> None:
        pass


class Clock:
    """Adds up the seconds of wrapped functions."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.started: Callable[[], None] = lambda: None

    def reset(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable) -> Callable:
        def timed(*arguments: Any) -> Any:
            self.started()
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    print(f"\n\nmilliseconds of the coordinator for each of {CELLS * ROUNDS:,} rounds of {CELLS:,} cells")
    print("| fleet | rounds a task | tasks | all | fsync | other writing | the rest |")
    print("|---|---|---|---|---|---|---|", *lines, sep="\n")


@pytest.mark.parametrize(("fleet", "rounds"), [(1, 1), (1, 5), (8, 1)])
def test_coordinator(
    tmp_path: Path, table: list[str], monkeypatch: pytest.MonkeyPatch, fleet: int, rounds: int
) -> None:
    study, directory = check_study(STUDY, "coordinator"), RunDirectory(tmp_path)
    directory.adopt(study.header)
    total, writing, syncing = Clock(), Clock(), Clock()
    monkeypatch.setattr(os, "fsync", syncing.around(os.fsync))
    for name in ("append", "finish"):
        monkeypatch.setattr(CellLog, name, writing.around(getattr(CellLog, name)))
    monkeypatch.setattr(Scheduler, "_run", total.around(Scheduler._run))
    monkeypatch.setattr(total, "started", syncing.reset)  # the data are written earlier
    engine = AnswersAtOnce(CELLS, rounds)
    with Display(Console(file=io.StringIO())) as display:
        assert not Scheduler(study, directory, Placement(fleet=fleet), lambda: engine, display).run().failed
    parts = (total.seconds, syncing.seconds, writing.seconds - syncing.seconds, total.seconds - writing.seconds)
    each = " | ".join(f"{1000 * seconds / (CELLS * ROUNDS):.3f}" for seconds in parts)
    table.append(f"| {fleet} | {rounds} | {engine.tasks:,} | {each} |")
