"""Label savings: how many labels fewer (or more) a policy needs than the reference to reach the same level.

    savings = 1 - n(policy) / n(reference)

The level is what the reference reaches with its budget, usually all of its N labels. A policy that reaches the level
needs n <= N labels, and its savings are 1 - n / N. A policy that does not reach it ends, with its own N labels, at
a level that the reference reaches with n labels; its savings are 1 - N / n, a negative number. Both are the savings at
the worse of the two final levels. `balbench.reports.inversion` has the interval, the estimate and the p-value, which
come from one family of tests.

The budget. Where a reference is on a plateau, a small error of its final level is worth many labels. So the budget is
N, except where the reference has 95% of its gain with clearly less than half of its labels: there it is the number of
labels at which it has this gain. "Clearly" is a t test over seeds at 2.5%, because a plateau seen by luck begins
at a lucky value. The rule looks at the reference only, so no policy's result can choose it.

Seeds. The reference may have more seeds than the policy; all of them count (see `balbench.reports.differences`).

Savings mean nothing where the reference did not learn: see `balbench.reports.learning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.optimize import isotonic_regression

from balbench.reports.curve_checks import check_arguments, check_pair_scores
from balbench.reports.curves import Curve
from balbench.reports.differences import FEWEST_SEEDS, Differences, differences
from balbench.reports.inversion import CONFIDENCE, Inversion, Path, invert, savings_path
from balbench.reports.learning import Learning, direction, learning
from balbench.reports.pair_scores import PairScores, pair_variance

SMOOTHING_WINDOW = 3  # rounds, as in Melo et al. 2024
PLATEAU_GAIN = 0.95  # share of the reference's gain at which the level lies on a plateau
PLATEAU_LABELS = 0.5  # a reference that has this gain with this share of its labels is on a plateau


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
class Budget:
    """The number of labels of the reference that sets the level.

    Attributes:
        labels: number of labels.
        gain: share of the reference's gain that it has with these labels: 1, or 0.95 on a plateau.
    """

    labels: float
    gain: float


@dataclass(frozen=True)
class LabelSavings:
    """A policy against the reference.

    Attributes:
        savings: estimate, 95% interval and p-value over seeds, for the held-out pairs at hand.
        new_pairs: the same over seeds and held-out pairs; None without the scores of single pairs.
        budget: the budget of the reference.
        level: the level at the estimate, in the metric's own unit.
        final_level: the policy's mean at the last round, in the metric's own unit.
        final_difference: policy minus reference at their last rounds, in the metric's own unit.
        final_difference_interval: its 95% interval over seeds; None with too few seeds.
        area_difference: policy minus reference of the mean height of the curves over the labels that both have.
        area_difference_interval: its 95% interval over seeds; None with too few seeds.
        reference: the learning of the reference. Where `reference.missing` is not empty, all savings are noise.
        has_interval: whether there are enough seeds.
    """

    savings: Inversion
    new_pairs: Inversion | None
    budget: Budget
    level: float
    final_level: float
    final_difference: float
    final_difference_interval: tuple[float, float] | None
    area_difference: float
    area_difference_interval: tuple[float, float] | None
    reference: Learning
    has_interval: bool

    @property
    def outcome(self) -> Outcome:
        """The outcome of this comparison alone, at a confidence of 95%."""
        if self.reference.missing:
            return Outcome.NO_LEVEL
        if not self.has_interval:
            return Outcome.NO_INTERVAL
        return outcome(self.savings.p_saved < self.savings.p_lost, self.savings.p_value)


def outcome(is_gain: bool, p_value: float) -> Outcome:
    """Return what a p-value, possibly adjusted for several comparisons, allows to claim.

    Args:
        is_gain: whether savings above zero are more likely than savings below zero.
        p_value: two-sided p-value of savings of zero.
    """
    if not p_value <= 1 - CONFIDENCE:
        return Outcome.UNCLEAR
    return Outcome.SAVED if is_gain else Outcome.LOST


def label_savings(
    policy: Curve,
    reference: Curve,
    metric: str = "log_likelihood",
    *,
    chance: float | None = None,
    pair_scores: tuple[PairScores, PairScores] | None = None,
) -> LabelSavings:
    """Measure how many labels a policy saved against the reference.

    >>> labels = [50, 100, 150, 200]
    >>> random = Curve(labels, [[0.55, 0.60, 0.64, 0.70], [0.56, 0.61, 0.65, 0.71], [0.54, 0.61, 0.66, 0.70]])
    >>> bald = Curve(labels, [[0.55, 0.66, 0.72, 0.74], [0.56, 0.67, 0.71, 0.75], [0.54, 0.66, 0.73, 0.74]])
    >>> result = label_savings(bald, random, "accuracy")
    >>> result.outcome.value, round(result.savings.estimate.value, 2)
    ('saved', 0.32)

    Args:
        policy: the policy's curve.
        reference: the reference's curve. Curves are paired by seeds; seeds that only one of them has count too.
        metric: "log_likelihood", "accuracy" or "brier"; determines the direction and the value of chance.
        chance: the score of a model that predicts 1/2 for every pair; by default -ln 2, 1/2 or 1/4.
        pair_scores: scores of single held-out pairs of policy and reference, for `new_pairs`.

    Raises:
        BalbenchError: the metric has no savings, an argument is not a `Curve`, a value or `chance` is not in the range
            of the metric, or the labels of the curves do not overlap.
    """
    sign = direction(metric)
    check_arguments(policy, reference, metric, chance)
    check_pair_scores(pair_scores)
    budget = level_budget(reference, metric)
    path = savings_path(policy.labels_T, reference.labels_T, budget.labels)
    compared = compare(policy, reference, path.policy_H, path.reference_H, sign)
    savings = invert(path, compared)
    final = compare(policy, reference, policy.labels_T[-1:], reference.labels_T[-1:], sign)
    area = _area(policy, reference, sign)
    has_interval = len(policy.seeds_S) >= FEWEST_SEEDS and len(reference.seeds_S) >= FEWEST_SEEDS
    return LabelSavings(
        savings=savings,
        new_pairs=None if pair_scores is None else _over_pairs(path, compared, policy, reference, pair_scores),
        budget=budget,
        level=_level(policy, reference, savings),
        final_level=float(policy.mean_T[-1]),
        final_difference=float(sign * final.mean_H[0]),
        final_difference_interval=_interval(final, sign) if has_interval else None,
        area_difference=float(sign * area.mean_H[0]),
        area_difference_interval=_interval(area, sign) if has_interval else None,
        reference=learning(reference, metric, chance),
        has_interval=has_interval,
    )


def level_budget(reference: Curve, metric: str) -> Budget:
    """Return the budget that sets the level (see the module).

    Args:
        reference: the reference's curve; its mean is made monotone by isotonic regression.
        metric: name of the metric, which gives the direction.
    """
    sign, last = direction(metric), float(reference.labels_T[-1])
    if not _is_plateau(reference, sign):
        return Budget(last, 1.0)
    mean_T = isotonic_regression(sign * reference.mean_T).x
    target = mean_T[0] + PLATEAU_GAIN * (mean_T[-1] - mean_T[0])
    return Budget(float(np.interp(target, mean_T, reference.labels_T)), PLATEAU_GAIN)


def _is_plateau(reference: Curve, sign: int) -> bool:
    """Test whether the reference has nearly all of its gain with half of its labels."""
    middle = PLATEAU_LABELS * reference.labels_T[-1]
    if len(reference.seeds_S) < FEWEST_SEEDS or middle <= reference.labels_T[0]:
        return False
    start_S, half_S, end_S = sign * reference.at(np.array([reference.labels_T[0], middle, reference.labels_T[-1]])).T
    beyond_S = half_S - start_S - PLATEAU_GAIN * (end_S - start_S)
    above = differences(beyond_S[:, None], reference.seeds_S, np.zeros((len(beyond_S), 1)), reference.seeds_S)
    return bool(above.p_above_H[0] < (1 - CONFIDENCE) / 2 and (end_S - start_S).mean() > 0)


def compare(
    policy: Curve, reference: Curve, policy_labels_H: np.ndarray, reference_labels_H: np.ndarray, sign: int
) -> Differences:
    """Compare policy and reference at H pairs of numbers of labels; curves are linear between rounds.

    Args:
        policy: the policy's curve.
        reference: the reference's curve.
        policy_labels_H: labels of the policy.
        reference_labels_H: labels of the reference.
        sign: 1 if more of the metric is better, -1 if less is.
    """
    own_SH, other_MH = policy.at(policy_labels_H), reference.at(reference_labels_H)
    return differences(sign * own_SH, policy.seeds_S, sign * other_MH, reference.seeds_S)


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


def _level(policy: Curve, reference: Curve, savings: Inversion) -> float:
    """Return the level at the estimate: of the policy if it does not reach the reference's level."""
    worse, labels = (policy, savings.n_policy) if savings.estimate.value < 0 else (reference, savings.n_reference)
    return float(worse.at(np.array([labels])).mean())


