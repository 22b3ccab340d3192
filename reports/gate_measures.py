"""Whether a curve got worse than its baseline: one-sided tests of label savings, final level and area.

The candidate's curve is compared with the baseline's by t tests over seeds that may overlap (`differences`). Each
measure is a share, positive where the candidate is better:

- savings: label savings of the candidate with the baseline as the reference;
- level: the difference at the last round, as a share of the baseline's gain (its last mean minus its first);
- area: the difference of the mean heights of the curves, as a share of the same gain.

Two one-sided tests answer for a margin m. `p_within` tests a loss of m or more: a small value shows that the candidate
lost less (non-inferiority; Blackwelder 1982, Controlled Clinical Trials 3). `p_worse` tests whether there is no loss: a
small value shows that there is one. Level and area divide by a gain that is estimated too, so the tests are of
candidate - baseline + m gain, a linear function of the curves (Fieller 1954). The p-values of savings are the larger of
that of the t test at exactly this point, and that of the z scores behind the interval of savings.

Seeds that would tell. The standard error shrinks with the root of the number of seeds. With N seeds, the chance that an
unchanged policy passes equals the chance that a loss of m is seen, because both are a difference of m from the
hypothesis. N is the smallest number for which this chance is 80%, by the noncentral t distribution.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import nctdtr, ndtr, ndtri, stdtrit

from balbench.reports.curves import Curve
from balbench.reports.differences import FEWEST_SEEDS, Differences, differences
from balbench.reports.inversion import Estimate, Kind, Path, invert, savings_path
from balbench.reports.learning import direction
from balbench.reports.savings import compare, level_budget, mean_heights

POWER = 0.8  # of the number of seeds that would tell
MOST_SEEDS = 2000
WIDEST = 100.0  # shares of the gain beyond which an end of an interval is only a bound
_LARGEST_Z = 30.0
_REACH, _POINTS, _ROUNDS = math.asinh(WIDEST), 64, 4  # grids that close in on an end; the last is finer than 1e-6
SAVINGS, LEVEL, AREA, COST = "savings", "level", "area", "cost"


@dataclass(frozen=True)
class Measure:
    """One measure of a policy.

    Attributes:
        name: SAVINGS, LEVEL, AREA or COST.
        estimate: a share, positive where the candidate is better.
        low, high: one-sided bounds at confidence 1 - alpha each.
        margin: the largest loss that passes.
        p_within: p-value of a loss of the margin or more.
        p_worse: p-value of no loss.
        seeds_needed: number of seeds that would tell; NaN if it is unknown, infinite if it is above `MOST_SEEDS`.
    """

    name: str
    estimate: Estimate
    low: Estimate
    high: Estimate
    margin: float
    p_within: float
    p_worse: float
    seeds_needed: float


def measures(candidate: Curve, baseline: Curve, metric: str, margin: float, alpha: float) -> list[Measure]:
    """Measure savings, level and area of a candidate, in this order.

    Args:
        candidate: the curve of the changed policy, at least three seeds.
        baseline: the curve before the change, at least three seeds, which learnt (see `balbench.reports.learning`).
        metric: log_likelihood, accuracy or brier.
        margin: the largest loss that passes, as a share in (0, 1).
        alpha: level of each one-sided test, in (0, 0.5).

    Raises:
        BalbenchError: the metric has no direction.
    """
    sign = direction(metric)
    last_S, base_M = sign * candidate.values_ST[:, -1], sign * baseline.values_ST
    gain_M = base_M[:, -1] - base_M[:, 0]
    height_S, height_M = (sign * height for height in mean_heights(candidate, baseline))
    seeds_S, seeds_M = candidate.seeds_S, baseline.seeds_S
    return [
        _savings(candidate, baseline, metric, margin, alpha),
        _share(LEVEL, _Contrast(last_S, base_M[:, -1], gain_M, seeds_S, seeds_M), margin, alpha),
        _share(AREA, _Contrast(height_S, height_M, gain_M, seeds_S, seeds_M), margin, alpha),
    ]


def cost(ratio_S: np.ndarray, ratio_M: np.ndarray, seeds_S: np.ndarray, margin: float, alpha: float) -> Measure:
    """Measure how much cheaper the selection became, from ratios to a reference policy in the same run.

    Args:
        ratio_S: the candidate's seconds of selection over the reference's, for each seed, above 0.
        ratio_M: the same for the baseline, for the same seeds.
        seeds_S: the seeds.
        margin: the largest rise of the seconds that passes, as a share above 0.
        alpha: level of each one-sided test.

    Returns:
        A measure whose shares are -log of the rise: -0.4 means exp(0.4) = 1.5 times the seconds.
    """
    loss = math.log1p(margin)
    own_S, other_S = -np.log(ratio_S), -np.log(ratio_M)
    return _share(COST, _Contrast(own_S, other_S, np.ones(len(own_S)), seeds_S, seeds_S), loss, alpha)


def seeds_that_tell(error: float, effect: float, seeds: int, alpha: float) -> float:
    """Return the number of seeds with which a difference of `effect` is found with a chance of 80%.

    Args:
        error: standard error of the difference with `seeds` seeds.
        effect: the difference, in the same unit.
        seeds: the number of seeds at hand.
        alpha: level of the one-sided test.

    Returns:
        The number; NaN if the effect is not above zero, infinite if the number is above `MOST_SEEDS`.
    """
    if not (effect > 0 and math.isfinite(error)):
        return math.nan
    if error == 0:
        return float(seeds)
    number = bisect_left(
        range(FEWEST_SEEDS, MOST_SEEDS + 1),
        POWER,
        key=lambda N: _power(effect / (error * math.sqrt(seeds / N)), N, alpha),
    )
    return float(FEWEST_SEEDS + number) if FEWEST_SEEDS + number <= MOST_SEEDS else math.inf


def _power(shift: float, seeds: int, alpha: float) -> float:
    """Return the power of a one-sided t test for a difference of `shift` standard errors."""
    if shift > 10:
        return 1.0  # the noncentral t distribution is slow here
    return float(1 - nctdtr(seeds - 1, shift, stdtrit(seeds - 1, 1 - alpha)))


def _savings(candidate: Curve, baseline: Curve, metric: str, margin: float, alpha: float) -> Measure:
    sign, budget = direction(metric), level_budget(baseline, metric)
    path = savings_path(candidate.labels_T, baseline.labels_T, budget.labels)
    compared = compare(candidate, baseline, path.policy_H, path.reference_H, sign)
    found = invert(path, compared, 1 - 2 * alpha)
    p_worse, p_within, needed = found.p_lost, 1.0, math.nan
    if (at_zero := _at_savings(path, budget.labels, 0.0)) is not None:
        p_worse = max(p_worse, float(_compared_at(candidate, baseline, at_zero, sign).p_below_H[0]))
    if (at_margin := _at_savings(path, budget.labels, -margin)) is not None:
        there = _compared_at(candidate, baseline, at_margin, sign)
        p_within = max(float(there.p_above_H[0]), _monotone_p_above(path, compared, -margin))
        effect = _worth(baseline, sign, *at_margin, budget.labels)
        needed = seeds_that_tell(float(there.error_H[0]), effect, len(candidate.seeds_S), alpha)
    return Measure(SAVINGS, found.estimate, found.low, found.high, margin, p_within, p_worse, needed)


def _compared_at(candidate: Curve, baseline: Curve, labels: tuple[float, float], sign: int) -> Differences:
    own, other = (np.array([number]) for number in labels)
    return compare(candidate, baseline, own, other, sign)


def _monotone_p_above(path: Path, compared: Differences, savings: float) -> float:
    """Return the p-value of savings of at most this, from the z scores that the interval is made of."""
    z_H = isotonic_regression(np.nan_to_num(np.clip(compared.z_H, -_LARGEST_Z, _LARGEST_Z))).x
    return float(ndtr(-np.interp(savings, path.savings_H[::-1], z_H[::-1])))


def _at_savings(path: Path, budget: float, savings: float) -> tuple[float, float] | None:
    """Return the labels of candidate and baseline at savings of at most 0; None if the path does not reach them."""
    own, most = budget * (1 - savings), float(path.policy_H.max())
    if own <= most:
        return own, budget
    other = most / (1 - savings)
    return (most, other) if other >= path.reference_H.min() else None


def _worth(baseline: Curve, sign: int, own: float, other: float, budget: float) -> float:
    """Return what the labels of the margin are worth to an unchanged policy, in the metric's unit."""
    mean_T = isotonic_regression(sign * baseline.mean_T).x
    more, fewer = (own, budget) if other == budget else (own, other)
    return float(np.interp(more, baseline.labels_T, mean_T) - np.interp(fewer, baseline.labels_T, mean_T))


