"""Gaussian posteriors against scipy's optimum, dense algebra and numerical derivatives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from scipy.special import expit

from balbench.harness.posteriors.gaussian import BradleyTerry, Gaussian, Linear, Standardiser, answer_step, best_samples
from balbench.harness.posteriors.posterior import DivergedError
from balbench.harness.streams import stream


def problem(n, H, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(n, H)), rng.choice([0.0, 0.5, 1.0, 0.8], size=n)


def objective(w, X, y, prior):
    logit = X @ w
    return np.logaddexp(0, logit).sum() - y @ logit + prior / 2 * w @ w


def precision(w, X, prior):
    p = expit(X @ w)
    return prior * np.eye(len(w)) + sum(one * (1 - one) * np.outer(d, d) for one, d in zip(p, X, strict=True))


def gaussian(H, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(H, H))
    M = root @ root.T + np.eye(H)
    return Gaussian(torch.from_numpy(rng.normal(size=H)), torch.linalg.cholesky(torch.from_numpy(M))), M


def after_answer(posterior, x, target):
    """The Gaussian after one more labelled pair, by `answer_step`."""
    covariance = posterior.covariance_HH()
    shift, shrink = answer_step(x @ posterior.mean_H, x @ covariance @ x, target)
    direction = covariance @ x
    return posterior.mean_H + shift * direction, covariance - shrink * torch.outer(direction, direction)


@pytest.mark.parametrize(("n", "H", "scale"), [(40, 5, 1.0), (3, 20, 1.0), (200, 8, 30.0), (1, 1, 1e-3), (0, 3, 1.0)])
@pytest.mark.parametrize("prior", [1e-3, 1.0, 100.0])
def test_mode_and_precision(n, H, scale, prior):
    X, y = problem(n, H, scale=scale)
    actual = BradleyTerry(torch.from_numpy(X), torch.from_numpy(y)).posterior(prior)
    w = actual.mean_H.numpy()
    gradient = X.T @ (expit(X @ w) - y) + prior * w
    M = precision(w, X, prior)
    np.testing.assert_array_less(np.sqrt(gradient @ np.linalg.solve(M, gradient)), 1e-6)
    reference = minimize(objective, np.zeros(H), (X, y, prior), method="BFGS", options={"gtol": 1e-9})
    assert objective(w, X, y, prior) <= reference.fun + 1e-9 * (1 + abs(reference.fun))
    np.testing.assert_allclose(actual.covariance_HH(), np.linalg.inv(M), rtol=1e-8, atol=1e-12)


def test_separable_answers_with_a_weak_prior():
    X = np.linspace(-50, 50, 60)[:, None]
    likelihood = BradleyTerry(torch.from_numpy(X), torch.from_numpy((X[:, 0] > 0).astype(float)))
    actual = likelihood.mode_H(1e-6)
    assert actual.item() == pytest.approx(
        likelihood.mode_H(1e-6, start_H=torch.tensor([40.0]).double()).item(), rel=1e-6
    )
    w = brentq(lambda w: X[:, 0] @ (expit(X[:, 0] * w) - (X[:, 0] > 0)) + 1e-6 * w, 0, 1e3)
    assert actual.item() == pytest.approx(w, rel=1e-6)


def test_features_that_are_not_numbers_are_refused():
    with pytest.raises(DivergedError, match="not a number"):
        BradleyTerry(torch.tensor([[torch.nan]]).double(), torch.ones(1))


def test_samples_have_the_mean_and_covariance():
    posterior, M = gaussian(3)
    samples = posterior.samples_KH(200_000, stream(0).torch()).numpy()
    covariance = np.linalg.inv(M)
    se = np.sqrt(np.diag(covariance) / len(samples))
    assert (np.abs(samples.mean(0) - posterior.mean_H.numpy()) < 5 * se).all()
    np.testing.assert_allclose(np.cov(samples.T), covariance, atol=5 * covariance.max() * np.sqrt(2 / len(samples)))


def test_spread_gives_the_covariance_of_logits():
    posterior, M = gaussian(4)
    X = np.random.default_rng(1).normal(size=(6, 4))
    spread = posterior.spread_HC(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(spread.T @ spread, X @ np.linalg.inv(M) @ X.T, rtol=1e-10)


def test_one_more_answer_is_laplaces_approximation_with_that_pair():
    posterior, M = gaussian(4)
    rng = np.random.default_rng(2)
    X, y = 3 * rng.normal(size=(9, 4)), np.tile([0.0, 0.5, 1.0], 3)
    m = posterior.mean_H.numpy()
    for c in range(len(X)):

        def one_more(w, x=X[c], target=y[c]):
            return (w - m) @ M @ (w - m) / 2 + np.logaddexp(0, x @ w) - target * (x @ w)

        mode = minimize(one_more, m, method="BFGS", options={"gtol": 1e-10}).x
        p = expit(X[c] @ mode)
        mean, covariance = after_answer(posterior, torch.from_numpy(X)[c], torch.tensor(y[c]))
        np.testing.assert_allclose(mean, mode, atol=1e-6)
        np.testing.assert_allclose(covariance, np.linalg.inv(M + p * (1 - p) * np.outer(X[c], X[c])), atol=1e-7)


def test_an_answer_to_each_pair_in_turn_comes_near_the_posterior_of_all():
    X, y = problem(300, 3)
    together = BradleyTerry(torch.from_numpy(X), torch.from_numpy(y)).posterior(1.0)
    one = BradleyTerry(torch.zeros(0, 3).double(), torch.zeros(0)).posterior(1.0)
    for x, target in zip(torch.from_numpy(X), torch.from_numpy(y), strict=True):
        mean, covariance = after_answer(one, x, target)
        one = Gaussian(mean, torch.linalg.cholesky(torch.linalg.inv(covariance)))
    assert (one.mean_H - together.mean_H).abs().max() < 0.5 * together.covariance_HH().diagonal().sqrt().max()
    torch.testing.assert_close(one.covariance_HH(), together.covariance_HH(), rtol=0.1, atol=1e-3)


@given(mean=st.floats(-300, 300), variance=st.floats(0, 1e6), target=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
@settings(max_examples=500, deadline=None)
def test_the_step_solves_its_equation(mean, variance, target):
    shift, shrink = answer_step(*torch.tensor([[mean], [variance], [target]], dtype=torch.float64))
    low, high = mean - variance * (1 - target), mean + variance * target
    t = mean
    if high > low:
        t = brentq(lambda t: t - mean - variance * (target - expit(t)), low - 1e-9, high + 1e-9, xtol=1e-13, rtol=1e-14)
    slope = expit(t) * expit(-t)
    assert variance * shift.item() + mean == pytest.approx(t, rel=1e-9, abs=1e-7)
    assert shrink.item() == pytest.approx(slope / (1 + slope * variance), rel=1e-5, abs=1e-15)
    assert shrink.item() * variance < 1


def test_standardised_features():
    rng = np.random.default_rng(3)
    features = torch.from_numpy(rng.normal(5.0, [1.0, 3.0, 1e-3], size=(5000, 3))).float()
    features = torch.cat([features, torch.full((5000, 1), 0.1)], dim=1)
    standardise = Standardiser(features)
    scaled = standardise(features).double()
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(4 * (scaled**2).mean(0), torch.tensor([1, 1, 1, 0]).double(), atol=1e-4, rtol=1e-4)
    pairs = torch.tensor([[0, 1], [4999, 7]])
    expected = scaled[pairs[:, 0]] - scaled[pairs[:, 1]]
    torch.testing.assert_close(standardise.differences(features, pairs), expected, atol=1e-6, rtol=1e-5)


def test_the_prior_that_predicts_best_is_taken():
    rng = np.random.default_rng(4)
    w = 0.5 * rng.normal(size=4)
    X = rng.normal(size=(900, 4))
    y = (rng.random(900) < expit(X @ w)).astype(float)
    likelihood = BradleyTerry(torch.from_numpy(X[:60]), torch.from_numpy(y[:60]))
    held_out, answers = torch.from_numpy(X[60:]), torch.from_numpy(y[60:])
    priors = (100.0, 1.0, 1e-2, 1e-4)

    def log_likelihood(samples_KH):
        p = torch.sigmoid(held_out @ samples_KH.T).mean(1).numpy()
        return np.mean(np.log(np.where(answers == 1, p, 1 - p)))

    each = [likelihood.posterior(prior).samples_KH(30, stream(0).torch()) for prior in priors]
    best = best_samples(likelihood.posterior, priors, 30, stream(0).torch, held_out, answers)
    assert torch.equal(best, each[int(np.argmax([log_likelihood(one) for one in each]))])
    assert 0 < np.argmax([log_likelihood(one) for one in each]) < 3


def test_linear_rewards_in_blocks():
    weights = torch.randn(3, 2, generator=stream(0).torch())
    features = torch.randn(40_000, 2, generator=stream(1).torch())
    rewards = Linear(lambda block: 2 * block, weights).rewards_KR(features)
    torch.testing.assert_close(rewards, 2 * weights @ features.T)
