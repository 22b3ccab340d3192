"""The cells of `quickstart` on one and two workers of this machine, without data and report.

Run: tox -e speed -- benchmarks/speed/test_scaling.py (about two minutes, on a machine with two cores)
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from balbench.api import study_path
from balbench.harness.results import RunDirectory
from balbench.harness.running.data_directory import prepare
from balbench.harness.running.local_engine import LocalEngine
from balbench.harness.running.placement import Placement
from balbench.harness.running.progress import Display
from balbench.harness.running.scheduler import Scheduler
from balbench.harness.study.study import Study, load_study

WORKERS = (1, 2)


@pytest.fixture(scope="module")
def table() -> Iterator[dict[int, tuple[float, float]]]:
    """Seconds of start and cells for each number of workers, printed at the end."""
    measured: dict[int, tuple[float, float]] = {}
    yield measured
    print("\n\n| workers | start of the workers | cells | ideal | efficiency |\n|---|---|---|---|---|")
    for workers, (start, running) in measured.items():
        ideal = measured[1][1] / workers
        print(f"| {workers} | {start:.1f} s | {running:.1f} s | {ideal:.1f} s | {ideal / running:.0%} |")


@pytest.mark.parametrize("workers", WORKERS)
def test_scaling(benchmark: Any, table: dict[int, tuple[float, float]], tmp_path: Path, workers: int) -> None:
    study, directory = load_study(study_path("quickstart")), RunDirectory(tmp_path)
    directory.adopt(study.header)
    table[workers] = benchmark.pedantic(seconds, args=(study, directory, workers), rounds=1)


def seconds(study: Study, directory: RunDirectory, workers: int) -> tuple[float, float]:
    """Start the workers, then run all cells; return the seconds of both."""
    engine = LocalEngine(["cpu"] * workers)
    with Display(Console(file=io.StringIO())) as display:
        prepare(list(study.cells), directory, display)
        started = time.perf_counter()
        for future in [slot.submit(with_torch) for slot in engine._all]:
            future.result()
        ready = time.perf_counter()
        assert not Scheduler(study, directory, Placement(), lambda: engine, display).run().failed
        return ready - started, time.perf_counter() - ready


def with_torch() -> int:
    """Import torch, which takes most of a worker's start."""
    import torch

    return torch.get_num_threads()
