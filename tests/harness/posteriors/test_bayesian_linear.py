"""The Bayesian linear reward against a mode found by scipy and a dense Hessian."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit

from balbench.harness.posteriors.bayesian_linear import BayesianLinear
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.streams import stream


def answered(n, D=4, seed=0, responses=80):
    rng = np.random.default_rng(seed)
    features = rng.normal(2.0, np.arange(1, D + 1), size=(responses, D)).astype(np.float32)
    pairs = np.stack([rng.permutation(responses)[:2] for _ in range(n)])
    target = (features[pairs[:, 0], 0] > features[pairs[:, 1], 0]).astype(np.float32)
    return LabelledPairs(torch.from_numpy(features), torch.from_numpy(pairs), torch.from_numpy(target))


def standardised(pairs):
    phi = pairs.features_RD.double().numpy()
    phi = (phi - phi.mean(0)) / phi.std(0) / np.sqrt(phi.shape[1])
    return phi, phi[pairs.responses_n2[:, 0]] - phi[pairs.responses_n2[:, 1]]


def test_samples_are_laplaces_approximation_at_the_mode():
    train, prior, K = answered(60), 0.5, 4000
    model = BayesianLinear(prior_precision=prior, samples=K).fit(train, train, stream(0))
    phi, d = standardised(train)
    y = train.label_n.double().numpy()
    w = minimize(
        lambda w: np.logaddexp(0, d @ w).sum() - y @ d @ w + prior / 2 * w @ w, np.zeros(4), options={"gtol": 1e-8}
    ).x
    M = prior * np.eye(4) + sum(expit(x @ w) * expit(-x @ w) * np.outer(x, x) for x in d)
    rewards = model.rewards_KR(train.features_RD).double().numpy()
    deviation = np.sqrt(np.diag(phi @ np.linalg.inv(M) @ phi.T))
    np.testing.assert_array_less(np.abs(rewards.mean(0) - phi @ w), 5 * deviation / np.sqrt(K))
    np.testing.assert_allclose(rewards.std(0), deviation, rtol=5 / np.sqrt(2 * K))
    np.testing.assert_allclose(model.embedding_RH(train.features_RD), phi, rtol=1e-5, atol=1e-6)


def test_the_prior_chosen_on_the_eval_split_is_no_worse_than_a_fixed_one():
    train, validation = answered(40), answered(60, seed=1)

    def loss(**settings):
        rewards = BayesianLinear(**settings).fit(train, validation, stream(0)).rewards_KR(validation.features_RD)
        first, second = validation.responses_n2.T
        p = torch.sigmoid(rewards[:, first] - rewards[:, second]).double().mean(0)
        return float(torch.nn.functional.binary_cross_entropy(p, validation.label_n.double()))

    fixed = {prior: loss(prior_precision=prior) for prior in (100.0, 10.0, 1.0, 0.1, 0.01)}
    assert loss() == pytest.approx(min(fixed.values()), abs=1e-6)
    assert max(fixed.values()) > min(fixed.values()) + 0.01


def test_shifting_and_scaling_features_changes_nothing():
    train = answered(40)
    moved = train._replace(features_RD=train.features_RD * 64 + 32)
    first, second = (
        BayesianLinear(prior_precision=1.0).fit(pairs, pairs, stream(0)).rewards_KR(pairs.features_RD)
        for pairs in (train, moved)
    )
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_more_features_than_labels():
    train = answered(10, D=50)
    rewards = BayesianLinear(prior_precision=1.0).fit(train, train, stream(0)).rewards_KR(train.features_RD)
    assert torch.isfinite(rewards).all()
