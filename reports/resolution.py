"""The resolution of a study: how many labels the standard error of the reference's level is worth."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import isotonic_regression

from balbench.reports.curves import Curve
from balbench.reports.learning import direction, seed_error


def resolution(reference: Curve, metric: str) -> float:
    """Return the standard error of the reference's final level in shares of labels.

    The gain of the last doubling of labels gives the slope at the end. With the standard error e and this gain g, a
    level that is one standard error higher needs 2^(e / g) times the labels; the resolution is 2^(e / g) - 1. Savings
    that are smaller than about twice the resolution cannot be told from zero.

    Args:
        reference: the reference's curve; its mean is made monotone by isotonic regression.
        metric: name of the metric, which gives the direction.

    Returns:
        A share of labels; NaN for a single seed or round, infinite if the last doubling gained nothing.
    """
    error, labels_T = seed_error(reference.values_ST[:, -1]), reference.labels_T
    if math.isnan(error) or len(labels_T) < 2:
        return math.nan
    gain = gain_of_last_doubling(reference, direction(metric))
    exponent = error / gain if gain > 0 else math.inf
    return 2**exponent - 1 if exponent < 60 else math.inf


def gain_of_last_doubling(reference: Curve, sign: int) -> float:
    """Return the gain of the last doubling of labels, scaled to a doubling where there are fewer labels.

    Args:
        reference: a curve of at least two rounds; its mean is made monotone by isotonic regression.
        sign: 1 if more of the metric is better, -1 if less is.
    """
    labels_T, mean_T = reference.labels_T, isotonic_regression(sign * reference.mean_T).x
    before = max(labels_T[-1] / 2, labels_T[0])
    return float((mean_T[-1] - np.interp(before, labels_T, mean_T)) / math.log2(labels_T[-1] / before))
