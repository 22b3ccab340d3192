"""Confidence intervals of label savings by test inversion (Fieller 1954, for curves).

All savings sigma below 100% are ordered along one path of comparisons, from the most savings to the least:

- sigma >= 0: the policy with n labels against the reference with all of its N labels, sigma = 1 - n / N;
- sigma < 0: the policy with all of its labels against the reference with n labels, sigma = 1 - N / n.

At the true savings, both have the same mean. The interval contains each sigma at which a t test over seeds does not
reject this (and what lies between two such sigmas), so it covers the truth as often as the test errs: nothing is
divided, and the crossing of a noisy curve is not resampled. The estimate is the point of the path at which the mean
difference, made monotone by isotonic regression, changes its sign.

Where the path ends before the difference changes its sign, an end is only a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.optimize import isotonic_regression

from balbench.reports.differences import Differences

CONFIDENCE = 0.95
STEPS = 8  # points of the path between two rounds


class Kind(StrEnum):
    """Whether a number is the savings, or which bound on them."""

    EXACT = "exact"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"


@dataclass(frozen=True)
class Estimate:
    """A share of labels saved (0.31 means 31%), or a bound on that share, according to `kind`."""

    value: float
    kind: Kind


@dataclass(frozen=True)
class Path:
    """Comparisons in the order of falling savings.

    Attributes:
        policy_H: labels of the policy at each point.
        reference_H: labels of the reference at each point.
    """

    policy_H: np.ndarray
    reference_H: np.ndarray

    @property
    def savings_H(self) -> np.ndarray:
        """Savings at each point, falling."""
        return 1 - self.policy_H / self.reference_H


@dataclass(frozen=True)
class Inversion:
    """Savings by test inversion.

    Attributes:
        estimate: the savings, or a bound on them.
        low, high: ends of the interval.
        p_saved: one-sided p-value against savings of at most 0.
        p_lost: one-sided p-value against savings of at least 0.
        n_policy, n_reference: labels at the estimate.
    """

    estimate: Estimate
    low: Estimate
    high: Estimate
    p_saved: float
    p_lost: float
    n_policy: float
    n_reference: float

    @property
    def p_value(self) -> float:
        """Two-sided p-value of savings of zero: the interval at confidence 1 - p just excludes zero."""
        return min(1.0, 2 * min(self.p_saved, self.p_lost))


def savings_path(policy_labels_T: np.ndarray, reference_labels_T: np.ndarray, budget: float) -> Path:
    """Return the path of comparisons for a budget of the reference.

    Args:
        policy_labels_T: labels of the policy at each round, ascending.
        reference_labels_T: labels of the reference at each round, ascending.
        budget: labels of the reference whose level the policy is to reach, at least those of its first round.
    """
    own_H = refined(policy_labels_T)
    below = reference_labels_T[reference_labels_T < budget]
    other_H = refined(np.append(below, budget))[::-1]
    return Path(
        np.concatenate([own_H, np.full(len(other_H) - 1, own_H[-1])]),
        np.concatenate([np.full(len(own_H), budget), other_H[1:]]),
    )


def invert(path: Path, differences: Differences, confidence: float = CONFIDENCE) -> Inversion:
    """Invert the t tests along a path.

    Args:
        path: from `savings_path`.
        differences: policy minus reference at each point of the path, better is positive.
        confidence: of the interval.
    """
    savings_H, point = path.savings_H, _zero(differences)
    low, high = ends_at(path, differences.ratio_H(confidence))
    p_above_H, p_below_H = differences.p_above_H, differences.p_below_H
    return Inversion(
        estimate=_estimate(savings_H, point),
        low=low,
        high=high,
        p_saved=float(p_above_H[savings_H <= 0].max()) if (savings_H <= 0).any() else np.nan,
        p_lost=float(p_below_H[savings_H >= 0].max()) if (savings_H >= 0).any() else np.nan,
        n_policy=_at(path.policy_H, point),
        n_reference=_at(path.reference_H, point),
    )


def point_at(path: Path, differences: Differences) -> tuple[Estimate, float]:
    """Return the estimate alone, and the policy's labels there."""
    point = _zero(differences)
    return _estimate(path.savings_H, point), _at(path.policy_H, point)


def ends_at(path: Path, ratio_H: np.ndarray) -> tuple[Estimate, Estimate]:
    """Return the lower and the upper end of the savings that tests do not reject.

    Args:
        path: the comparisons.
        ratio_H: test statistics as multiples of their critical values.
    """
    low, high = _position(ratio_H, 1.0, first=False), _position(ratio_H, -1.0, first=True)
    return _estimate(path.savings_H, low), _estimate(path.savings_H, high)


def _zero(differences: Differences) -> float:
    """Return the position at which the mean difference, made monotone, changes its sign."""
    return _position(isotonic_regression(differences.mean_H).x, 0.0, first=True)


def refined(labels_T: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Insert `steps` - 1 points between neighbouring numbers of labels."""
    position_H = np.arange(len(labels_T) - 1)[:, None] + np.arange(steps) / steps
    return np.append(np.interp(position_H.ravel(), np.arange(len(labels_T)), labels_T), labels_T[-1])


def _position(value_H: np.ndarray, level: float, *, first: bool) -> float:
    """Return the position of the first (or last) rise of a sequence through a level, between points.

    -inf: the sequence is at or above the level from the start on. inf: it never is (or not at its end). A missing value
    counts as not rejected. Beside an infinite value, where the curves have no error, the whole step between two points
    belongs to the interval.
    """
    at = np.flatnonzero(~(value_H < level) if first else ~(value_H > level))
    if not len(at):
        return np.inf if first else -np.inf
    after = at[0] if first else at[-1] + 1
    if after == 0:
        return -np.inf
    if after == len(value_H):
        return np.inf
    before_value, after_value = value_H[after - 1], value_H[after]
    if not np.isfinite([before_value, after_value]).all():
        return float(after - 1 if first else after)
    if before_value == after_value:
        return float(after)
    return float(after - 1 + (level - before_value) / (after_value - before_value))


def _estimate(savings_H: np.ndarray, position: float) -> Estimate:
    if np.isneginf(position):
        return Estimate(float(savings_H[0]), Kind.AT_LEAST)
    if np.isposinf(position):
        return Estimate(float(savings_H[-1]), Kind.AT_MOST)
    return Estimate(_at(savings_H, position), Kind.EXACT)


def _at(value_H: np.ndarray, position: float) -> float:
    return float(np.interp(position, np.arange(len(value_H)), value_H))
