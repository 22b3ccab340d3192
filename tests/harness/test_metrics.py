"""Metrics against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import rankdata, spearmanr

from balbench.harness.metrics import (
    average_ranks,
    best_temperature,
    calibration_error,
    clustered_error,
    error_correlations,
    held_out_metrics,
    logits,
)
from balbench.harness.uncertainty import uncertainty


def metrics_of(p, q, prompt_N=None):
    p, q = np.array(p), np.array(q)
    return held_out_metrics(p, q, np.arange(len(p)) if prompt_N is None else np.array(prompt_N))


def log_likelihood(p, q):
    return np.mean([b * math.log(a) + (1 - b) * math.log(1 - a) for a, b in zip(p, q, strict=True)])


def test_metrics_follow_their_definitions():
    rng = np.random.default_rng(0)
    p, q = rng.random(50), rng.integers(0, 4, size=50) / 3
    metrics = metrics_of(p, q)
    assert metrics["log_likelihood"] == pytest.approx(log_likelihood(p, q))
    assert metrics["accuracy"] == pytest.approx(np.mean([b if a > 0.5 else 1 - b for a, b in zip(p, q, strict=True)]))
    assert metrics["brier"] == pytest.approx(np.mean([(a - b) ** 2 for a, b in zip(p, q, strict=True)]))
    assert metrics["brier_chance"] == pytest.approx(np.mean([(0.5 - b) ** 2 for b in q]))


def test_pairs_without_votes_are_left_out():
    with_gap = metrics_of([0.9, 0.2, 0.1], [1.0, 0.0, np.nan], [4, 2, 9])
    assert with_gap == metrics_of([0.9, 0.2], [1.0, 0.0], [4, 2])


def test_probability_one_half_has_half_accuracy_and_ln_2():
    metrics = metrics_of(np.full(4, 0.5), [1.0, 0.0, 1.0, 1.0])
    assert metrics["accuracy"] == 0.5
    assert metrics["log_likelihood"] == pytest.approx(-math.log(2))
    assert metrics["brier"] == metrics["brier_chance"]
    assert (metrics["temperature"], metrics["temperature_gain"]) == (1.0, 0.0)


def test_certain_but_wrong_predictions_are_penalised_but_finite():
    metrics = metrics_of([1.0, 1.0], [0.0, 0.0])
    assert -30 < metrics["log_likelihood"] < -20
    assert all(math.isfinite(value) for value in metrics.values())


def test_standard_errors_without_clusters_are_those_of_a_mean():
    rng = np.random.default_rng(3)
    p, q = rng.random(40), rng.integers(0, 2, 40).astype(float)
    metrics = metrics_of(p, q, rng.permutation(40))
    brier = (p - q) ** 2
    assert metrics["brier_se"] == pytest.approx(brier.std(ddof=1) / math.sqrt(40))
    accuracy = ((p > 0.5) == (q > 0.5)).astype(float)
    assert metrics["accuracy_se"] == pytest.approx(accuracy.std(ddof=1) / math.sqrt(40))


@pytest.mark.parametrize("copies", [1, 3])
def test_repeated_pairs_of_a_prompt_add_no_evidence(copies):
    rng = np.random.default_rng(4)
    p, q, prompts = rng.random(30), rng.integers(0, 2, 30).astype(float), np.arange(30)
    once = metrics_of(p, q, prompts)
    often = metrics_of(np.tile(p, copies), np.tile(q, copies), np.tile(prompts, copies))
    for name in ("log_likelihood_se", "accuracy_se", "brier_se"):
        assert often[name] == pytest.approx(once[name])


def test_clustered_error_covers_the_spread_of_the_mean_over_draws():
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    means, errors = [], []
    for _ in range(400):
        value = rng.normal(size=60)[cluster] + 0.5 * rng.normal(size=len(cluster))
        means.append(value.mean())
        errors.append(clustered_error(value, cluster))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)


def test_one_prompt_has_no_standard_error():
    assert clustered_error(np.array([0.0, 1.0]), np.array([5, 5])) is None
    assert not {"log_likelihood_se", "accuracy_se", "brier_se"} & set(metrics_of([0.3, 0.4], [0, 1], [2, 2]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-5, 5), st.integers(1, 200), st.floats(0, 1))
def test_the_temperature_is_the_best_one(seed, log_scale, n, noise):
    rng = np.random.default_rng(seed)
    true_logit = rng.normal(size=n) * 2
    share = (rng.random(n) < expit(true_logit)).astype(float)
    logit = np.exp(log_scale) * (true_logit + noise * rng.normal(size=n))
    p = np.clip(expit(logit), 1e-12, 1 - 1e-12)
    temperature, gain = best_temperature(p, share)
    assert 1e-3 <= temperature <= 1e3
    assert gain >= 0

    def at(log_temperature):
        scaled = (np.log(p) - np.log1p(-p)) / np.exp(log_temperature)
        return np.mean(share * scaled - np.logaddexp(0, scaled))

    grid = np.linspace(math.log(1e-3), math.log(1e3), 400)
    start = grid[np.argmax([at(t) for t in grid])]
    slow = minimize_scalar(lambda t: -at(t), bounds=(max(start - 0.05, grid[0]), min(start + 0.05, grid[-1])))
    best = max(-slow.fun, at(grid[0]), at(grid[-1]))
    assert at(math.log(temperature)) >= best - 1e-7
    assert gain == pytest.approx(max(0.0, best - at(0.0)), abs=1e-7)


@pytest.mark.parametrize("factor", [0.02, 1.0, 8.0])
def test_a_temperature_undoes_a_scale_of_the_logits(factor):
    rng = np.random.default_rng(6)
    logit = rng.normal(size=5000)
    share = (rng.random(5000) < expit(logit)).astype(float)
    temperature, gain = best_temperature(np.clip(expit(factor * logit), 1e-12, 1 - 1e-12), share)
    assert temperature == pytest.approx(factor, rel=0.1)
    assert (gain > 0.01) == (factor != 1)


def test_temperatures_stay_in_their_range():
    right, wrong = np.array([0.6, 0.4]), np.array([0.4, 0.6])
    share = np.array([1.0, 0.0])
    assert best_temperature(right, share)[0] == pytest.approx(1e-3)
    assert best_temperature(wrong, share)[0] == pytest.approx(1e3)


def test_calibration_error_by_definition():
    rng = np.random.default_rng(1)
    confidence, agree = 0.5 + rng.random(300) / 2, rng.integers(0, 2, 300).astype(float)
    expected = 0.0
    for low in np.arange(10) * 0.05 + 0.5:
        inside = (confidence >= low) & (confidence < low + 0.05)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - agree[inside].mean())
    assert calibration_error(confidence, agree) == pytest.approx(expected)
    assert calibration_error(np.ones(5), np.ones(5)) == 0


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60))
def test_ranks_are_scipys(values):
    np.testing.assert_array_equal(average_ranks(np.array(values)), rankdata(values))


def test_error_correlations_are_scipys_and_absent_for_constants():
    rng = np.random.default_rng(2)
    uncertainties = uncertainty(torch.from_numpy(rng.random((4, 30)).round(1)))
    share = rng.integers(0, 2, 30).astype(float)
    share[3] = np.nan
    voted = ~np.isnan(share)
    error = ((uncertainties.mean_N.numpy() - share) ** 2)[voted]
    correlations = error_correlations(uncertainties, share)
    for kind in ("epistemic", "predictive", "variance"):
        values = getattr(uncertainties, f"{kind}_N").numpy()[voted]
        assert correlations[f"{kind}_brier_spearman"] == pytest.approx(spearmanr(values, error).statistic)
    same = uncertainty(torch.full((4, 30), 0.3))
    assert error_correlations(same, share) == {}
    assert error_correlations(uncertainty(torch.rand(4, 30)), np.full(30, np.nan)) == {}


def test_logits_are_finite_and_invert_the_sigmoid():
    logit_N = logits(np.array([0.0, 0.25, 0.5, 1.0]))
    assert np.isfinite(logit_N.astype(np.float16)).all()
    assert logit_N[1:3] == pytest.approx([-np.log(3), 0.0])
    assert logit_N[0] == pytest.approx(-logit_N[3], rel=1e-4)
