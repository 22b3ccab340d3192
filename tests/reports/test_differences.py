"""Mean differences of seeds that overlap: the t tests that they must equal, and their error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from balbench.reports.differences import differences


def _values(seeds, points=3, seed=0, spread=1.0):
    return np.random.default_rng(seed).normal(0, spread, size=(seeds, points))


def test_equal_seeds_give_the_paired_t_test():
    policy_SH, reference_SH = _values(6), _values(6, seed=1)
    compared = differences(policy_SH, np.arange(6), reference_SH, np.arange(6))
    expected = stats.ttest_rel(policy_SH, reference_SH)
    np.testing.assert_allclose(compared.t_H, expected.statistic)
    np.testing.assert_allclose(2 * np.minimum(compared.p_above_H, compared.p_below_H), expected.pvalue)
    low_H, high_H = compared.interval(0.95)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose([low_H, high_H], [interval.low, interval.high])


def test_disjoint_seeds_give_welchs_t_test():
    policy_SH, reference_MH = _values(5), _values(9, seed=1, spread=3)
    compared = differences(policy_SH, np.arange(5), reference_MH, np.arange(10, 19))
    expected = stats.ttest_ind(policy_SH, reference_MH, equal_var=False)
    np.testing.assert_allclose(compared.t_H, expected.statistic)
    np.testing.assert_allclose(compared.freedom_H, expected.df)


def test_rows_may_be_in_any_order():
    policy_SH, reference_MH = _values(4), _values(7, seed=1)
    seeds, order = np.array([3, 1, 8, 5]), [2, 0, 3, 1]
    first = differences(policy_SH, seeds, reference_MH, np.arange(7))
    second = differences(policy_SH[order], seeds[order], reference_MH[::-1], np.arange(7)[::-1])
    np.testing.assert_allclose(first.t_H, second.t_H)


@pytest.mark.parametrize(("own", "other", "correlation"), [(5, 20, 0.0), (5, 20, 0.8), (10, 20, 0.5), (5, 5, 0.5)])
def test_the_test_errs_as_often_as_it_says(own, other, correlation):
    """20,000 comparisons of equal means; the reference has further seeds, and shared seeds are correlated."""
    generator = np.random.default_rng(0)
    reference_MH = generator.normal(size=(other, 20_000))
    noise_SH = generator.normal(size=(own, 20_000))
    policy_SH = correlation * reference_MH[:own] + np.sqrt(1 - correlation**2) * noise_SH
    compared = differences(policy_SH, np.arange(own), reference_MH, np.arange(other))
    for p_H in (compared.p_above_H, compared.p_below_H):
        assert 0.02 < (p_H < 0.025).mean() < 0.031


def test_the_variance_is_unbiased():
    generator = np.random.default_rng(1)
    reference_MH = generator.normal(size=(12, 50_000))
    policy_SH = 0.6 * reference_MH[:4] + generator.normal(size=(4, 50_000))
    compared = differences(policy_SH, np.arange(4), reference_MH, np.arange(12))
    assert np.mean(compared.error_H**2) == pytest.approx(np.var(compared.mean_H), rel=0.03)


def test_equal_values_are_no_difference():
    values_SH = _values(4)
    compared = differences(values_SH, np.arange(4), values_SH, np.arange(4))
    np.testing.assert_array_equal(compared.t_H, 0)
    np.testing.assert_array_equal(compared.p_above_H, 0.5)


def test_a_constant_difference_without_noise_is_certain():
    values_SH = np.zeros((4, 2))
    compared = differences(values_SH + 1, np.arange(4), values_SH, np.arange(4))
    np.testing.assert_array_equal(compared.p_above_H, 0)
