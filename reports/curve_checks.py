"""Checks of the arguments of `balbench.label_savings`: curves of anybody's own arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from balbench.harness.errors import BalbenchError, shortened
from balbench.reports.curves import Curve

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
        if isinstance(chance, bool) or not (isinstance(chance, (int, float)) and math.isfinite(chance)):
            raise BalbenchError(f"chance: must be a finite number, not {shortened(repr(chance))}")
        _check_range("chance", np.array([[chance]]), metric)
    _check_overlap(policy, reference)


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
