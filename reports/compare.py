"""Two runs, or two policies of a run, side by side: differences with their 95% intervals, and what was changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from balbench.harness.errors import BalbenchError
from balbench.reports.compare_studies import changes, study_changes
from balbench.reports.curves import Curve
from balbench.reports.differences import FEWEST_SEEDS
from balbench.reports.gate import what_changed
from balbench.reports.gate_measures import Measure, measures
from balbench.reports.gate_records import PolicyRecord, Snapshot
from balbench.reports.inversion import CONFIDENCE
from balbench.reports.learning import learning

_MARGIN = 0.05  # of tests that a comparison does not show


@dataclass(frozen=True)
class ComparedPolicy:
    """One policy before and after.

    Attributes:
        setting: the grid's values, "" without a grid.
        old, new: labels of the policy.
        measures: savings, level and area with 95% intervals; empty if they cannot be measured.
        p_values: two-sided p-value of each measure.
        missing: why nothing was measured; empty if something was.
        shared_seeds: number of seeds that both have.
        changed: what the policy declares as changed.
        curves: the curves before and after.
    """

    setting: str
    old: str
    new: str
    measures: list[Measure]
    p_values: list[float]
    missing: str
    shared_seeds: int
    changed: str
    curves: tuple[Curve, Curve]


@dataclass(frozen=True)
class Comparison:
    """Policies before and after.

    Attributes:
        names: names of the studies.
        metric, split: what was compared.
        policies: one entry for each setting and policy.
        changes: what differs in the studies and versions, one line each.
    """

    names: tuple[str, str]
    metric: str
    split: str
    policies: list[ComparedPolicy]
    changes: list[str]

    @property
    def table(self) -> pd.DataFrame:
        """One row for each policy and measure: estimate, 95% interval, two-sided p-value."""
        return pd.DataFrame(
            {
                "setting": each.setting,
                "old": each.old,
                "new": each.new,
                "measure": found.name,
                "estimate": found.estimate.value,
                "low": found.low.value,
                "high": found.high.value,
                "p": p,
                "shared_seeds": each.shared_seeds,
            }
            for each in self.policies
            for found, p in zip(each.measures, each.p_values, strict=True)
        )


def compare_snapshots(
    old: Snapshot, new: Snapshot, pairs: Sequence[tuple[str, str]], metric: str, split: str
) -> Comparison:
    """Compare policies of two runs, seed by seed where they share seeds.

    Args:
        old, new: the runs; the same for two policies of one run.
        pairs: labels of each policy before and after.
        metric: log_likelihood, accuracy or brier.
        split: test or ood.

    Raises:
        BalbenchError: a policy, the metric or the split is missing, or the runs have no setting in common.
    """
    settings = list(dict.fromkeys(record.setting for record in old.records))
    shared = [each for each in settings if any(record.setting == each for record in new.records)]
    if not shared:
        raise BalbenchError(f"{new.name}: has no setting of {old.name}; compare runs of the same grid")
    found = [
        _compared(old.record(setting, before), new.record(setting, after), metric, split)
        for setting in shared
        for before, after in pairs
    ]
    lines = [] if old is new else [*study_changes(old.study, new.study)]
    known = [name for name in old.versions if name in new.versions]
    lines += changes(
        {name: old.versions[name] for name in known}, {name: new.versions[name] for name in known}, "version"
    )
    return Comparison((old.name, new.name), metric, split, found, lines)


def _compared(old: PolicyRecord, new: PolicyRecord, metric: str, split: str) -> ComparedPolicy:
    rounds = min(old.labels_ST.shape[1], new.labels_ST.shape[1])
    before, after = (each.cut(each.seeds_S, rounds).curve(split, metric) for each in (old, new))
    shared = len(set(before.seeds_S.tolist()) & set(after.seeds_S.tolist()))
    missing = _missing(before, after, metric)
    found = [] if missing else measures(after, before, metric, _MARGIN, (1 - CONFIDENCE) / 2)
    p_values = [min(1.0, 2 * min(each.p_worse, 1 - each.p_worse)) for each in found]
    changed = what_changed(new, old)
    return ComparedPolicy(
        old.setting, old.policy, new.policy, found, p_values, missing, shared, changed, (before, after)
    )


def _missing(before: Curve, after: Curve, metric: str) -> str:
    if min(len(before.seeds_S), len(after.seeds_S)) < FEWEST_SEEDS:
        return f"fewer than {FEWEST_SEEDS} seeds"
    fault = learning(before, metric).missing
    return f"{fault}: the old policy did not learn" if fault else ""
