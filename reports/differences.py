"""Mean differences of two sets of seeds that overlap: estimate, standard error and degrees of freedom.

Policy and reference share seeds, and the reference usually has more of them. With m values of the policy, M of the
reference, k seeds in both, write u_s = p_s / m - r_s / M for a shared seed. The difference of the means is then a sum
of three independent parts: the sum of u over the shared seeds, of p / m over the policy's other seeds, and of -r / M
over the reference's other seeds. Its variance is

    k var(u) + (m - k) var(p) / m^2 + (M - k) var(r) / M^2,

with sample variances over all seeds that a part of the formula can use. With equal seeds it is the variance of the
paired t test, with disjoint seeds that of Welch's test. Degrees of freedom are those of Satterthwaite 1946.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

FEWEST_SEEDS = 3  # fewer seeds give no interval
MANY = 1e9  # degrees of freedom at which Student's t is the normal distribution


@dataclass(frozen=True)
class Differences:
    """Mean differences, policy minus reference, at H comparisons.

    Attributes:
        mean_H: the mean differences.
        error_H: their standard errors.
        freedom_H: degrees of freedom of the errors.
    """

    mean_H: np.ndarray
    error_H: np.ndarray
    freedom_H: np.ndarray

    @property
    def t_H(self) -> np.ndarray:
        """The t statistics; 0 where mean and error are both zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t_H = self.mean_H / self.error_H
        return np.where(self.mean_H == 0, 0.0, t_H)

    @property
    def p_below_H(self) -> np.ndarray:
        """One-sided p-values of a mean difference that is below zero."""
        return stdtr(self.freedom_H, self.t_H)

    @property
    def p_above_H(self) -> np.ndarray:
        """One-sided p-values of a mean difference that is above zero."""
        return stdtr(self.freedom_H, -self.t_H)

    @property
    def z_H(self) -> np.ndarray:
        """The normal quantiles of the one-sided p-values; infinite where a p-value is too small for a number."""
        return np.where(self.t_H > 0, -ndtri(self.p_above_H), ndtri(self.p_below_H))

    def widened(self, variance_H: np.ndarray, freedom: int) -> Differences:
        """Add the variance of an independent error that was estimated with `freedom` degrees of freedom."""
        return Differences(self.mean_H, *_sum_of_parts([(self.error_H**2, self.freedom_H), (variance_H, freedom)]))

    def interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the confidence intervals of the mean differences."""
        half_H = stdtrit(self.freedom_H, (1 + confidence) / 2) * self.error_H
        return self.mean_H - half_H, self.mean_H + half_H


def differences(
    policy_SH: np.ndarray,
    policy_seeds_S: np.ndarray,
    reference_MH: np.ndarray,
    reference_seeds_M: np.ndarray,
) -> Differences:
    """Compare the means of two sets of seeds at H points.

    Args:
        policy_SH: values of the policy, one row for each seed.
        policy_seeds_S: the seed of each row, each once.
        reference_MH: values of the reference; one column counts for all points.
        reference_seeds_M: the seed of each row, each once.
    """
    S, M = len(policy_seeds_S), len(reference_seeds_M)
    _, own, other = np.intersect1d(policy_seeds_S, reference_seeds_M, return_indices=True)
    k = len(own) if len(own) > 1 else 0  # one shared seed has no variance
    mean_H = policy_SH.mean(axis=0) - reference_MH.mean(axis=0)
    parts: list[tuple[np.ndarray, np.ndarray | int]] = []
    if k:
        parts.append((k * (policy_SH[own] / S - reference_MH[other] / M).var(axis=0, ddof=1), k - 1))
    if k < S:
        parts.append(((S - k) / S**2 * _variance(policy_SH), S - 1))
    if k < M:
        parts.append(((M - k) / M**2 * _variance(reference_MH), M - 1))
    return Differences(mean_H, *_sum_of_parts(parts))


def _sum_of_parts(parts: list[tuple[np.ndarray, np.ndarray | int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard error of a sum of independent parts, and its degrees of freedom (Satterthwaite 1946).

    Args:
        parts: estimated variance and degrees of freedom of each part.
    """
    variance_H = np.asarray(sum(part_H for part_H, _ in parts))
    squares_H = np.asarray(sum(part_H**2 / np.maximum(freedom, 1) for part_H, freedom in parts))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom_H = np.where(squares_H > 0, variance_H**2 / squares_H, MANY)
    return np.sqrt(variance_H), np.minimum(freedom_H, MANY)


def _variance(values_SH: np.ndarray) -> np.ndarray:
    return values_SH.var(axis=0, ddof=1) if len(values_SH) > 1 else np.full(values_SH.shape[1], np.nan)
