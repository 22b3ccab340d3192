"""Fleets on one thread: cells x rounds a minute by the size of the fleet, against a process for each cell.

Whole rounds: training, evaluation, scoring, acquisition, on the simulated pool `small`. The heads are those that a CPU
trains. Run: tox -e speed -- benchmarks/speed/test_fleet.py (about ten minutes)
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
ROUNDS, ALONE = 5, 3  # rounds of 64 labels each; cells that get a process each
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
    "protocol": {"initial": 64, "batch": 64, "rounds": ROUNDS},
    "full_data": False,
}
Table = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Collects cells x rounds a minute and prints them at the end."""
    found: Table = {}
    yield found
    print(f"\n\none thread, torch {torch.__version__}; cells x rounds a minute, by cells in the fleet")
    columns = ["a process a cell", *map(str, SIZES)]
    print("| head | " + " | ".join(columns) + " | chosen |")
    print("|---|" + "---|" * (len(columns) + 1))
    for head, rates in found.items():
        print(f"| {head} | " + " | ".join(f"{rates[column]:.0f}" for column in columns) + f" | {rates['chosen']} |")


@pytest.mark.parametrize("head", HEADS)
def test_fleet(benchmark: Any, table: Table, tmp_path: Path, head: str) -> None:
    dimension, hidden = HEADS[head]
    study = copy.deepcopy(STUDY)
    study["dataset"]["dimension"], study["posterior"]["hidden"] = dimension, hidden
    cells, directory = check_study(study, "fleets").cells, RunDirectory(tmp_path)
    prepared = prepare_data(cells[0], directory, Display(Console(file=io.StringIO())))
    place = prepared.path
    chosen = cells_together(cells[0], None, 0, prepared.facts["dimension"])
    rates = table.setdefault(head, {"chosen": chosen})
    rates["a process a cell"] = 60 * ALONE * ROUNDS / processes(cells[:ALONE], place)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    data = DeviceData(PreferenceData.load(place, {}), torch.device("cpu"))
    advance(cells[:1], [new()], data, lambda: True)  # the neighbours are found once
    for size in SIZES:
        repeats = max(1, 8 // size)
        seconds = min(timed(cells[:size], data) for _ in range(repeats))
        rates[str(size)] = 60 * size * ROUNDS / seconds
    torch.set_num_threads(threads)
    benchmark.pedantic(timed, args=(cells[:chosen], data), rounds=1)


def new() -> Past:
    return Past(0, np.empty(0, dtype=np.int64))


def timed(cells: Sequence[Cell], data: DeviceData) -> float:
    started = time.perf_counter()
    report = advance(cells, [new()] * len(cells), data, lambda: True)
    assert len(report.rounds) == len(cells) * ROUNDS
    return time.perf_counter() - started


def processes(cells: Sequence[Cell], place: Path) -> float:
    """Seconds of one cell after another, each in a new process."""
    started = time.perf_counter()
    for cell in cells:
        engine = LocalEngine(["cpu"])
        report = engine.submit(Task((cell,), (new(),), cell.dataset_key, place, seconds=float("inf"))).result()
        engine.close()
        assert len(report.rounds) == ROUNDS
    return time.perf_counter() - started
