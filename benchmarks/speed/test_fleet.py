"""Fleets on one thread: cells x rounds per minute by the size of the fleet, compared with one process per cell.

Whole rounds are timed (training, evaluation, scoring, acquisition) on the simulated pool `small`, with heads of sizes
that CPUs train. Run: tox -e speed -- benchmarks/speed/test_fleet.py (about ten minutes)
"""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.results import RunDirectory
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.rounds.fleet import advance
from balbench.harness.rounds.task import Past, Task
from balbench.harness.running.data_directory import prepare_data
from balbench.harness.running.local_engine import LocalEngine
from balbench.harness.running.placement import cells_together
from balbench.harness.running.progress import Display
from balbench.harness.study.study import Cell, check_study

SIZES = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 5  # each with 64 labels
ALONE = 3  # number of cells that run in a process of their own
HEADS: dict[str, tuple[int, list[int]]] = {  # dimension, hidden
    "16-32-8-1": (16, [32, 8]),
    "64-128-32-1": (64, [128, 32]),
    "384-64-1": (384, [64]),
    "384-256-64-1": (384, [256, 64]),
}
STUDY: dict[str, Any] = {
    "name": "fleets",
    "dataset": {"name": "simulated", "preset": "small"},
    "posterior": {"name": "ensemble", "preset": "melo2024", "learning_rate": 3e-3, "weight_std": 0.1},
    "policies": ["bal_pm"],
    "reference": "bal_pm",
    "seeds": max(SIZES),
    "reference_seeds": max(SIZES),
    "protocol": {"initial": 64, "batch": 64, "rounds": ROUNDS},
    "full_data": False,
}
Table = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Cells x rounds per minute, printed at the end."""
    measured: Table = {}
    yield measured
    print(f"\n\none thread, torch {torch.__version__}; cells x rounds per minute, by cells in the fleet")
    columns = ["a process a cell", *map(str, SIZES)]
    print("| head | " + " | ".join(columns) + " | chosen |")
    print("|---|" + "---|" * (len(columns) + 1))
    for head, rates in measured.items():
        print(f"| {head} | " + " | ".join(f"{rates[column]:.0f}" for column in columns) + f" | {rates['chosen']} |")


@pytest.mark.parametrize("head", HEADS)
def test_fleet(benchmark: Any, table: Table, tmp_path: Path, head: str) -> None:
    dimension, hidden = HEADS[head]
    study = copy.deepcopy(STUDY)
    study["dataset"]["dimension"], study["posterior"]["hidden"] = dimension, hidden
    cells, directory = check_study(study, "fleets").cells, RunDirectory(tmp_path)
    prepared = prepare_data(cells[0], directory, Display(Console(file=io.StringIO())))
    chosen = cells_together(cells[0], None, 0, prepared.facts["dimension"])
    rates = table.setdefault(head, {"chosen": chosen})
    rates["a process a cell"] = 60 * ALONE * ROUNDS / processes(cells[:ALONE], prepared.path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # workers use one thread
    data = DeviceData(PreferenceData.load(prepared.path, {}), torch.device("cpu"))
    advance(cells[:1], [no_past()], data, lambda: True)  # computes the neighbours, once for all timings
    for size in SIZES:
        repeats = max(1, 8 // size)
        seconds = min(timed(cells[:size], data) for _ in range(repeats))
        rates[str(size)] = 60 * size * ROUNDS / seconds
    torch.set_num_threads(threads)
    benchmark.pedantic(timed, args=(cells[:chosen], data), rounds=1)


def no_past() -> Past:
    return Past(0, np.empty(0, dtype=np.int64))


def timed(cells: Sequence[Cell], data: DeviceData) -> float:
    started = time.perf_counter()
    result = advance(cells, [no_past()] * len(cells), data, lambda: True)
    assert len(result.rounds) == len(cells) * ROUNDS
    return time.perf_counter() - started


def processes(cells: Sequence[Cell], data: Path) -> float:
    """Seconds of running cells one after another, each in a new process."""
    started = time.perf_counter()
    for cell in cells:
        engine = LocalEngine(["cpu"])
        result = engine.submit(Task((cell,), (no_past(),), cell.dataset_key, data, seconds=float("inf"))).result()
        engine.close()
        assert len(result.rounds) == ROUNDS
    return time.perf_counter() - started
