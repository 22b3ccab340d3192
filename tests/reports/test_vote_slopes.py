"""Slopes of votes on predicted logits against simulated votes of known slope."""

import numpy as np
import pytest
from scipy.special import expit

from balbench.reports.vote_slopes import slope_trend, vote_slope


def test_slopes_and_errors_cover_the_truth_where_votes_of_a_prompt_depend_on_each_other():
    inside, slope = 0, 0.7
    for seed in range(200):
        generator = np.random.default_rng(seed)
        logit_V, cluster_V = generator.normal(size=600), np.repeat(np.arange(200), 3)
        logit_V = np.repeat(logit_V[::3], 3)  # a prompt's pairs are nearly the same
        share_V = (np.repeat(generator.random(200), 3) < expit(slope * logit_V)).astype(float)
        actual = vote_slope(logit_V, share_V, cluster_V)
        inside += abs(actual.value - slope) < 1.96 * actual.error
    assert 180 <= inside <= 198


def test_the_slope_is_the_most_likely_one_and_may_be_negative():
    logit_V = np.random.default_rng(0).normal(size=500)
    share_V = expit(-0.4 * logit_V)
    assert vote_slope(logit_V, share_V, np.arange(500)).value == pytest.approx(-0.4)


@pytest.mark.parametrize(
    ("logit_V", "share_V"),
    [([0.0, 0.0], [1.0, 0.0]), ([1.0, -1.0], [1.0, 0.0]), ([], [])],
    ids=["0", "perfect", "none"],
)
def test_without_information_the_slope_is_unknown(logit_V, share_V):
    actual = vote_slope(np.array(logit_V), np.array(share_V), np.arange(len(logit_V)))
    assert np.isnan(actual.value)
    assert np.isnan(actual.error)


def test_the_trend_is_the_change_of_the_slope_from_the_nearest_to_the_farthest_pair():
    generator = np.random.default_rng(0)
    logit_V, rank_V = generator.normal(size=20_000), generator.random(20_000)
    share_V = expit((1.5 - 1.1 * rank_V) * logit_V)
    assert slope_trend(logit_V, share_V, np.arange(20_000), rank_V).value == pytest.approx(-1.1)


def test_the_error_of_the_trend_covers_the_truth():
    inside = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        logit_V, rank_V = generator.normal(size=600), generator.random(600)
        share_V = (generator.random(600) < expit((1.5 - rank_V) * logit_V)).astype(float)
        actual = slope_trend(logit_V, share_V, np.arange(600) // 2, rank_V)
        inside += abs(actual.value + 1) < 1.96 * actual.error
    assert 180 <= inside <= 198


@pytest.mark.parametrize("size", [0, 1, 2])
def test_without_information_the_trend_is_unknown(size):
    actual = slope_trend(np.zeros(size), np.ones(size), np.arange(size), np.linspace(0, 1, size))
    assert np.isnan(actual.value)
    assert np.isnan(actual.error)
