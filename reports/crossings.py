"""The number of labels at which curves permanently cross a level, and the savings that follow (see `savings`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from balbench.reports.statistics import percentile_ends


class Kind(StrEnum):
    """Whether a number is the savings, or which bound on them."""

    EXACT = "exact"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    NOT_REACHED = "not_reached"


@dataclass(frozen=True)
class Estimate:
    """A share of labels saved (0.31 means 31%), or a bound on that share, according to `kind`."""

    value: float
    kind: Kind

    @property
    def is_upper_bound(self) -> bool:
        """Whether the savings are only known to be at most, or below, `value`."""
        return self.kind in (Kind.AT_MOST, Kind.NOT_REACHED)


@dataclass(frozen=True)
class Crossings:
    """Savings at one level for each of B pairs of curves, all arrays of shape (B,).

    `value_B` is the savings or the bound on it, `kind_B` holds `Kind`, `n_policy_B` is infinite where the
    level is not reached; n counts labels.
    """

    value_B: np.ndarray
    kind_B: np.ndarray
    n_policy_B: np.ndarray
    n_reference_B: np.ndarray


def crossing(labels_T: np.ndarray, mean_BT: np.ndarray, tau_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the first lasting crossing of B curves, each with its own level; higher values must be better.

    Args:
        labels_T: labels at each step, above 0, ascending.
        mean_BT: the curves.
        tau_B: the levels.

    Returns:
        n_B: number of labels from which on the curve stays at or above the level; infinite if the curve ends below.
        at_start_B: whether the curve is never below the level; n is then only known to be at most `labels_T[0]`.
    """
    steps = mean_BT.shape[1]
    below_BT = mean_BT < tau_B[:, None]
    at_start_B = np.logical_not(below_BT.any(axis=1))
    last_below_B = steps - 1 - below_BT[:, ::-1].argmax(axis=1)
    reached_B = at_start_B | (last_below_B < steps - 1)
    n_B = np.where(at_start_B, labels_T[0], np.inf)
    row_C = np.flatnonzero(reached_B & ~at_start_B)
    i_C = last_below_B[row_C]
    before_C, after_C = mean_BT[row_C, i_C], mean_BT[row_C, i_C + 1]
    share_C = (tau_B[row_C] - before_C) / (after_C - before_C)
    n_B[row_C] = labels_T[i_C] + share_C * (labels_T[i_C + 1] - labels_T[i_C])
    return n_B, at_start_B


def savings_at(
    labels_T: np.ndarray,
    mean_BT: np.ndarray,
    reference_labels_T: np.ndarray,
    reference_mean_BT: np.ndarray,
    tau_B: np.ndarray,
) -> Crossings:
    """Compare B pairs of curves at levels that the reference reaches; higher values must be better.

    Args:
        labels_T: labels of the policy at each step.
        mean_BT: curves of the policy.
        reference_labels_T: labels of the reference at each step.
        reference_mean_BT: curves of the reference.
        tau_B: levels; each is at most the last value of its reference curve.
    """
    n_B, at_start_B = crossing(labels_T, mean_BT, tau_B)
    n_reference_B, reference_at_start_B = crossing(reference_labels_T, reference_mean_BT, tau_B)
    reached_B = np.isfinite(n_B)
    kind_B = np.full(len(n_B), Kind.EXACT, dtype=object)
    kind_B[at_start_B & ~reference_at_start_B] = Kind.AT_LEAST
    kind_B[~at_start_B & reference_at_start_B] = Kind.AT_MOST
    kind_B[~reached_B] = Kind.NOT_REACHED
    value_B = 1 - np.where(reached_B, n_B, labels_T[-1]) / n_reference_B
    return Crossings(value_B, kind_B, n_B, n_reference_B)


def interval_ends(value_B: np.ndarray, kind_B: np.ndarray) -> tuple[Estimate, Estimate]:
    """Return the two ends of the 95% interval of B resampled savings; an end may be a bound.

    Savings that are bounded from above sort below all numbers, those bounded from below sort above all numbers. An
    end among the resamples that are bounded from above is bounded by the same end of a sample in which the bounds
    replace these resamples; the same holds for bounds from below.
    """
    not_reached_B, at_least_B = kind_B == Kind.NOT_REACHED, kind_B == Kind.AT_LEAST
    above_B = not_reached_B | (kind_B == Kind.AT_MOST)
    sorted_ends = percentile_ends(np.where(above_B, -np.inf, np.where(at_least_B, np.inf, value_B)))
    most_ends = percentile_ends(np.where(at_least_B, np.inf, value_B))
    least_ends = percentile_ends(np.where(above_B, -np.inf, value_B))
    censored_above = Kind.NOT_REACHED if not_reached_B.any() else Kind.AT_MOST
    ends = []
    for end, most, least in zip(sorted_ends, most_ends, least_ends, strict=True):
        if np.isneginf(end):
            ends.append(Estimate(most, censored_above))
        elif np.isposinf(end):
            ends.append(Estimate(least, Kind.AT_LEAST))
        else:
            ends.append(Estimate(end, Kind.EXACT))
    return ends[0], ends[1]
