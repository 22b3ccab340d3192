"""Messages between the coordinator and its workers: a task, what its cells did before, and its result."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from balbench.harness.results.records import RoundRecord, RoundTimings
from balbench.harness.study.cell import Cell

Array = np.ndarray
Features = Literal["auto", "resident", "streamed"]


class Past(NamedTuple):
    """The number of finished rounds of a cell and the pairs that they acquired, in order."""

    rounds: int
    acquired_n: Array

    @classmethod
    def of(cls, records: Sequence[RoundRecord]) -> Past:
        """The past in a cell's records."""
        acquired = [pair for record in records for pair in record["acquired"]]
        return cls(len(records), np.array(acquired, dtype=np.int64))


class Failure(NamedTuple):
    """Why a cell cannot continue: one line, and the traceback."""

    reason: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return cls(reason, "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class Task:
    """Some rounds of a fleet. A task can run anywhere, at any time, and twice.

    Attributes:
        cells, pasts: the fleet, and the finished rounds of each cell.
        dataset_key: key of the data set.
        data: the directory of the data set's arrays, as the worker sees it.
        seconds: begin no round after this many seconds; at least one round is run.
        device: "cpu" or "cuda:i", as the worker's process sees it; set by the engine.
        features: whether features are held on the device or streamed to it.
        processes: how many processes share the device; set by the engine.
    """

    cells: tuple[Cell, ...]
    pasts: tuple[Past, ...]
    dataset_key: str
    data: Path
    seconds: float
    device: str = "cpu"
    features: Features = "auto"
    processes: int = 1


@dataclass
class TaskResult:
    """The rounds that a fleet ran in one task.

    Attributes:
        rounds: directory of the cell, record and timings of each finished round, in order. (Two cells of a study may
            have the same key, hence the same results, under two labels.)
        failed: why cells failed, by directory.
        out_of_memory: whether the fleet did not fit on the device in its last round.
        notices: lines for the user, each to be shown once in a run.
        facts: the worker's machine and versions, for the manifests of cells.
        device: the engine's name for the worker's device.
    """

    rounds: list[tuple[str, RoundRecord, RoundTimings]] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    out_of_memory: bool = False
    notices: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    device: str = ""
