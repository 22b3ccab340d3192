"""Savings over units: the data sets (runs) of a report, or the settings of its studies.

A unit is one setting of one run. Only units whose reference gives a level count, and only policies that all of these
units have; what is left out is named. At least three units are needed.

Scale. Savings are at most 100%, but a policy may need several times as many labels, so a mean of savings is a mean of
outliers. Means, intervals and Wilcoxon's test therefore use log(n(reference) / n(policy)): half the labels and twice
the labels cancel. Means are turned back into savings.

Bounds. Savings that are only known to be at most (or at least) a bound enter means with the bound, and the mean is
marked. In ranks and in Wilcoxon's test they are the worst (or best), and in the performance profile savings of at most
a bound reach no threshold.

Intervals. Units vary, and the savings of each have the noise of its seeds; the spread over units holds both. So an
interval of a mean needs no second resampling of seeds. It speaks of other units like these. Settings that share data or
seeds are not independent, and then the interval is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from balbench.reports.analysis import Analysis
from balbench.reports.learning import direction
from balbench.reports.multiplicity import holm
from balbench.reports.savings import Outcome
from balbench.reports.unit_statistics import (
    Interval,
    average_ranks,
    critical_difference,
    friedman_p,
    improvement,
    iqm_interval,
    mean_interval,
    signed_rank_p,
)

FEWEST_UNITS = 3
_COUNTED = (Outcome.SAVED, Outcome.UNCLEAR, Outcome.LOST)
COLUMNS = [
    *["policy", "units", "saved", "unclear", "lost", "mean", "mean_low", "mean_high", "iqm", "iqm_low", "iqm_high"],
    *["at_most", "at_least", "improvement", "improvement_low", "improvement_high", "rank", "p_value", "p_adjusted"],
]
_UNMEASURED = (Outcome.NO_RESULTS, Outcome.NO_LEVEL)


@dataclass(frozen=True)
class Across:
    """The savings of all policies in all units, for one split and metric.

    Attributes:
        split, metric, reference: their names.
        units: names of the units that count, U.
        policies: labels of the policies that all units have, without the reference, P.
        without_level: names of the units whose reference gives no level.
        incomplete: labels of the policies that some units lack.
        extreme_UP: savings, with infinite values in place of bounds.
        all_savings: savings or bounds of all units (rows) and policies (columns), NaN where there are none.
        all_bounds: -1 where these are at most, 1 where they are at least, else 0.
        table: one row for each policy (see `across`).
        ranks: average rank of the reference and all policies.
        friedman_p: p-value of the hypothesis that all ranks are equal; NaN for a single policy.
        critical_difference: of average ranks.
    """

    split: str
    metric: str
    reference: str
    units: list[str]
    policies: list[str]
    without_level: list[str]
    incomplete: list[str]
    extreme_UP: np.ndarray
    all_savings: pd.DataFrame
    all_bounds: pd.DataFrame
    table: pd.DataFrame
    ranks: pd.Series
    friedman_p: float
    critical_difference: float


def across(analyses: Sequence[Analysis], split: str, metric: str) -> Across | None:
    """Compare policies over all units of a report.

    Returns:
        None with fewer than `FEWEST_UNITS` units, without a policy that all units have, or if the runs have different
        references. The columns of `table` (savings and intervals are shares of labels):

        - policy, units; saved, unclear, lost: numbers of units with each outcome;
        - mean, mean_low, mean_high; iqm, iqm_low, iqm_high: mean and interquartile mean with 95% intervals; at_most,
          at_least: numbers of units whose savings are bounds, so that these means are bounds too;
        - improvement, improvement_low, improvement_high: probability that a run of the policy ends with a better metric
          than a run of the reference that bought as many labels;
        - rank: average rank among all policies and the reference;
        - p_value, p_adjusted: Wilcoxon's signed-rank test against the reference, and Holm's adjustment.
    """
    references = {each.run.reference for each in analyses}
    frame = _frame(analyses, split, metric)
    if len(references) != 1 or not len(frame):
        return None
    measured = frame[~frame["outcome"].isin(_UNMEASURED)]
    units = list(dict.fromkeys(measured["unit"]))
    counts = measured["policy"].value_counts()
    policies = [policy for policy in dict.fromkeys(measured["policy"]) if counts[policy] == len(units)]
    if len(units) < FEWEST_UNITS or not policies:
        return None
    names, labels = (list(dict.fromkeys(frame[column])) for column in ("unit", "policy"))
    all_savings, all_bounds, outcomes = (
        frame.pivot(index="unit", columns="policy", values=name).loc[names, labels]
        for name in ("number", "bound_sign", "outcome")
    )
    extreme_UP = _extremes(all_savings.loc[units, policies], all_bounds.loc[units, policies])
    with_reference = np.column_stack([np.zeros(len(units)), extreme_UP])
    ranks = pd.Series(average_ranks(with_reference), index=[reference := references.pop(), *policies])
    scores = _last_scores(analyses, split, metric)
    rows = [
        _row(all_savings.loc[units, policy], all_bounds.loc[units, policy], outcomes.loc[units, policy])
        | _ends("improvement", improvement([scores[unit, policy] for unit in units]))
        | {"rank": ranks[policy]}
        for policy in policies
    ]
    table = pd.DataFrame(rows)
    return Across(
        split=split,
        metric=metric,
        reference=reference,
        units=units,
        policies=policies,
        without_level=[name for name in names if name not in units],
        incomplete=[label for label in labels if label not in policies],
        extreme_UP=extreme_UP,
        all_savings=all_savings,
        all_bounds=all_bounds,
        table=table.assign(p_adjusted=holm(list(table["p_value"])))[COLUMNS],
        ranks=ranks,
        friedman_p=friedman_p(with_reference),
        critical_difference=critical_difference(len(ranks), len(units)),
    )


def _frame(analyses: Sequence[Analysis], split: str, metric: str) -> pd.DataFrame:
    """Return the rows of all savings tables, without references: unit, policy, outcome, number, bound_sign."""
    frames = []
    for each in analyses:
        table = each.tables.get(metric)
        rows = pd.DataFrame() if table is None else table[(table["split"] == split) & ~table["is_reference"]]
        if len(rows):
            names = rows["setting"].map(lambda setting, each=each: _unit(analyses, each, setting))
            frames.append(rows.assign(unit=names))
    if not frames:
        return pd.DataFrame(columns=["unit", "policy", "outcome", "number", "bound_sign"])
    frame = pd.concat(frames, ignore_index=True)
    signs = frame["kind"].map({"at_most": -1, "at_least": 1}).fillna(0).astype(int)
    return frame.assign(number=frame["savings"].fillna(frame["bound"]).astype(float), bound_sign=signs)


def _unit(analyses: Sequence[Analysis], analysis: Analysis, setting: str) -> str:
    """Name a unit: the setting, and the run where there are several."""
    run = analysis.name if len(analyses) > 1 or not setting else ""
    return ", ".join(filter(None, [run, setting]))


def _last_scores(
    analyses: Sequence[Analysis], split: str, metric: str
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return the scores of policy and reference at the last round that both have, by unit and policy."""
    sign, scores = direction(metric), {}
    for each in analyses:
        for setting in each.curves.settings:
            for policy in each.run.policies:
                pair = each.curves.pair(setting, policy, each.run.reference, split, metric)
                if pair is not None:
                    own_S, other_M = (sign * curve.values_ST[:, -1] for curve in pair)
                    scores[_unit(analyses, each, setting), policy] = own_S, other_M
    return scores


def _row(savings: pd.Series, bounds: pd.Series, outcomes: pd.Series) -> dict[str, Any]:
    """Return the statistics of one policy over units, without those that need other policies."""
    log_U, bound_U = -np.log1p(-savings.to_numpy(dtype=float)), bounds.to_numpy(dtype=int)
    row: dict[str, Any] = {"policy": savings.name, "units": len(savings)}
    row |= {str(outcome): int((outcomes == outcome).sum()) for outcome in _COUNTED}
    row |= {"at_most": int((bound_U < 0).sum()), "at_least": int((bound_U > 0).sum())}
    for name, interval in (("mean", mean_interval(log_U)), ("iqm", iqm_interval(log_U))):
        savings_interval = Interval(*(-math.expm1(-value) for value in astuple(interval)))
        row |= _ends(name, savings_interval)
    return row | {"p_value": signed_rank_p(_extremes(log_U, bound_U))}


def _extremes(values: ArrayLike, bounds: ArrayLike) -> np.ndarray:
    """Return values with infinite values in place of bounds."""
    signs = np.asarray(bounds, dtype=float)
    return np.where(signs == 0, np.asarray(values, dtype=float), np.copysign(np.inf, signs))


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
