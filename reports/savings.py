"""Label savings: how many labels fewer (or more) a policy needs than the reference to reach the same level.

    savings(tau) = 1 - n_policy(tau) / n_reference(tau)

n(tau) is the first *lasting* crossing of the seed-mean curve: the number of labels from which on the curve
stays at or above tau until its end, interpolated linearly between rounds. The sign of metrics of which less is better
is changed first. Savings are computed at two levels:

- the reference's final level, its seed mean at the last round that both have. These are the savings of the
  headline.
- the shared level, the worse of the two final levels. Both curves reach the shared level, so it gives a number where
  the headline cannot, a negative one where the policy is worse.

Where the data give only a bound, the result is that bound (censored), never an invented number:

- The policy does not (lastingly) reach tau: n_policy > N, its last number of labels, so savings <
  1 - N / n_reference, which is at most 0 when both bought the same number. Kind NOT_REACHED.
- The policy is above tau from its first point on: n_policy is at most its first number of labels and is set to that
  number, so the result is a lower bound on the savings. Kind AT_LEAST.
- The reference is above tau from its first point on and the policy is not: by the same rule, the result is an upper
  bound. Kind AT_MOST.
- Both are above tau from their first points on: neither needed an acquired label. Their first numbers of labels are
  compared, which gives 0 when both start from the same initial set.

The interval is a 95% percentile bootstrap, paired over seeds: both curves are resampled with the same
seeds, and tau is computed again in each resample. Resamples whose savings are bounded from above sort below all
numbers, those bounded from below sort above all numbers; an end of the interval that falls among bounded resamples is
a bound too. With few seeds such an interval is too narrow (with five, the standard error is underestimated by a
tenth, before the tails are considered).

Savings mean nothing where the reference did not learn: see `balbench.reports.learning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from balbench.harness.errors import BalbenchError
from balbench.reports.crossings import Crossings, Estimate, Kind, interval_ends, savings_at
from balbench.reports.curves import Curve
from balbench.reports.learning import Learning, direction, learning
from balbench.reports.statistics import FEWEST_SEEDS, RESAMPLES, percentile_ends, resample, resampled_means

SMOOTHING_WINDOW = 3  # rounds, as in Melo et al. 2024


class Outcome(StrEnum):
    """The outcome of a comparison with the reference."""

    REFERENCE = "reference"
    NO_RESULTS = "no results"
    NO_LEVEL = "no level"  # the reference did not learn
    NO_INTERVAL = "no interval"  # too few seeds
    SAVED = "saved"
    LOST = "lost"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class LevelSavings:
    """Savings at one level.

    Attributes:
        estimate: the savings, or a bound on them.
        low, high: ends of the 95% interval; None with fewer than three seeds.
        share_not_reached: share of the resamples in which the policy does not reach the level; NaN without an interval.
        level: tau, in the metric's own unit.
        n_policy: labels that the policy needed; infinite if it does not reach the level.
        n_reference: labels that the reference needed.
    """

    estimate: Estimate
    low: Estimate | None
    high: Estimate | None
    share_not_reached: float
    level: float
    n_policy: float
    n_reference: float


@dataclass(frozen=True)
class LabelSavings:
    """A policy against the reference: savings at both levels, and the final levels of the metric.

    Attributes:
        final: savings at the reference's final level.
        shared: savings at the worse of the two final levels.
        final_level: the policy's mean at the last round, in the metric's own unit.
        final_difference: policy minus reference at the last round, in the metric's own unit.
        final_difference_interval: its 95% interval; None with fewer than three seeds.
        reference: the learning of the reference. Where `reference.missing` is not empty, all savings are noise.
    """

    final: LevelSavings
    shared: LevelSavings
    final_level: float
    final_difference: float
    final_difference_interval: tuple[float, float] | None
    reference: Learning

    @property
    def outcome(self) -> Outcome:
        """The outcome at a confidence of 95%.

        NO_LEVEL: the reference did not learn beyond chance. SAVED: the whole interval is above zero. LOST: the whole
        interval is at or below zero, bounds included, and the policy does not save labels at the shared level either.
        """
        if self.reference.missing:
            return Outcome.NO_LEVEL
        low, high = self.final.low, self.final.high
        if low is None or high is None:
            return Outcome.NO_INTERVAL
        if low.value > 0 and not low.is_upper_bound:
            return Outcome.SAVED
        below = high.value <= 0 if high.is_upper_bound else high.value < 0
        saves_at_shared = self.shared.estimate.value > 0 and not self.shared.estimate.is_upper_bound
        return Outcome.LOST if below and not saves_at_shared else Outcome.UNCLEAR


def label_savings(
    policy: Curve,
    reference: Curve,
    metric: str = "log_likelihood",
    *,
    chance: float | None = None,
    resamples: int = RESAMPLES,
) -> LabelSavings:
    """Measure how many labels a policy saved against the reference.

    >>> labels = [50, 100, 150, 200]
    >>> random = Curve(labels, [[0.55, 0.60, 0.64, 0.70], [0.56, 0.61, 0.65, 0.71], [0.54, 0.61, 0.66, 0.70]])
    >>> bald = Curve(labels, [[0.55, 0.66, 0.72, 0.74], [0.56, 0.67, 0.71, 0.75], [0.54, 0.66, 0.73, 0.74]])
    >>> savings = label_savings(bald, random, "accuracy")
    >>> savings.outcome.value, round(savings.final.estimate.value, 2)
    ('saved', 0.32)

    Args:
        policy: the policy's curve.
        reference: the reference's curve, on the same seeds and with as many rounds.
        metric: "log_likelihood", "accuracy" or "brier"; determines the direction and the value of chance.
        chance: the score of a model that predicts 1/2 for every pair; by default -ln 2, 1/2 or 1/4.
        resamples: number of bootstrap resamples, at least 1.

    Raises:
        BalbenchError: the metric has no savings, or the curves differ in seeds or rounds.
    """
    sign = direction(metric)
    if resamples < 1:
        raise BalbenchError(f"resamples: is {resamples}; give at least 1")
    _check_paired(policy, reference)
    seeds = len(policy.seeds_S)
    # the first row is the estimate; it is summed like every resample, so that rounding affects ties in the same way
    index_US, use_B = resample(seeds, resamples if seeds >= FEWEST_SEEDS else 0)
    mean_UT = resampled_means(sign * policy.values_ST, index_US)
    reference_UT = resampled_means(sign * reference.values_ST, index_US)
    final_U, shared_U = reference_UT[:, -1], np.minimum(mean_UT[:, -1], reference_UT[:, -1])
    difference_U = sign * (mean_UT[:, -1] - reference_UT[:, -1])
    curves = policy.labels_T, mean_UT, reference.labels_T, reference_UT
    return LabelSavings(
        final=_at_level(savings_at(*curves, final_U), sign * final_U[0], use_B),
        shared=_at_level(savings_at(*curves, shared_U), sign * shared_U[0], use_B),
        final_level=float(sign * mean_UT[0, -1]),
        final_difference=float(difference_U[0]),
        final_difference_interval=percentile_ends(difference_U[use_B]) if len(use_B) else None,
        reference=learning(reference, metric, chance),
    )


def melo2024_savings(policy: Curve, reference: Curve, metric: str) -> float:
    """Compute the savings as the paper's plotting code does, for comparison with the paper only.

    Curves are averaged over seeds and smoothed with a trailing window of 3 rounds (shorter at the start);
    the savings are 1 - i / T, with i the first of the T rounds, counted from 0, at which the policy exceeds
    the reference's final smoothed level.

    Its flaws: the crossing is the first, not the first lasting one; round i is drawn at (i + 1) batches but
    counted as i, one batch early; a policy that never exceeds the level gets i = 0 and so 100%; there is no
    interpolation and no interval; the smoothing lowers the level that the policy must match.

    Source: Melo et al. 2024, arXiv 2406.10023, `uqlrm/plotting/plot_ood_eval.py` of luckeciano/BAL-PM.
    """
    sign = direction(metric)
    above_T = _smoothed(sign * policy.mean_T) > _smoothed(sign * reference.mean_T)[-1]
    return float(1 - above_T.argmax() / len(above_T))


def _check_paired(policy: Curve, reference: Curve) -> None:
    if not np.array_equal(policy.seeds_S, reference.seeds_S):
        seeds = " and ".join(str(curve.seeds_S.tolist()) for curve in (policy, reference))
        raise BalbenchError(f"seeds: policy and reference have the seeds {seeds}; give curves of the same seeds")
    if not np.array_equal(policy.rounds_T, reference.rounds_T):
        rounds = " and ".join(str(len(curve.rounds_T)) for curve in (policy, reference))
        raise BalbenchError(
            f"rounds: policy and reference have {rounds} rounds, but not the same; give the same rounds"
        )


def _smoothed(mean_T: np.ndarray) -> np.ndarray:
    """Average over a trailing window of `SMOOTHING_WINDOW` rounds, over fewer at the start."""
    return np.array([mean_T[max(0, stop - SMOOTHING_WINDOW) : stop].mean() for stop in range(1, len(mean_T) + 1)])


def _at_level(crossings: Crossings, level: float, use_B: np.ndarray) -> LevelSavings:
    """Summarise the first row (the estimate) and, where there are resamples, their interval."""
    value_B, kind_B = crossings.value_B[use_B], crossings.kind_B[use_B]
    low, high = interval_ends(value_B, kind_B) if len(use_B) else (None, None)
    return LevelSavings(
        estimate=Estimate(float(crossings.value_B[0]), crossings.kind_B[0]),
        low=low,
        high=high,
        share_not_reached=float((kind_B == Kind.NOT_REACHED).mean()) if len(use_B) else np.nan,
        level=float(level),
        n_policy=float(crossings.n_policy_B[0]),
        n_reference=float(crossings.n_reference_B[0]),
    )
