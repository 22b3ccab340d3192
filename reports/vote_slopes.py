"""Logistic regression of votes on predicted logits, with errors that are clustered by prompt.

Axes: V votes (pairs with a vote, once for each seed), K weights, P prompts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Array = np.ndarray
STEEPEST = 1e3  # slopes beyond it count as unknown
NEWTON_STEPS = 50  # upper bound; about five steps are needed


class Slope(NamedTuple):
    """A slope of votes on predicted logits, and its standard error; NaN where it is unknown."""

    value: float
    error: float


def vote_slope(logit_V: Array, share_V: Array, cluster_V: Array) -> Slope:
    """Fit the logistic regression, without intercept, of votes on predicted logits by maximum likelihood.

    The slope is 1 / T for the temperature T that would calibrate these predictions. Its error is the sandwich estimate
    for scores that are independent between clusters only.

    Args:
        logit_V: predicted logits.
        share_V: share of votes for the first response.
        cluster_V: the prompt of each pair, as an index from 0.

    Returns:
        The slope; NaN if all logits are 0 or the slope is beyond +-1000. The error is NaN for fewer than two clusters.
    """
    value = _most_likely_slope(logit_V, share_V)
    return Slope(value, _errors(logit_V[:, None], share_V, cluster_V, np.array([value]))[0])


def slope_trend(logit_V: Array, share_V: Array, cluster_V: Array, rank_V: Array) -> Slope:
    """Fit a slope that changes linearly with the rank of the distance, and return the change from nearest to farthest.

    Args:
        logit_V, share_V, cluster_V: as for `vote_slope`.
        rank_V: rank of each pair's distance, from 0 to 1.

    Returns:
        The change of the slope, with a clustered error; NaN where it is unknown.
    """
    inputs_V2 = logit_V[:, None] * np.stack([np.ones(len(rank_V)), rank_V - 0.5], axis=1)
    weights_2 = np.array([_most_likely_slope(logit_V, share_V), 0.0])
    for _ in range(NEWTON_STEPS):
        predicted_V = _expit(inputs_V2 @ weights_2)
        step_2 = _solved(_information(inputs_V2, predicted_V), inputs_V2.T @ (share_V - predicted_V))
        weights_2 = weights_2 + step_2
        if not np.abs(step_2).max() > 1e-8:
            break
    if not np.abs(weights_2).max() < STEEPEST:
        return Slope(np.nan, np.nan)
    return Slope(float(weights_2[1]), _errors(inputs_V2, share_V, cluster_V, weights_2)[1])


def _most_likely_slope(logit_V: Array, share_V: Array) -> float:
    """Return the slope of `vote_slope`; the likelihood is concave, so its derivative changes sign once."""
    from scipy.optimize import brentq

    def score(slope: float) -> float:
        return float(np.sum(logit_V * (share_V - _expit(slope * logit_V))))

    if not score(-STEEPEST) > 0 > score(STEEPEST):
        return np.nan
    return float(brentq(score, -STEEPEST, STEEPEST))


def _errors(inputs_VK: Array, share_V: Array, cluster_V: Array, weights_K: Array) -> list[float]:
    """Return the sandwich estimates of the errors of logistic weights, clustered; NaN for fewer than two clusters."""
    clusters = len(np.unique(cluster_V))
    if clusters < 2 or np.isnan(weights_K).any():
        return [np.nan] * len(weights_K)
    predicted_V = _expit(inputs_VK @ weights_K)
    scores = (inputs_VK * (share_V - predicted_V)[:, None]).T
    sum_KP = np.stack([np.bincount(cluster_V, weights=score_V) for score_V in scores])
    half_KP = _solved(_information(inputs_VK, predicted_V), sum_KP)
    return np.sqrt(clusters / (clusters - 1) * np.sum(half_KP**2, axis=1)).tolist()


def _information(inputs_VK: Array, predicted_V: Array) -> Array:
    return (inputs_VK * (predicted_V * (1 - predicted_V))[:, None]).T @ inputs_VK


def _solved(matrix_KK: Array, right: Array) -> Array:
    """Solve linear equations; NaN for a singular matrix."""
    try:
        return np.linalg.solve(matrix_KK, right)
    except np.linalg.LinAlgError:
        return np.full(right.shape, np.nan)


def clustered_sum_error(value_V: Array, cluster_V: Array) -> float:
    """Return the standard error of a sum of values with mean 0 that are independent between clusters only."""
    clusters = len(np.unique(cluster_V))
    if clusters < 2:
        return float("nan")
    sum_P = np.bincount(cluster_V, weights=value_V)
    return float(np.sqrt(clusters / (clusters - 1) * np.sum(sum_P**2)))


def _expit(logit_V: Array) -> Array:
    from scipy.special import expit

    return expit(logit_V)
