"""Statistics over units agree with slow definitions and with scipy, and their intervals hold the truth."""

import itertools
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays
from scipy import stats

from balbench.reports.unit_statistics import (
    average_ranks,
    cliques,
    critical_difference,
    friedman_p,
    improvement,
    iqm_interval,
    mean_interval,
    profile,
    signed_rank_p,
)


def test_the_interquartile_mean_is_scipy_s_trimmed_mean():
    for units in range(3, 20):
        values_U = np.random.default_rng(units).normal(size=units)
        assert iqm_interval(values_U).value == pytest.approx(stats.trim_mean(values_U, 0.25))


def test_without_trimming_both_means_are_the_same():
    values_U = np.array([0.1, 0.5, 0.2])
    assert astuple(iqm_interval(values_U)) == pytest.approx(astuple(mean_interval(values_U)))
    low, high = stats.t.interval(0.95, 2, values_U.mean(), stats.sem(values_U))
    assert (mean_interval(values_U).low, mean_interval(values_U).high) == pytest.approx((low, high))


@pytest.mark.parametrize("units", [3, 5, 12])
@pytest.mark.parametrize(("interval", "least"), [(mean_interval, 0.935), (iqm_interval, 0.91)])
def test_intervals_of_means_hold_the_truth(units, interval, least):
    """2,000 draws of normal units: nearly 95% of the intervals hold zero."""
    generator = np.random.default_rng(units)
    held = 0
    for _ in range(2000):
        ends = interval(generator.normal(size=units))
        held += ends.low <= 0 <= ends.high
    assert held / 2000 > least


def test_one_outlier_moves_the_mean_but_not_the_interquartile_mean():
    values_U = np.array([0.3, 0.31, 0.29, 0.3, 0.3, 0.31, 0.29, -9.0])
    assert mean_interval(values_U).value < -0.8
    assert iqm_interval(values_U).value == pytest.approx(0.3, abs=0.01)


def test_the_signed_rank_test_counts_bounds_as_the_largest():
    finite_U = np.array([0.1, 0.2, 0.3, -0.05, 0.4, 0.15])
    assert signed_rank_p(finite_U) == pytest.approx(stats.wilcoxon(finite_U).pvalue)
    with_bound_U = np.array([0.1, 0.2, 0.3, -np.inf, 0.4, 0.15])
    assert signed_rank_p(with_bound_U) == pytest.approx(stats.wilcoxon([0.1, 0.2, 0.3, -9, 0.4, 0.15]).pvalue)
    assert signed_rank_p(np.zeros(5)) == 1
    assert signed_rank_p(np.full(6, np.inf)) == pytest.approx(2 / 2**6)


def test_ranks_put_bounds_last_and_ties_together():
    values_UP = np.array([[0.0, 0.3, -np.inf, -np.inf], [0.0, 0.3, 0.5, -0.2]])
    assert average_ranks(values_UP).tolist() == [2.5, 1.5, 2.25, 3.75]


def test_friedman_is_scipy_s_and_needs_three_policies():
    values_UP = np.random.default_rng(0).normal(size=(8, 4))
    assert friedman_p(values_UP) == pytest.approx(stats.friedmanchisquare(*values_UP.T).pvalue)
    assert np.isnan(friedman_p(values_UP[:, :2]))
    assert friedman_p(np.zeros((5, 3))) == 1


def test_the_critical_difference_is_that_of_demsar_s_table():
    """Demsar 2006: q is 2.343 for three and 2.569 for four classifiers; the example has 14 data sets and CD 1.25."""
    assert critical_difference(3, 6) * np.sqrt(6 * 6 / 12) == pytest.approx(2.343, abs=2e-3)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=5e-3)


@given(arrays(float, some.integers(2, 9), elements=some.sampled_from(np.arange(1, 9, 0.5))), some.floats(0.1, 4))
def test_cliques_are_the_largest_ranges_below_the_difference(rank_P, difference):
    sorted_P = np.sort(rank_P)
    pairs = itertools.combinations(range(len(sorted_P)), 2)
    ranges = {(i, j) for i, j in pairs if sorted_P[j] - sorted_P[i] < difference}
    largest = [
        (sorted_P[i], sorted_P[j])
        for i, j in sorted(ranges)
        if not any((a, b) != (i, j) and a <= i and j <= b for a, b in ranges)
    ]
    assert cliques(rank_P, difference) == largest


def test_improvement_is_the_mean_of_mann_and_whitney():
    generator = np.random.default_rng(3)
    scores = [(generator.normal(0.3, 1, 5), generator.normal(0, 1, 8)) for _ in range(4)]
    scores.append((np.zeros(3), np.zeros(4)))  # ties count one half
    expected = np.mean([stats.mannwhitneyu(own, other).statistic / (len(own) * len(other)) for own, other in scores])
    result = improvement(scores)
    assert result.value == pytest.approx(expected)
    assert result.low <= result.value <= result.high
    assert improvement(scores) == result


def test_a_policy_that_is_always_better_improves_with_certainty():
    result = improvement([(np.ones(3), np.zeros(3))] * 4)
    assert (result.value, result.low, result.high) == (1, 1, 1)


def test_profiles_fall_and_bounds_reach_nothing():
    values_U, threshold_H = np.array([0.5, 0.1, -np.inf, np.inf]), np.linspace(-1, 0.9, 39)
    share_H, low_H, high_H = profile(values_U, threshold_H)
    assert share_H.tolist() == [np.mean(values_U >= threshold) for threshold in threshold_H]
    assert (np.diff(share_H) <= 0).all()
    assert ((low_H <= share_H) & (share_H <= high_H)).all()
    assert (share_H[0], share_H[-1]) == (0.75, 0.25)
