"""Label savings: how many labels fewer (or more) a policy needs than the reference to reach the same level.

    savings(tau) = 1 - n_policy(tau) / n_reference(tau)

n(tau) is the first *lasting* crossing of the seed-mean curve: the number of labels from which on the curve
stays at or above tau until its end, interpolated linearly between rounds. Metrics of which less is better
are turned over first. Two levels are asked for:

- the reference's final level, its seed mean at the last round that both have. This is the savings of the
  headline.
- the shared level, the worse of the two final levels. Both curves reach it, so it gives a number where the
  headline cannot, a negative one where the policy is worse.

What cannot be known is kept as a bound (censored), never filled in:

- The policy does not (lastingly) reach tau: n_policy > N, its last number of labels, so savings <
  1 - N / n_reference, which is at most 0 when both bought the same number. Kind NOT_REACHED.
- The policy is above tau from its first point on: n_policy <= its first number of labels, taken as equal to
  it, so the number is the least that was saved. Kind AT_LEAST.
- The reference is above tau from its first point on (it learnt nothing lasting) and the policy is not:
  likewise the number is the most that was saved. Kind AT_MOST.
- Both are above tau from their first points on: no acquired label was needed by either; the first numbers
  of labels are compared as they are, which gives 0 when both start from the same initial set.

The interval is a 95% percentile bootstrap, paired over seeds: both curves are resampled with the same
seeds, and tau is found anew in each resample. Resamples whose savings are bounded from above sort below all
numbers, those bounded from below sort above them; an end of the interval that falls among them is itself a
bound. With few seeds such an interval is too narrow (with five, the standard error is underestimated by a
tenth, before the tails are considered).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from balbench.harness.errors import BalbenchError
from balbench.reports.crossings import Crossings, Estimate, Kind, interval_ends, savings_at
from balbench.reports.curves import Curve, Curves
from balbench.reports.statistics import (
    FEWEST_SEEDS,
    RESAMPLES,
    bootstrap_indices,
    percentile_ends,
    resampled_means,
)

if TYPE_CHECKING:
    from balbench.harness.results import Run

DIRECTIONS = {"log_likelihood": 1, "accuracy": 1, "brier": -1, "ece": -1}
SPLITS = ("test", "ood", "eval")
SMOOTHING_WINDOW = 3  # of Melo et al. 2024


@dataclass(frozen=True)
class LevelSavings:
    """Savings at one level: the estimate, its 95% interval (None with too few seeds), what is behind them."""

    estimate: Estimate
    low: Estimate | None
    high: Estimate | None
    share_not_reached: float  # of the resamples; NaN without an interval
    level: float  # tau, in the metric's own unit
    n_policy: float  # labels; infinite when not reached
    n_reference: float  # labels


@dataclass(frozen=True)
class Savings:
    """A policy against the reference: savings at both levels, and the final levels of the metric."""

    final: LevelSavings
    shared: LevelSavings
    final_level: float
    final_difference: float  # policy minus reference, in the metric's own unit
    final_difference_interval: tuple[float, float] | None


def direction(metric: str) -> int:
    """Return 1 if more of the metric is better, -1 if less is.

    Raises:
        BalbenchError: the metric has no direction that we know.
    """
    if metric not in DIRECTIONS:
        raise BalbenchError(f"no savings for the metric {metric!r}; choose one of: {', '.join(DIRECTIONS)}")
    return DIRECTIONS[metric]


def label_savings(policy: Curve, reference: Curve, metric: str, resamples: int = RESAMPLES) -> Savings:
    """Measure a policy against the reference.

    Args:
        policy: the policy's curve.
        reference: the reference's, on the same seeds and rounds (see `Curves.pair`).
        metric: its name, for the direction.
        resamples: of the bootstrap.

    Raises:
        ValueError: the curves are not on the same seeds and rounds.
        BalbenchError: the metric has no direction that we know.
    """
    if not _paired(policy, reference):
        raise ValueError("the curves of policy and reference are not on the same seeds and rounds")
    sign = direction(metric)
    seeds = len(policy.seeds_S)
    one_1S = np.arange(seeds)[None, :]
    index_BS = bootstrap_indices(seeds, resamples) if seeds >= FEWEST_SEEDS else one_1S[:0]
    # the estimate is row 0, summed like every resample, so that ties fall alike
    index_BS = np.concatenate([one_1S, index_BS])
    mean_BT = resampled_means(sign * policy.values_ST, index_BS)
    reference_BT = resampled_means(sign * reference.values_ST, index_BS)
    final_B, shared_B = reference_BT[:, -1], np.minimum(mean_BT[:, -1], reference_BT[:, -1])
    difference_B = sign * (mean_BT[:, -1] - reference_BT[:, -1])
    curves = policy.labels_T, mean_BT, reference.labels_T, reference_BT
    return Savings(
        final=_at_level(savings_at(*curves, final_B), sign * final_B[0]),
        shared=_at_level(savings_at(*curves, shared_B), sign * shared_B[0]),
        final_level=float(sign * mean_BT[0, -1]),
        final_difference=float(difference_B[0]),
        final_difference_interval=percentile_ends(difference_B[1:]) if seeds >= FEWEST_SEEDS else None,
    )


def melo2024_savings(policy: Curve, reference: Curve, metric: str) -> float:
    """Compute the savings as the paper's plotting code does, for comparison with the paper only.

    Curves are averaged over seeds and smoothed with a trailing window of 3 rounds (shorter at the start);
    the savings are 1 - i / T, with i the first of the T rounds, counted from 0, at which the policy exceeds
    the reference's final smoothed level.

    Its flaws: the crossing is the first, not the first lasting one; round i is drawn at (i + 1) batches but
    counted as i, one batch early; a policy that never exceeds the level gets i = 0 and so 100%; there is no
    interpolation and no interval; the smoothing lowers the level that the reference must be matched at.

    Source: Melo et al. 2024, arXiv 2406.10023, `uqlrm/plotting/plot_ood_eval.py` of luckeciano/BAL-PM.
    """
    sign = direction(metric)
    mean_T = _smoothed(sign * policy.mean_T)
    above_T = mean_T > _smoothed(sign * reference.mean_T)[-1]
    return float(1 - above_T.argmax() / len(above_T))


def savings_table(run: Run, metric: str = "log_likelihood", resamples: int = RESAMPLES) -> pd.DataFrame:
    """Measure every policy of a run: one row for each setting, split of `SPLITS` that has the metric, and
    policy.

    Columns (savings are shares of labels, n and labels count labels, levels are in the metric's unit):
        setting, split, metric, policy, is_reference;
        seeds, rounds, labels: what both the policy and the reference have, the last being its largest
            number of labels; 0 seeds where a policy has nothing to compare yet, with all numbers missing;
        savings, kind, bound, reached: at the reference's final level; `savings` is NaN where only an upper
            bound is known, `bound` is NaN where `kind` is exact;
        low, low_kind, low_bound, high, high_kind, high_bound: the 95% interval, in the same manner; NaN and
            "" with fewer than three seeds;
        share_not_reached: share of the resamples in which the policy does not reach the level;
        n_policy (NaN if not reached), n_reference, level;
        reference_gain: how much better the reference ended than it began; unless it is above 0 the level is
            no achievement, and savings mean nothing;
        shared_*: the same at the shared level;
        melo2024: the paper's own number (see `melo2024_savings`), NaN for the reference itself;
        final_level, final_difference (policy minus reference), final_difference_low, final_difference_high.

    Raises:
        BalbenchError: the metric has no direction that we know.
    """
    direction(metric)
    curves = Curves(run.curves[run.curves["metric"] == metric])
    rows = [
        _row(curves, setting, split, metric, policy, run.reference, resamples)
        for setting in curves.settings
        for split in SPLITS
        if curves.has(setting, split, metric)
        for policy in run.policies
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _paired(policy: Curve, reference: Curve) -> bool:
    return np.array_equal(policy.seeds_S, reference.seeds_S) and np.array_equal(policy.rounds_T, reference.rounds_T)


def _smoothed(mean_T: np.ndarray) -> np.ndarray:
    return pd.Series(mean_T).rolling(SMOOTHING_WINDOW, min_periods=1).mean().to_numpy()


def _at_level(crossings: Crossings, level: float) -> LevelSavings:
    """Summarise row 0 (the estimate) and the rows after it (the resamples, if any)."""
    value_B, kind_B = crossings.value_B[1:], crossings.kind_B[1:]
    low, high = interval_ends(value_B, kind_B) if len(value_B) else (None, None)
    return LevelSavings(
        estimate=Estimate(float(crossings.value_B[0]), crossings.kind_B[0]),
        low=low,
        high=high,
        share_not_reached=float((kind_B == Kind.NOT_REACHED).mean()) if len(value_B) else np.nan,
        level=float(level),
        n_policy=float(crossings.n_policy_B[0]),
        n_reference=float(crossings.n_reference_B[0]),
    )


def _row(
    curves: Curves, setting: str, split: str, metric: str, policy: str, reference: str, resamples: int
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, np.nan) | dict.fromkeys(_TEXT_COLUMNS, "")
    row |= {"setting": setting, "split": split, "metric": metric, "policy": policy, "reached": False}
    row |= {"is_reference": policy == reference, "seeds": 0, "rounds": 0}
    pair = curves.pair(setting, policy, reference, split, metric)
    if pair is None:
        return row
    savings = label_savings(*pair, metric, resamples)
    low, high = savings.final_difference_interval or (np.nan, np.nan)
    return (
        row
        | {"seeds": len(pair[0].seeds_S), "rounds": len(pair[0].rounds_T), "labels": pair[0].labels_T[-1]}
        | {"reference_gain": float(direction(metric) * (pair[1].mean_T[-1] - pair[1].mean_T[0]))}
        | _level_columns(savings.final, "")
        | _level_columns(savings.shared, "shared_")
        | {"melo2024": np.nan if policy == reference else melo2024_savings(*pair, metric)}
        | {"final_level": savings.final_level, "final_difference": savings.final_difference}
        | {"final_difference_low": low, "final_difference_high": high}
    )


def _level_columns(level: LevelSavings, prefix: str) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "reached": bool(np.isfinite(level.n_policy)),
        "share_not_reached": level.share_not_reached,
        "n_policy": level.n_policy if np.isfinite(level.n_policy) else np.nan,
        "n_reference": level.n_reference,
        "level": level.level,
    }
    columns |= _estimate_columns(level.estimate, "savings", "kind", "bound")
    columns |= _estimate_columns(level.low, "low", "low_kind", "low_bound")
    columns |= _estimate_columns(level.high, "high", "high_kind", "high_bound")
    return {prefix + name: value for name, value in columns.items() if prefix + name in _COLUMNS}


def _estimate_columns(estimate: Estimate | None, number: str, kind: str, bound: str) -> dict[str, Any]:
    if estimate is None:
        return {number: np.nan, kind: "", bound: np.nan}
    only_bounded = estimate.kind in (Kind.AT_MOST, Kind.NOT_REACHED)
    return {
        number: np.nan if only_bounded else estimate.value,
        kind: str(estimate.kind),
        bound: np.nan if estimate.kind == Kind.EXACT else estimate.value,
    }


_INTERVAL_COLUMNS = ["low", "low_kind", "low_bound", "high", "high_kind", "high_bound"]
_COLUMNS = [
    *["setting", "split", "metric", "policy", "is_reference", "seeds", "rounds", "labels"],
    *["savings", "kind", "bound", "reached", *_INTERVAL_COLUMNS, "share_not_reached"],
    *["n_policy", "n_reference", "level", "reference_gain"],
    *["shared_savings", "shared_kind", "shared_bound", *("shared_" + name for name in _INTERVAL_COLUMNS)],
    *["shared_n_policy", "shared_n_reference", "shared_level"],
    *["melo2024", "final_level", "final_difference", "final_difference_low", "final_difference_high"],
]
_TEXT_COLUMNS = [name for name in _COLUMNS if name.endswith("kind")]
