"""Savings at any level: agreement with the headline, crossings, and the coverage of the simultaneous band."""

from __future__ import annotations

import math

import numpy as np
import pytest

from balbench.harness.errors import BalbenchError
from balbench.reports.curves import Curve
from balbench.reports.savings import label_savings
from balbench.reports.savings_curve import labels_to, savings_curve

LABELS = np.arange(32.0, 32 * 11, 32)


def _study(generator, seeds=6, reference_seeds=20, noise=0.006):
    curves = []
    for gain, number in ((0.3, seeds), (0.25, reference_seeds)):
        steps = generator.normal(0, noise, size=(number, len(LABELS)))
        curves.append(Curve(LABELS, 0.5 + gain * (1 - (LABELS / 32) ** -0.6) + steps + 0.3 * steps.cumsum(axis=1)))
    return curves


def test_the_last_level_is_that_of_the_headline():
    policy, reference = _study(np.random.default_rng(0))
    row = savings_curve(policy, reference, "accuracy").iloc[-1]
    savings = label_savings(policy, reference, "accuracy").savings
    expected = [savings.estimate.value, savings.low.value, savings.high.value]
    np.testing.assert_allclose(row[["savings", "low", "high"]].astype(float), expected, atol=0.005)


def test_the_band_is_wider_than_the_intervals():
    curve = savings_curve(*_study(np.random.default_rng(1)), "accuracy")
    assert (curve["band_low"] <= curve["low"]).all()
    assert (curve["high"] <= curve["band_high"]).all()


def test_first_and_lasting_crossing_are_of_the_mean(curve_of):
    policy = curve_of([[0.0, 3, 1, 4]])
    row = savings_curve(policy, curve_of([[0.0, 1, 1.5, 2]]), "accuracy").iloc[-1]
    assert (row["first_crossing"], row["lasting_crossing"]) == (pytest.approx(10 + 20 / 3), pytest.approx(30 + 10 / 3))
    never = savings_curve(curve_of([[0.0, 0, 0, 1]]), curve_of([[0.0, 1, 1.5, 2]]), "accuracy").iloc[-1]
    assert math.isinf(never["first_crossing"])
    falls = savings_curve(curve_of([[0.0, 3, 3, 1]]), curve_of([[0.0, 1, 1.5, 2]]), "accuracy").iloc[-1]
    assert math.isinf(falls["lasting_crossing"])


def test_without_enough_seeds_there_is_no_band(curve_of):
    curve = savings_curve(curve_of([[0.0, 2, 3]]), curve_of([[0.0, 1, 2]]), "accuracy")
    assert curve[["low", "high", "band_low", "band_high"]].isna().all(axis=None)
    assert curve["savings"].notna().all()


def test_one_round_has_no_level(curve_of):
    assert len(savings_curve(curve_of([[1.0]] * 3), curve_of([[1.0]] * 3), "accuracy")) == 0


def test_labels_to_a_target_have_an_interval(curve_of):
    generator = np.random.default_rng(2)
    curve = Curve(LABELS, np.linspace(0.5, 0.7, 10) + generator.normal(0, 0.01, size=(8, 10)))
    n, low, high = labels_to(curve, 0.6, "accuracy")
    assert low < n < high
    assert n == pytest.approx(np.interp(0.6, np.linspace(0.5, 0.7, 10), LABELS), rel=0.1)
    assert labels_to(curve, 0.9, "accuracy")[0] == math.inf
    assert labels_to(curve, 0.1, "accuracy") == (0, 0, 0)
    assert math.isnan(labels_to(curve_of([[0.0, 1.0]]), 0.5, "accuracy")[1])


@pytest.mark.parametrize("seeds", [5, 12])
def test_the_band_holds_for_all_levels_at_once(seeds):
    """400 studies of known truth; single intervals miss some level more often."""
    generator = np.random.default_rng(seeds)
    own, other = (gain * (1 - (LABELS / 32) ** -0.6) for gain in (0.3, 0.25))
    truth = 1 - np.interp(other[1:], own, LABELS) / LABELS[1:]
    missed = {"": 0, "band_": 0}
    for _ in range(400):
        curve = savings_curve(*_study(generator, seeds), "accuracy")
        for prefix in missed:
            low, high = curve[f"{prefix}low"].to_numpy(), curve[f"{prefix}high"].to_numpy()
            above = (low > truth) & (curve[f"{prefix}low_kind"] != "at_most")
            below = (high < truth) & (curve[f"{prefix}high_kind"] != "at_least")
            missed[prefix] += bool((above | below).any())
    assert missed["band_"] <= 0.075 * 400
    assert missed[""] > 0.1 * 400


@pytest.mark.parametrize("target", [math.nan, math.inf, "0.6", True])
def test_a_target_is_a_finite_number(curve_of, target):
    with pytest.raises(BalbenchError, match=r"^target: must be a finite number, not "):
        labels_to(curve_of([[0.5, 0.6]]), target, "accuracy")


@pytest.mark.parametrize(("metric", "target"), [("accuracy", 70), ("log_likelihood", 0.6)])
def test_a_target_is_in_the_range_of_its_metric(curve_of, metric, target):
    with pytest.raises(BalbenchError, match=f"^target: {metric} must be .*, not {target}"):
        labels_to(curve_of([[0.5, 0.6]]), target, metric)
