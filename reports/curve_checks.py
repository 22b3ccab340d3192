"""Checks of the arguments of `balbench.label_savings`: curves of anybody's own arrays."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from balbench.harness.errors import BalbenchError, shortened
from balbench.reports.curves import Curve
from balbench.reports.pair_scores import PairScores

# The largest and smallest value of a metric, and the remedy for a value outside.
RANGES = {
    "log_likelihood": (-math.inf, 0.0, "give mean logarithms of probabilities, -0.61 for a loss of 0.61"),
    "accuracy": (0.0, 1.0, "give shares, 0.61 not 61"),
    "brier": (0.0, 1.0, "give means of squared errors of probabilities"),
}
ROUNDING = 1e-6  # float32 means can exceed a range by this much


def check_arguments(policy: Any, reference: Any, metric: str, chance: Any) -> None:
    """Check the curves of a comparison, and the score of chance.

    Args:
        policy, reference: the curves.
        metric: a key of `RANGES`.
        chance: the score of a model that predicts 1/2 for every pair; None for the default.

    Raises:
        BalbenchError: an argument is not a `Curve`, a value or `chance` is not in the range of the metric, or the
            labels of the curves do not overlap.
    """
    for name, curve in (("policy", policy), ("reference", reference)):
        if not isinstance(curve, Curve):
            raise BalbenchError(
                f"{name}: must be a balbench.Curve, not {type(curve).__name__}; give Curve(labels, values)"
            )
        _check_range(name, curve.values_ST, metric)
    if chance is not None:
        check_score("chance", chance, metric)
    _check_overlap(policy, reference)


def check_score(name: str, value: Any, metric: str) -> None:
    """Check a single value of a metric.

    Args:
        name: name of the argument.
        value: the value.
        metric: a key of `RANGES`.

    Raises:
        BalbenchError: the value is not a finite number, or not in the range of the metric.
    """
    if isinstance(value, bool) or not (isinstance(value, Real) and math.isfinite(value)):
        raise BalbenchError(f"{name}: must be a finite number, not {shortened(repr(value))}")
    _check_range(name, np.array([[value]], dtype=float), metric)


def check_pair_scores(pair_scores: Any) -> None:
    """Check the scores of single pairs of a policy and its reference.

    Raises:
        BalbenchError: the argument is neither None nor a tuple of two `PairScores`.
    """
    if pair_scores is None:
        return
    if not (isinstance(pair_scores, tuple) and [type(each) for each in pair_scores] == [PairScores] * 2):
        raise BalbenchError(
            f"pair_scores: must be the PairScores of policy and reference, not {shortened(repr(pair_scores))}; "
            "give a tuple of both, or leave it out"
        )


def _check_range(name: str, values_ST: np.ndarray, metric: str) -> None:
    low, high, remedy = RANGES[metric]
    outside_ST = (values_ST < low - ROUNDING) | (values_ST > high + ROUNDING)
    if outside_ST.any():
        allowed = "at most 0" if math.isinf(low) else "from 0 to 1"
        value = values_ST[outside_ST][0]
        raise BalbenchError(f"{name}: {metric} must be {allowed}, not {value:g}; {remedy}")


def _check_overlap(policy: Curve, reference: Curve) -> None:
    if policy.labels_T[0] > reference.labels_T[-1] or reference.labels_T[0] > policy.labels_T[-1]:
        ranges = " and ".join(f"{curve.labels_T[0]:g} to {curve.labels_T[-1]:g}" for curve in (policy, reference))
        raise BalbenchError(f"labels: policy and reference have {ranges} labels; give curves that overlap")
