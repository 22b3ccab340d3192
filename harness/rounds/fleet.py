"""Fleets: cells with the same data and posterior, whose rounds run together on one device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from balbench.harness.errors import CELL_ERRORS, BalbenchError
from balbench.harness.machine import MKL_CBWR, out_of_memory
from balbench.harness.posteriors.posterior import FittedPosterior, LabelledPairs, Posterior, try_fit
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.rounds.loop import CellRun
from balbench.harness.rounds.task import Failure, Past, TaskResult
from balbench.harness.streams import Stream
from balbench.harness.study.cell import Cell

NOT_EXACT = (
    "on this processor a fleet changes the last bits of its cells, so the cells train one after another (slower, with "
    f"the same results); the environment variable {MKL_CBWR}=AUTO usually avoids this"
)


def advance(
    cells: Sequence[Cell], pasts: Sequence[Past], data: DeviceData, should_continue: Callable[[], bool]
) -> TaskResult:
    """Run rounds of a fleet until all its cells are finished or failed, or until `should_continue` returns False.

    Cells with fewer finished rounds catch up first. A cell that fails leaves the fleet; the others continue.

    Args:
        cells: cells on the same data, with equal posteriors.
        pasts: the finished rounds of each cell.
        data: the data of the cells.
        should_continue: called before each round.

    Raises:
        BalbenchError: the machine or the input is at fault, so that no cell can continue.
    """
    result = TaskResult()
    runs = [CellRun(cell, data, past) for cell, past in zip(cells, pasts, strict=True)]
    try:
        while (
            active := [r for r in runs if not r.finished and r.cell.directory not in result.failed]
        ) and should_continue():
            behind = min(run.rounds_done for run in active)
            _round([run for run in active if run.rounds_done == behind], data, result)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        result.out_of_memory = True
    return result


def _round(runs: list[CellRun], data: DeviceData, result: TaskResult) -> None:
    """Run one round of cells with the same number of finished rounds."""
    started = time.perf_counter()
    for run in runs:
        if np.isnan(run.label_n).all():
            reason = "the oracle abstained from all of its labels; raise protocol.initial"
            result.failed[run.cell.directory] = Failure(reason, "")
    runs = [run for run in runs if run.cell.directory not in result.failed]
    if not runs:
        return
    models = _fit(runs, data, result)
    seconds = (time.perf_counter() - started) / len(runs)
    for run, model in zip(runs, models, strict=True):
        if isinstance(model, Exception):
            result.failed[run.cell.directory] = Failure.of(model)
            continue
        try:
            result.rounds.append((run.cell.directory, run.round(model, seconds)))
        except CELL_ERRORS as error:
            if isinstance(error, BalbenchError) or out_of_memory(error):
                raise
            result.failed[run.cell.directory] = Failure.of(error)


def _fit(runs: list[CellRun], data: DeviceData, result: TaskResult) -> list[FittedPosterior | Exception]:
    """Fit the runs of each tuned posterior as one program; a run whose posterior cannot be tuned gives its error."""
    tuned = [try_fit(getattr, run, "posterior") for run in runs]
    models: dict[int, FittedPosterior | Exception] = {}
    for index, posterior in enumerate(tuned):
        if isinstance(posterior, Exception):
            models[index] = posterior
        elif index not in models:
            alike = [other for other, own in enumerate(tuned) if own == posterior]
            fitted = _fit_alike(posterior, [runs[other] for other in alike], data, result)
            models |= dict(zip(alike, fitted, strict=True))
    if data.device.type == "cuda":
        torch.cuda.synchronize(data.device)
    return [models[index] for index in range(len(runs))]


def _fit_alike(
    posterior: Posterior, runs: list[CellRun], data: DeviceData, result: TaskResult
) -> list[FittedPosterior | Exception]:
    trains = [run.labelled() for run in runs]
    together = len(runs) == 1 or can_fit_together(posterior, trains[0])
    if not together:
        result.notices = [NOT_EXACT]
    return fit_cells(posterior, trains, data.eval_pairs, [run.posterior_stream() for run in runs], together)


def can_fit_together(posterior: Posterior, pairs: LabelledPairs) -> bool:
    """Return whether a fleet can train as one program: always on a GPU; on a CPU if results of cells do not change.

    On GPUs the results of a cell alone and in a fleet are equal within rounding only (see docs/reproducibility.md).
    """
    features_RD = pairs.features_RD
    return features_RD.device.type != "cpu" or posterior.fleet_is_exact(features_RD.shape[1])


def fit_cells(
    posterior: Posterior,
    trains: Sequence[LabelledPairs],
    validation: LabelledPairs,
    streams: Sequence[Stream],
    together: bool,
) -> list[FittedPosterior | Exception]:
    """Fit all cells of a fleet as one program, or one cell after another (see `Posterior.fit_fleet`)."""
    if together:
        return posterior.fit_fleet(trains, validation, streams)
    return [
        posterior.fit_fleet([train], validation, [stream])[0] for train, stream in zip(trains, streams, strict=True)
    ]
