"""Tests of the measures of a gate: against definitions, and their error rates in simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from balbench.reports.curves import Curve
from balbench.reports.gate_measures import AREA, LEVEL, SAVINGS, cost, measures, seeds_that_tell
from balbench.reports.inversion import Kind

LABELS = np.arange(40.0, 400, 40)
RISE = -0.7 + 0.25 * (1 - (LABELS / 40) ** -0.8)


def drawn(generator, seeds=12, noise=0.01, labels=LABELS, loss=0.0, gain=1.0):
    """Curves of a policy; with `loss`, it needs 1 + loss times the labels."""
    mean_T = -0.7 + gain * 0.25 * (1 - (labels / (1 + loss) / 40).clip(1) ** -0.8)
    common_S1 = generator.normal(0, noise, size=(seeds, 1))
    return Curve(labels, mean_T + common_S1 + generator.normal(0, noise, size=(seeds, len(labels))))


def by_name(found):
    return {each.name: each for each in found}


def test_the_level_is_a_paired_t_test_of_a_difference_plus_the_margin_of_the_gain():
    generator = np.random.default_rng(1)
    old, new = drawn(generator), drawn(generator)
    found = by_name(measures(new, old, "log_likelihood", 0.1, 0.05))[LEVEL]
    first, last = old.values_ST[:, 0], old.values_ST[:, -1]
    shifted = new.values_ST[:, -1] - last + 0.1 * (last - first)
    assert found.p_within == pytest.approx(stats.ttest_1samp(shifted, 0, alternative="greater").pvalue)
    worse = stats.ttest_rel(new.values_ST[:, -1], last, alternative="less").pvalue
    assert found.p_worse == pytest.approx(worse)
    assert found.estimate.value == pytest.approx((new.values_ST[:, -1] - last).mean() / (last - first).mean())


def test_the_area_is_the_mean_height_of_each_seed():
    generator = np.random.default_rng(2)
    old, new = drawn(generator), drawn(generator)
    found = by_name(measures(new, old, "log_likelihood", 0.1, 0.05))[AREA]
    heights = [np.trapezoid(curve.values_ST, LABELS, axis=1) / (LABELS[-1] - LABELS[0]) for curve in (new, old)]
    assert found.p_worse == pytest.approx(stats.ttest_rel(*heights, alternative="less").pvalue)


def test_bounds_and_tests_agree():
    """A lower bound above -margin is a pass, and an upper bound below zero a loss, in every measure."""
    generator, checked = np.random.default_rng(3), 0
    for _ in range(25):
        old, new = drawn(generator), drawn(generator, loss=generator.uniform(0, 0.4))
        for each in measures(new, old, "log_likelihood", 0.1, 0.05):
            assert (each.low.value > -0.1) == (each.p_within < 0.05) or abs(each.p_within - 0.05) < 0.004
            assert (each.high.value < 0) == (each.p_worse < 0.05) or abs(each.p_worse - 0.05) < 0.004
            checked += each.p_within < 0.05
    assert checked > 5


def test_error_measures_that_fall_are_turned_round():
    generator = np.random.default_rng(4)
    old, new = drawn(generator), drawn(generator, loss=0.5)
    as_brier = [Curve(LABELS, -curve.values_ST) for curve in (new, old)]
    rising, falling = measures(new, old, "log_likelihood", 0.05, 0.05), measures(*as_brier, "brier", 0.05, 0.05)
    for one, other in zip(rising, falling, strict=True):
        assert one.estimate.value == pytest.approx(other.estimate.value)
        assert one.p_worse == pytest.approx(other.p_worse)


def test_savings_say_how_many_labels_more_the_policy_needs():
    generator = np.random.default_rng(5)
    old, new = drawn(generator, 40, noise=1e-4), drawn(generator, 40, noise=1e-4, loss=0.25)
    found = by_name(measures(new, old, "log_likelihood", 0.05, 0.05))[SAVINGS]
    assert found.estimate.value == pytest.approx(-0.25, abs=0.02)
    assert found.p_worse < 0.001
    assert found.p_within > 0.999


@pytest.mark.parametrize("noise", [0.002, 0.01])
def test_a_loss_of_the_margin_rarely_passes_and_no_change_rarely_alarms(noise):
    generator, margin, studies = np.random.default_rng(6), 0.1, 60
    passed = np.zeros(3)
    alarms = np.zeros(3)
    for _ in range(studies):
        old = drawn(generator, noise=noise)
        lost = drawn(generator, noise=noise, loss=margin)
        fallen = Curve(LABELS, drawn(generator, noise=noise).values_ST - margin * (RISE[-1] - RISE[0]))
        found = [measures(curve, old, "log_likelihood", margin, 0.05) for curve in (lost, fallen, fallen)]
        passed += [group[index].p_within <= 0.05 for index, group in enumerate(found)]
        same = measures(drawn(generator, noise=noise), old, "log_likelihood", margin, 0.05)
        alarms += [each.p_worse <= 0.05 for each in same]
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    assert (passed / studies <= limit).all()
    assert (alarms / studies <= limit).all()
    assert alarms.sum() > 0


def test_curves_without_noise_have_exact_verdicts():
    old = Curve(LABELS, np.tile(RISE, (4, 1)))
    for shift, within, worse in ((0.0, True, False), (-0.001, True, True), (-0.1, False, True)):
        new = Curve(LABELS, old.values_ST + shift)
        level = by_name(measures(new, old, "log_likelihood", 0.05, 0.05))[LEVEL]
        assert (level.p_within < 0.05, level.p_worse < 0.05) == (within, worse)
        assert level.low.value == pytest.approx(level.estimate.value, abs=1e-4)


def test_seeds_that_tell_find_the_effect_four_times_in_five():
    generator, error, effect = np.random.default_rng(7), 0.5, 0.4
    needed = int(seeds_that_tell(error, effect, 9, 0.05))
    sample = generator.normal(effect, 3 * error, size=(4000, needed))
    found = stats.ttest_1samp(sample, 0, axis=1, alternative="greater").pvalue <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)
    assert np.isnan(seeds_that_tell(0.1, 0.0, 5, 0.05))
    assert np.isinf(seeds_that_tell(10.0, 0.001, 5, 0.05))


def test_a_margin_beyond_the_curve_never_passes():
    old = Curve([100.0, 110], [[-0.6, -0.5], [-0.61, -0.51], [-0.6, -0.5]])
    found = by_name(measures(old, old, "log_likelihood", 0.5, 0.05))[SAVINGS]
    assert found.p_within == 1


def test_the_cost_is_a_ratio():
    before = np.array([2.0, 2.1, 1.9, 2.05])
    found = cost(before * 3, before, np.arange(4), 0.5, 0.05)
    assert np.exp(-found.estimate.value) == pytest.approx(3)
    assert found.p_worse < 0.01
    assert found.p_within > 0.99
    assert cost(before * 1.1, before, np.arange(4), 0.5, 0.05).p_within < 0.01
    assert found.high.kind == Kind.EXACT
