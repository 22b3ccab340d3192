"""A run as tidy frames."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from balbench.harness.errors import BalbenchError, RunDirectoryError, shortened
from balbench.harness.files import read_json
from balbench.harness.results.cell_log import CellLog
from balbench.harness.results.directory import RunDirectory
from balbench.harness.results.held_out import HeldOut, read_held_out
from balbench.harness.results.predictions import FILE, read_predictions
from balbench.harness.results.records import (
    DATA_FACTS,
    CellHeader,
    Lines,
    PredictionsRow,
    RunData,
    StudyHeader,
    lacks,
    up_to,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class StoredCell(NamedTuple):
    """Where the predictions of a cell are stored.

    Attributes:
        directory: name of the cell's directory.
        rows: the description of each round's row; None for a round without predictions.
    """

    directory: str
    rows: list[PredictionsRow | None]


@dataclass(frozen=True)
class Run:
    """A run as tidy frames, finished or not.

    Attributes:
        name: name of the study.
        path: path of the run directory.
        reference: label of the policy against which savings are measured.
        policies: labels in the order of the study, without policies that acquire the full data.
        policy_settings: all settings of each policy.
        protocol: initial, batch, rounds.
        study: the resolved study file.
        fingerprint: hash of all results.
        curves: setting, policy, seed, round, labels, split, metric, value.
        lines: setting, line, split, metric, value of horizontal reference lines.
        full_data: setting, seed, labels, split, metric, value of models trained on the whole pool.
        timings: setting, policy, seed, round, stage, seconds.
        cells: setting, policy, seed, key, state, rounds_done, rounds, reason.
        stored: the predictions of each (setting, policy, seed), read by `predictions`.
        datasets: the key of each setting's data set.
    """

    name: str
    path: Path
    reference: str
    policies: list[str]
    policy_settings: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    study: dict[str, Any]
    fingerprint: str
    curves: pd.DataFrame
    lines: pd.DataFrame
    full_data: pd.DataFrame
    timings: pd.DataFrame
    cells: pd.DataFrame
    stored: dict[tuple[str, str, int], StoredCell] = field(repr=False)
    datasets: dict[str, str] = field(repr=False)

    def held_out(self, setting: str = "") -> dict[str, HeldOut] | None:
        """Read the votes, prompts and distances of the held-out pairs of a setting, without the split `eval`.

        Returns:
            The pairs of each split; None if an older version made the run, which did not store them.

        Raises:
            BalbenchError: the run has no such setting, or the file is damaged.
        """
        return read_held_out(self._data(setting))

    def data_facts(self, setting: str = "") -> RunData | None:
        """Read the counts, facts and warnings about the data set of a setting; None before the data set is built.

        Raises:
            BalbenchError: the run has no such setting, or the file is damaged.
        """
        facts = read_json((folder := self._data(setting)) / DATA_FACTS)
        if facts is not None and lacks(facts, RunData):
            raise RunDirectoryError(f"{folder / DATA_FACTS}: is damaged; delete it and run the study again")
        return facts

    def _data(self, setting: str) -> Path:
        if setting not in list(self.datasets):  # a list, because the argument can be unhashable
            raise BalbenchError(f"setting: no {shortened(repr(setting))}; known: {', '.join(map(repr, self.datasets))}")
        return RunDirectory(self.path).data(self.datasets[setting])

    def predictions(self, setting: str, policy: str, seed: int) -> dict[str, np.ndarray] | None:
        """Read the predictions of a cell for the pairs of `held_out`.

        Returns:
            For each split the logits of P(first preferred), float16 (T, N) for T finished rounds; None if the cell has
            no rounds, if an older version made the run, or if the file was deleted.

        Raises:
            BalbenchError: the run has no such cell, or the file is damaged.
        """
        if (setting, policy, seed) not in list(self.stored):
            place = shortened(repr((setting, policy, seed)))
            raise BalbenchError(f"the run has no cell {place}; `cells` lists settings, policies and seeds")
        cell = self.stored[setting, policy, seed]
        return read_predictions(RunDirectory(self.path).cell(cell.directory).directory / FILE, cell.rows)


def read_run(path: Path | str, requested: StudyHeader | None = None) -> Run:
    """Read a run directory.

    Args:
        path: the directory.
        requested: header of a study whose cells are in the directory, to read its cells and rounds only. By default,
            all cells of the directory are read.

    Raises:
        RunDirectoryError: the path is not a run directory, or a file of the run is damaged.
    """
    directory = RunDirectory(path)
    kept = directory.header if directory.path.is_dir() else None
    if kept is None:
        fault = "is a file and holds no run" if directory.path.is_file() else "holds no run (no study.json)"
        raise RunDirectoryError(f"{path}: {fault}; give the directory of a run")
    header = kept if requested is None else {**requested, "lines": kept["lines"]}
    study, frames = header["study"], _Frames()
    for cell in header["cells"]:
        frames.add(cell, directory.cell(cell["directory"]))
    settings = {cell["policy"]: cell["settings"] for cell in header["cells"] if not cell["full_data"]}
    return Run(
        name=study["name"],
        path=directory.path,
        reference=study["reference"],
        policies=list(settings),
        policy_settings=settings,
        protocol=study["protocol"],
        study=study,
        fingerprint=frames.fingerprint(header),
        lines=_lines_frame(header["lines"]),
        stored=frames.stored,
        datasets={cell["setting"]: cell["keys"].get("dataset", "") for cell in header["cells"]},
        **frames.tables(),
    )


class _Frames:
    """Collects the rows of all cells."""

    COLUMNS: ClassVar[dict[str, list[str]]] = {
        "curves": ["setting", "policy", "seed", "round", "labels", "split", "metric", "value"],
        "full_data": ["setting", "seed", "labels", "split", "metric", "value"],
        "timings": ["setting", "policy", "seed", "round", "stage", "seconds"],
        "cells": ["setting", "policy", "seed", "key", "state", "rounds_done", "rounds", "reason"],
    }

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple]] = {name: [] for name in self.COLUMNS}
        self._hash = hashlib.sha256()
        self.stored: dict[tuple[str, str, int], StoredCell] = {}

    def add(self, cell: CellHeader, log: CellLog) -> None:
        setting, policy, seed = cell["setting"], cell["policy"], cell["seed"]
        records = up_to(log.rounds(), cell["rounds"])
        for record in records:
            for split, metrics in record["metrics"].items():
                for metric, value in metrics.items():
                    tail = (record["labels"], split, metric, value)
                    if cell["full_data"]:
                        self._rows["full_data"].append((setting, seed, *tail))
                    else:
                        self._rows["curves"].append((setting, policy, seed, record["round"], *tail))
        for timing in log.timings():
            for stage, seconds in timing["seconds"].items() if timing["round"] < cell["rounds"] else ():
                self._rows["timings"].append((setting, policy, seed, timing["round"], stage, seconds))
        self.stored[setting, policy, seed] = StoredCell(
            cell["directory"], [record.get("predictions") for record in records]
        )
        finished, failure = log.is_finished(cell["rounds"]), log.failure
        state = "finished" if finished else "failed" if failure else "running" if records else "waiting"
        reason = failure["reason"] if failure and not finished else ""
        self._rows["cells"].append((setting, policy, seed, cell["key"], state, len(records), cell["rounds"], reason))
        self._hash.update(json.dumps([cell, state, reason, records], sort_keys=True).encode())

    def tables(self) -> dict[str, pd.DataFrame]:
        import pandas as pd

        return {name: pd.DataFrame(self._rows[name], columns=columns) for name, columns in self.COLUMNS.items()}

    def fingerprint(self, header: StudyHeader) -> str:
        self._hash.update(json.dumps(header, sort_keys=True).encode())
        return self._hash.hexdigest()


def _lines_frame(lines: dict[str, Lines]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (setting, line, split, metric, value)
        for setting, by_line in lines.items()
        for line, by_split in by_line.items()
        for split, metrics in by_split.items()
        for metric, value in metrics.items()
    ]
    return pd.DataFrame(rows, columns=["setting", "line", "split", "metric", "value"])
