"""What a gate compares: the curves, picks and selection times of each policy of a run, as one small value.

A `Snapshot` is made from a run, or read from the file of a baseline (see `balbench.reports.gate_file`). Metrics are
rounded to ten significant digits in both, so that equal results are equal after they were written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from balbench.harness.errors import BalbenchError
from balbench.harness.results import CellLog, RunDirectory
from balbench.reports.curves import Curve, chosen
from balbench.reports.savings_table import METRICS, SPLITS

if TYPE_CHECKING:
    from balbench.harness.results import Run

SELECTION = ("score", "select")  # stages of a round that choose its batch
DIGITS = 10  # significant digits of metrics


@dataclass(frozen=True)
class PolicyRecord:
    """The results of one policy in one setting, S seeds and T rounds.

    Attributes:
        setting: the grid's values, "" without a grid.
        policy: label of the policy.
        settings: name and settings of the policy.
        key: hash of the policy: its code's version and its settings.
        world: hash of what all policies of the setting share: data set, oracle, posterior, protocol, loop.
        dataset: hash of the data set.
        sources: hashes of the source of plug-ins, by kind and name.
        seeds_S: the seeds.
        labels_ST: labels on which the model of each round was trained.
        metrics: values (S, T) by "split/metric"; a name with the ending `_se` is a standard error over held-out pairs.
        picks_ST: hash of the pairs that were acquired after each round, in order.
        seconds_ST: seconds of selection in each round; None if some are unknown.
    """

    setting: str
    policy: str
    settings: dict[str, Any]
    key: str
    world: str
    dataset: str
    sources: dict[str, str]
    seeds_S: np.ndarray
    labels_ST: np.ndarray
    metrics: dict[str, np.ndarray]
    picks_ST: list[list[str]]
    seconds_ST: np.ndarray | None

    @property
    def title(self) -> str:
        """Name of the policy in messages, with the setting if there is one."""
        return f"{self.policy} ({self.setting})" if self.setting else self.policy

    def curve(self, split: str, metric: str) -> Curve:
        """Return a learning curve.

        Raises:
            BalbenchError: there are no values of this split and metric.
        """
        known = [name for name in self.metrics if not name.endswith("_se")]
        name = chosen("metric", f"{split}/{metric}", known)
        errors_ST = self.metrics.get(f"{name}_se")
        return Curve(self.labels_ST.mean(axis=0), self.metrics[name], seeds=self.seeds_S, pair_errors=errors_ST)

    def cut(self, seeds_S: np.ndarray, rounds: int) -> PolicyRecord:
        """Return the record of some seeds, in this order, and of the first rounds.

        Raises:
            BalbenchError: a seed or a round is missing.
        """
        missing = sorted(set(seeds_S.tolist()) - set(self.seeds_S.tolist()))
        if missing:
            raise BalbenchError(f"{self.title}: lacks the seeds {missing} of the baseline; run them too")
        if self.labels_ST.shape[1] < rounds:
            raise BalbenchError(f"{self.title}: has {self.labels_ST.shape[1]} rounds, the baseline has {rounds}")
        rows = [self.seeds_S.tolist().index(seed) for seed in seeds_S.tolist()]
        last = rounds - 1  # a longer run acquires after this round, the baseline does not
        picks_ST = [[*self.picks_ST[row][:last], hash_of([])] for row in rows]
        return replace(
            self,
            seeds_S=seeds_S,
            labels_ST=self.labels_ST[rows, :rounds],
            metrics={name: values_ST[rows, :rounds] for name, values_ST in self.metrics.items()},
            picks_ST=picks_ST,
            seconds_ST=None if self.seconds_ST is None else self.seconds_ST[rows, :rounds],
        )


@dataclass(frozen=True)
class Snapshot:
    """The policies of a run, and the world in which they ran.

    Attributes:
        name: name of the study.
        reference: label of the reference of label savings.
        study: the resolved study file.
        versions: the version of balbench, of the loop and of each component, as far as they are known.
        machines: the different machines of the cells (instruction set, versions of libraries).
        records: the policies.
    """

    name: str
    reference: str
    study: dict[str, Any]
    versions: dict[str, Any]
    machines: list[dict[str, Any]]
    records: list[PolicyRecord] = field(repr=False)

    def record(self, setting: str, policy: str) -> PolicyRecord:
        """Return the record of a policy.

        Raises:
            BalbenchError: there is no such policy in this setting.
        """
        found = [each for each in self.records if (each.setting, each.policy) == (setting, policy)]
        if found:
            return found[0]
        known = ", ".join(dict.fromkeys(each.policy for each in self.records))
        place = f" in the setting {setting!r}" if setting else ""
        raise BalbenchError(f"policy {policy!r}: {self.name} has no such policy{place}; it has {known}")


def snapshot(run: Run, policies: Sequence[str] | None = None, versions: dict[str, Any] | None = None) -> Snapshot:
    """Take the snapshot of a run.

    Args:
        run: from `balbench.harness.results.read_run`.
        policies: labels of the policies to keep; all by default.
        versions: versions of balbench and its components, if they are known.

    Raises:
        BalbenchError: a policy is unknown, or some of its cells are unfinished or failed.
    """
    kept = run.policies if policies is None else [chosen("policy", name, run.policies) for name in policies]
    if not kept:
        raise BalbenchError(f"{run.path}: the run has no policies with curves; run a study that has some")
    _check_finished(run, kept)
    source = _Source(run)
    records = [
        source.record(setting, policy)
        for setting in dict.fromkeys(setting for setting, _, _ in run.stored)
        for policy in kept
        if any(key[:2] == (setting, policy) for key in run.stored)
    ]
    return Snapshot(run.name, run.reference, run.study, versions or {}, list(source.machines.values()), records)


class _Source:
    """Reads the records of a run, and collects the machines of its cells."""

    def __init__(self, run: Run) -> None:
        header = RunDirectory(run.path).header
        self._run, self._cells = run, {cell["directory"]: cell for cell in (header or {"cells": []})["cells"]}
        wanted = [*METRICS, *(f"{metric}_se" for metric in METRICS)]
        self._curves = run.curves[run.curves["split"].isin(SPLITS) & run.curves["metric"].isin(wanted)]
        self.machines: dict[str, dict[str, Any]] = {}

    def record(self, setting: str, policy: str) -> PolicyRecord:
        rows = self._curves[(self._curves["setting"] == setting) & (self._curves["policy"] == policy)]
        seeds_S = np.sort(rows["seed"].unique()).astype(np.int64)
        rounds = int(rows["round"].max()) + 1
        logs = [self._log(setting, policy, int(seed)) for seed in seeds_S]
        cell = self._cells[logs[0].directory.name]
        keys = {name: cell["keys"].get(name, "") for name in ("policy", "setting", "dataset")}
        first = rows[(rows["split"] == rows["split"].iloc[0]) & (rows["metric"] == rows["metric"].iloc[0])]
        values = rows.groupby(["split", "metric"], sort=False)
        return PolicyRecord(
            setting=setting,
            policy=policy,
            settings=cell["settings"],
            key=keys["policy"],
            world=keys["setting"],
            dataset=keys["dataset"],
            sources=_sources(logs[0]),
            seeds_S=seeds_S,
            labels_ST=_matrix(first, "labels"),
            metrics={f"{split}/{metric}": rounded(_matrix(part, "value")) for (split, metric), part in values},
            picks_ST=[[hash_of(record["acquired"]) for record in log.rounds()[:rounds]] for log in logs],
            seconds_ST=self._seconds(setting, policy, seeds_S, rounds),
        )

    def _log(self, setting: str, policy: str, seed: int) -> CellLog:
        log = RunDirectory(self._run.path).cell(self._run.stored[setting, policy, seed].directory)
        machine = (log.manifest or {"machine": {}})["machine"]
        self.machines.setdefault(json.dumps(machine, sort_keys=True), machine)
        return log

    def _seconds(self, setting: str, policy: str, seeds_S: np.ndarray, rounds: int) -> np.ndarray | None:
        """Return the seconds of selection, shape (S, T); None if the run has none."""
        frame = self._run.timings
        frame = frame[(frame["setting"] == setting) & (frame["policy"] == policy) & frame["stage"].isin(SELECTION)]
        if not len(frame):
            return None
        table = frame.pivot_table(index="seed", columns="round", values="seconds", aggfunc="sum")
        return table.reindex(index=seeds_S, columns=range(rounds)).fillna(0.0).to_numpy(dtype=float)


def rounded(values: np.ndarray) -> np.ndarray:
    """Round to `DIGITS` significant digits, as in the file of a baseline."""
    return np.array([float(f"{value:.{DIGITS}g}") for value in values.ravel()]).reshape(values.shape)


def hash_of(pairs: Sequence[int]) -> str:
    """Return 16 hexadecimal digits that identify an ordered batch of pairs."""
    return hashlib.sha256(json.dumps(list(pairs)).encode()).hexdigest()[:16]


def _check_finished(run: Run, policies: Sequence[str]) -> None:
    cells = run.cells[run.cells["policy"].isin(policies)]
    unfinished = cells[cells["state"] != "finished"]
    if not len(unfinished):
        return
    first = unfinished.sort_values("state", kind="stable").iloc[0]  # failed cells are first
    reason = f": {first['reason']}" if first["reason"] else ""
    raise BalbenchError(
        f"{run.path}: {len(unfinished)} of {len(cells)} cells are not finished "
        f"({first['policy']}, seed {first['seed']}, {first['state']}{reason}); run the study again"
    )


def _sources(log: CellLog) -> dict[str, str]:
    facts = log.facts
    return {} if facts is None else dict(facts["sources"]) | ({"balbench": facts["code"]} if facts["code"] else {})


def _matrix(rows: Any, column: str) -> np.ndarray:
    """Return values as seeds x rounds, both ascending; NaN where a value is missing."""
    return rows.pivot_table(index="seed", columns="round", values=column, aggfunc="first").to_numpy(dtype=float)
