"""The resolution: the standard error of the reference's level, in labels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from balbench.reports.curves import Curve
from balbench.reports.resolution import resolution


def _curve(gain_per_doubling, error, seeds=16, sign=1):
    labels = np.array([100.0, 200, 400, 800])
    mean = sign * gain_per_doubling * np.log2(labels)
    deviations = np.tile([1.0, -1.0], seeds // 2) * error * math.sqrt(seeds - 1)
    return Curve(labels, mean + deviations[:, None])


def test_one_error_of_a_doublings_gain_is_twice_the_labels():
    assert resolution(_curve(0.01, 0.01), "accuracy") == pytest.approx(1)
    assert resolution(_curve(0.0032, 0.0012), "accuracy") == pytest.approx(2 ** (0.0012 / 0.0032) - 1)


def test_the_direction_of_the_metric_counts():
    assert resolution(_curve(0.01, 0.01, sign=-1), "brier") == pytest.approx(1)
    assert resolution(_curve(0.01, 0.01, sign=-1), "accuracy") == math.inf


def test_it_is_unknown_for_one_seed_or_one_round():
    assert math.isnan(resolution(Curve([10, 20], [[1, 2]]), "accuracy"))
    assert math.isnan(resolution(Curve([10], [[1], [2]]), "accuracy"))
