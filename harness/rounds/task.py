"""Messages between the coordinator and its workers: tasks, the finished rounds of their cells, and results."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from balbench.harness.results.records import FinishedRound, RoundRecord
from balbench.harness.study.cell import Cell

Array = np.ndarray
Features = Literal["auto", "resident", "streamed"]


class Past(NamedTuple):
    """The number of finished rounds of a cell and the pairs that they acquired, in order."""

    rounds: int
    acquired_n: Array

    @classmethod
    def of(cls, records: Sequence[RoundRecord]) -> Past:
        """Return the past that a cell's records describe."""
        acquired = [pair for record in records for pair in record["acquired"]]
        return cls(len(records), np.array(acquired, dtype=np.int64))


class Failure(NamedTuple):
    """The reason why a cell cannot continue, in one line, and the traceback."""

    reason: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an error."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return cls(reason, "".join(traceback.format_exception(error)))


@dataclass(frozen=True)
class Task:
    """A number of rounds of a fleet. A task can run on any worker, at any time, and more than once.

    Attributes:
        cells, pasts: the fleet, and the finished rounds of each cell.
        dataset_key: key of the data set.
        data: the directory of the data set's arrays on the worker's machine.
        seconds: no round starts after this many seconds; at least one round runs.
        device: "cpu" or "cuda:i" in the worker's process; set by the engine.
        features: whether features are kept on the device or streamed to the device.
        processes: number of processes that share the device; set by the engine.
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
    """The result of a task: the rounds that a fleet ran.

    Attributes:
        rounds: each finished round with the directory of its cell, in order. (Two cells of a study with different
            labels can have the same directory, because they have the same key and results.)
        failed: the failures of cells, by directory.
        out_of_memory: whether the fleet did not fit on the device in its last round.
        notices: lines for the user; a run shows each line once.
        facts: the worker's machine and versions, for the manifests of cells.
        device: the engine's name for the worker's device.
    """

    rounds: list[tuple[str, FinishedRound]] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    out_of_memory: bool = False
    notices: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    device: str = ""
