"""The noise floor: what a policy with the reference's mean curve would be said to save."""

from __future__ import annotations

import numpy as np
import pytest

from balbench.reports.curves import Curve, Curves
from balbench.reports.noise_floor import noise_floor
from balbench.reports.resolution import resolution
from balbench.reports.savings import label_savings
from balbench.reports.savings_table import savings_table

LABELS = 64.0 * np.arange(1, 16)


def _reference(seeds=20, *, is_shift, scale=0.01):
    generator = np.random.default_rng(4)
    noise = generator.normal(0, scale, size=(seeds, 1 if is_shift else len(LABELS)))
    return Curve(LABELS, 0.55 + 0.02 * np.log2(LABELS / 64) + noise)


@pytest.mark.parametrize("is_shift", [True, False])
def test_it_is_the_interval_of_a_policy_with_the_same_mean_and_no_noise(is_shift):
    reference = _reference(is_shift=is_shift)
    floor, _ = noise_floor(reference, "accuracy")
    many = Curve(LABELS, np.tile(reference.mean_T, (500, 1)), seeds=np.arange(1000, 1500))
    expected = label_savings(many, reference, "accuracy").savings
    assert [floor.low.value, floor.high.value] == pytest.approx([expected.low.value, expected.high.value])
    assert floor.low.value < 0 < floor.high.value


def test_what_a_seed_adds_to_all_rounds_does_not_cancel():
    reference = _reference(is_shift=True)
    floor, _ = noise_floor(reference, "accuracy")
    half_width = (floor.high.value - floor.low.value) / 2
    assert half_width == pytest.approx(2 * resolution(reference, "accuracy"), rel=0.4)


def test_a_reference_without_noise_has_none():
    floor, _ = noise_floor(_reference(is_shift=True, scale=0.0), "accuracy")
    assert floor.estimate.value == pytest.approx(0, abs=1e-9)
    assert max(abs(floor.low.value), abs(floor.high.value)) < 0.02


def test_the_row_of_the_reference_has_it(run):
    table = savings_table(run)
    row = table[table["is_reference"] & (table["split"] == "test")].iloc[0]
    curve = Curves(run.curves).curve(row["setting"], row["policy"], "test", "log_likelihood")
    floor, _ = noise_floor(curve, "log_likelihood")
    assert [row["low"], row["high"]] == pytest.approx([floor.low.value, floor.high.value], nan_ok=True)
    assert np.isnan(row["p_value"])