@dataclass(frozen=True)
class _Contrast:
    """Values of candidate (S,) and baseline (M,), and the baseline's gains (M,), whose share the difference is."""

    own_S: np.ndarray
    base_M: np.ndarray
    gain_M: np.ndarray
    seeds_S: np.ndarray
    seeds_M: np.ndarray

    def at(self, *share_H: float) -> Differences:
        """Compare the candidate with the baseline plus shares of its gain."""
        own_SH = np.repeat(self.own_S[:, None], len(share_H), axis=1)
        other_MH = self.base_M[:, None] + self.gain_M[:, None] * np.array(share_H)
        return differences(own_SH, self.seeds_S, other_MH, self.seeds_M)


def _share(name: str, contrast: _Contrast, margin: float, alpha: float) -> Measure:
    gain = float(contrast.gain_M.mean())
    same, at_margin = contrast.at(0.0), contrast.at(-margin)
    low, high = (_end(contrast, -limit * float(ndtri(alpha))) for limit in (1, -1))
    return Measure(
        name=name,
        estimate=Estimate(float(same.mean_H[0]) / gain, Kind.EXACT),
        low=low,
        high=high,
        margin=margin,
        p_within=float(at_margin.p_above_H[0]),
        p_worse=float(same.p_below_H[0]),
        seeds_needed=seeds_that_tell(float(at_margin.error_H[0]), margin * gain, len(contrast.own_S), alpha),
    )


def _end(contrast: _Contrast, limit: float) -> Estimate:
    """Return the share at which the falling z score is `limit`; a bound beyond `WIDEST`."""
    share_H = np.sinh(np.linspace(-_REACH, _REACH, _POINTS))
    for _ in range(_ROUNDS):
        above_H = contrast.at(*share_H).z_H > limit
        if not above_H[0]:
            return Estimate(-WIDEST, Kind.AT_MOST)
        if above_H[-1]:
            return Estimate(WIDEST, Kind.AT_LEAST)
        after = int(np.argmin(above_H))
        share_H = np.linspace(share_H[after - 1], share_H[after], _POINTS)
    return Estimate(float(share_H.mean()), Kind.EXACT)
