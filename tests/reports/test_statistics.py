"""The bootstrap and its percentiles."""

from __future__ import annotations

import numpy as np
import pytest

from balbench.reports.statistics import bootstrap_indices, percentile_ends, resampled_means


def test_the_same_arguments_draw_the_same_seeds_and_others_do_not():
    first_BS, second_BS = bootstrap_indices(5, 100), bootstrap_indices(5, 100)
    assert first_BS.shape == (100, 5)
    np.testing.assert_array_equal(first_BS, second_BS)
    assert (bootstrap_indices(5, 100, seed=1) != first_BS).any()
    assert set(np.unique(first_BS)) == set(range(5))


def test_the_drawn_seeds_cannot_be_changed_by_a_caller():
    with pytest.raises(ValueError, match="read-only"):
        bootstrap_indices(4, 10)[0, 0] = 3


def test_no_seed_is_refused():
    with pytest.raises(ValueError, match="at least one seed"):
        bootstrap_indices(0)


def test_resampled_means_are_the_means_of_the_drawn_rows():
    values_ST = np.random.default_rng(0).normal(size=(6, 4))
    index_BS = bootstrap_indices(6, 50)
    expected_BT = np.array([values_ST[index_S].mean(axis=0) for index_S in index_BS])
    np.testing.assert_allclose(resampled_means(values_ST, index_BS), expected_BT, rtol=0, atol=1e-15)


def test_equal_columns_have_equal_means_to_the_last_bit():
    column_S = np.random.default_rng(1).normal(size=7)
    means_BT = resampled_means(np.repeat(column_S[:, None], 33, axis=1), bootstrap_indices(7, 2000))
    assert (means_BT == means_BT[:, :1]).all()


def test_percentile_ends_leave_a_fortieth_of_the_sample_outside_at_each_end():
    low, high = percentile_ends(np.random.default_rng(2).permutation(10_001).astype(float))
    assert (low, high) == (250, 9750)


def test_infinite_resamples_give_infinite_ends_only_where_they_reach_the_end():
    values_B = np.concatenate([np.full(400, -np.inf), np.linspace(0, 1, 9_600)])
    low, high = percentile_ends(values_B)
    assert low == -np.inf
    assert 0.9 < high < 1
