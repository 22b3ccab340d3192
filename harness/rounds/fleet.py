"""A fleet: cells on the same data with the same posterior, whose rounds run together on one device."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from balbench.harness.errors import CELL_ERRORS, BalbenchError
from balbench.harness.machine import out_of_memory
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.rounds.loop import CellRun, Past
from balbench.harness.study.cell import Cell


class Failure(NamedTuple):
    """Why a cell cannot go on: one line, and the traceback."""

    reason: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The failure that an error means."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return cls(reason, "".join(traceback.format_exception(error)))


@dataclass
class TaskResult:
    """What a fleet did.

    Attributes:
        rounds: directory of the cell, record and timings of each finished round, in order. (Two cells of a study may
            have the same key, hence the same results, under two labels.)
        failed: why cells failed, by directory.
        out_of_memory: the fleet did not fit on the device in its last round.
        facts: what manifests say of the worker's machine and versions.
        device: what the worker ran on, as the engine calls it.
    """

    rounds: list[tuple[str, dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    out_of_memory: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    device: str = ""


def advance(cells: Sequence[Cell], pasts: Sequence[Past], data: DeviceData, go_on: Callable[[], bool]) -> TaskResult:
    """Run rounds of a fleet until all its cells are finished or failed, or `go_on`, asked before each, says no.

    Cells whose past is shorter catch up first. A cell that fails leaves the fleet; the rest go on.

    Args:
        cells: on the same data, with equal posteriors.
        pasts: what each did so far.
        data: their data.
        go_on: whether to begin another round.

    Raises:
        BalbenchError: the machine is at fault (no cell can go on).
    """
    report = TaskResult()
    runs = [CellRun(cell, data, past) for cell, past in zip(cells, pasts, strict=True)]
    try:
        while (active := [r for r in runs if not r.finished and r.cell.directory not in report.failed]) and go_on():
            behind = min(run.rounds_done for run in active)
            _round([run for run in active if run.rounds_done == behind], data, report)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        report.out_of_memory = True
    return report


def _round(runs: list[CellRun], data: DeviceData, report: TaskResult) -> None:
    """One round of cells that are equally far."""
    started = time.perf_counter()
    for run in runs:
        if np.isnan(run.label_n).all():
            report.failed[run.cell.directory] = Failure(
                "the oracle answered none of its labels; raise protocol.initial", ""
            )
    runs = [run for run in runs if run.cell.directory not in report.failed]
    if not runs:
        return
    models = runs[0].cell.posterior.fit_fleet(
        [run.labelled() for run in runs], data.eval_pairs, [run.posterior_stream() for run in runs]
    )
    if data.device.type == "cuda":
        torch.cuda.synchronize(data.device)
    seconds = (time.perf_counter() - started) / len(runs)
    for run, model in zip(runs, models, strict=True):
        if isinstance(model, Exception):
            report.failed[run.cell.directory] = Failure.of(model)
            continue
        try:
            report.rounds.append((run.cell.directory, *run.round(model, seconds)))
        except CELL_ERRORS as error:
            if isinstance(error, BalbenchError) or out_of_memory(error):
                raise
            report.failed[run.cell.directory] = Failure.of(error)
