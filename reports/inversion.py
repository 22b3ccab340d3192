"""Confidence intervals of label savings by test inversion (Fieller 1954, for curves).

All savings sigma below 100% are ordered along one path of comparisons, from the most savings to the least:

- sigma >= 0: the policy with n labels against the reference with all of its N labels, sigma = 1 - n / N;
- sigma < 0: the policy with all of its labels against the reference with n labels, sigma = 1 - N / n.

At the true savings, both have the same mean. A t test over seeds at each point gives a z score, the normal quantile of
its one-sided p-value. More labels help, so the true differences rise along the path, and so do the z scores but for
noise: isotonic regression makes them monotone. The interval contains each sigma whose monotone z score is between the
critical values, and the p-value is that of the monotone z score at sigma = 0. Nothing is divided, and the crossing of
a noisy curve is not resampled. The estimate is the point of the path at which the mean difference, made monotone
in the same way, changes its sign.

Without the isotonic regression (all savings that some test does not reject, and what lies between them) coverage is
certain to be at least that of the tests, but where the noise of the curves is as large as their rise, it is up to
99.6% in place of 95%, and intervals are up to half again as wide. `docs/measured/trust.md` has the measured coverage.

Where the path ends before the difference changes its sign, an end is only a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import ndtr, ndtri

from balbench.reports.differences import Differences

CONFIDENCE = 0.95
STEPS = 8  # points of the path between two rounds
LARGEST_Z = 37.0  # beyond it, the p-value is no longer a number


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
    savings_H, z_H = path.savings_H, monotone_z(differences)
    low, high = _ends(z_H, critical_z(confidence))
    point = _point(differences, low, high)
    z = float(np.interp(0, savings_H[::-1], z_H[::-1]))
    return Inversion(
        estimate=_estimate(savings_H, point),
        low=_estimate(savings_H, low),
        high=_estimate(savings_H, high),
        # a path on one side of zero cannot show savings on the other side
        p_saved=float(ndtr(-z)) if (savings_H >= 0).any() else 1.0,
        p_lost=float(ndtr(z)) if (savings_H <= 0).any() else 1.0,
        n_policy=_at(path.policy_H, point),
        n_reference=_at(path.reference_H, point),
    )


def point_at(path: Path, differences: Differences, z_H: np.ndarray) -> tuple[Estimate, float]:
    """Return the estimate alone, and the policy's labels there.

    Args:
        path: the comparisons.
        differences: policy minus reference at each point of the path, better is positive.
        z_H: `monotone_z(differences)`.
    """
    point = _point(differences, *_ends(z_H, critical_z(CONFIDENCE)))
    return _estimate(path.savings_H, point), _at(path.policy_H, point)


def ends_at(path: Path, z_H: np.ndarray, critical: float) -> tuple[Estimate, Estimate]:
    """Return the lower and the upper end of the savings that tests do not reject.

    Args:
        path: the comparisons.
        z_H: the monotone z scores of its points, from `monotone_z`.
        critical: the largest z score that is not rejected.
    """
    low, high = _ends(z_H, critical)
    return _estimate(path.savings_H, low), _estimate(path.savings_H, high)


def critical_z(confidence: float) -> float:
    """Return the largest z score that a two-sided test does not reject."""
    return float(-ndtri((1 - confidence) / 2))


def monotone_z(differences: Differences) -> np.ndarray:
    """Return the z scores made monotone; a missing one counts as 0, so it is not rejected."""
    return isotonic_regression(np.nan_to_num(np.clip(differences.z_H, -LARGEST_Z, LARGEST_Z))).x


def _ends(z_H: np.ndarray, critical: float) -> tuple[float, float]:
    """Return the positions of the lower and the upper end of the savings."""
    low, high = (_position(z_H, level, first=level < 0, largest=LARGEST_Z) for level in (critical, -critical))
    return low, high


def _point(differences: Differences, low: float, high: float) -> float:
    """Return the position at which the mean difference, made monotone, changes its sign, within the interval."""
    zero = _position(isotonic_regression(differences.mean_H).x, 0.0, first=True)
    return float(np.clip(zero, high, low))


def refined(labels_T: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Insert `steps` - 1 points between neighbouring numbers of labels."""
    position_H = np.arange(len(labels_T) - 1)[:, None] + np.arange(steps) / steps
    return np.append(np.interp(position_H.ravel(), np.arange(len(labels_T)), labels_T), labels_T[-1])


def _position(rising_H: np.ndarray, level: float, *, first: bool, largest: float = np.inf) -> float:
    """Return the position at which a rising sequence first (or last) has a level, between points.

    -inf: the sequence is above the level from the start on. inf: it stays below. Beside the largest z score, where the
    curves have no error, the whole step between two points belongs to the interval.
    """
    after = int(np.searchsorted(rising_H, level, side="left" if first else "right"))
    if after == 0:
        return -np.inf
    if after == len(rising_H):
        return np.inf
    before_value, after_value = rising_H[after - 1], rising_H[after]
    if max(-before_value, after_value) >= 0.99 * largest:
        return float(after - 1 if first else after)
    return float(after - 1 + (level - before_value) / (after_value - before_value))


def _estimate(savings_H: np.ndarray, position: float) -> Estimate:
    if np.isneginf(position):
        return Estimate(float(savings_H[0]), Kind.AT_LEAST)
    if np.isposinf(position):
        return Estimate(float(savings_H[-1]), Kind.AT_MOST)
    return Estimate(_at(savings_H, position), Kind.EXACT)


def _at(value_H: np.ndarray, position: float) -> float:
    return float(np.interp(position, np.arange(len(value_H)), value_H))