def _area(policy: Curve, reference: Curve, sign: int) -> Differences:
    own_S, other_M = mean_heights(policy, reference)
    return differences(sign * own_S[:, None], policy.seeds_S, sign * other_M[:, None], reference.seeds_S)


def mean_heights(policy: Curve, reference: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean height of each seed of both curves over the labels that both have, shapes (S,) and (M,)."""
    first = max(policy.labels_T[0], reference.labels_T[0])
    last = min(policy.labels_T[-1], reference.labels_T[-1])
    inner = np.concatenate([policy.labels_T, reference.labels_T])
    labels_L = np.unique(np.concatenate([[first, last], inner[(inner > first) & (inner < last)]]))
    return _mean_height(policy.at(labels_L), labels_L), _mean_height(reference.at(labels_L), labels_L)


def _mean_height(values_SL: np.ndarray, labels_L: np.ndarray) -> np.ndarray:
    if len(labels_L) == 1:
        return values_SL[:, 0]
    return np.trapezoid(values_SL, labels_L, axis=1) / (labels_L[-1] - labels_L[0])


def _over_pairs(
    path: Path, compared: Differences, policy: Curve, reference: Curve, scores: tuple[PairScores, PairScores]
) -> Inversion:
    variance_H, clusters = pair_variance(path, policy, reference, *scores)
    return invert(path, compared.widened(variance_H, clusters - 1))


def _interval(compared: Differences, sign: int) -> tuple[float, float]:
    ends = sorted(float(sign * end_H[0]) for end_H in compared.interval(CONFIDENCE))
    return ends[0], ends[1]


def _smoothed(mean_T: np.ndarray) -> np.ndarray:
    """Average over a trailing window of `SMOOTHING_WINDOW` rounds, over fewer at the start."""
    return np.array([mean_T[max(0, stop - SMOOTHING_WINDOW) : stop].mean() for stop in range(1, len(mean_T) + 1)])
