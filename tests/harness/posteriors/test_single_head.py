"""Posteriors on one trained head, against their definitions written with numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import multivariate_normal, norm
from sklearn.covariance import oas

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.feature_density import ClassGaussian, FeatureDensity, oas_shrinkage
from balbench.harness.posteriors.laplace import PRIOR_GRID, Laplace
from balbench.harness.posteriors.latent_reward import LatentReward, RewardGaussian, tail_score
from balbench.harness.posteriors.posterior import LabelledPairs, OwnEpistemic, pair_uncertainty
from balbench.harness.posteriors.single_head import only_used, preferred_weights
from balbench.harness.streams import stream
from balbench.harness.uncertainty import pair_probabilities

SMALL = {"hidden": [8, 4], "learning_rate": 0.01, "weight_std": 0.3, "epochs": 20}


def answered(n, seed=0, responses=60, answers=(0.0, 1.0)):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(responses, 5)).astype(np.float32)
    pairs = np.stack([rng.permutation(responses)[:2] for _ in range(n)])
    target = rng.choice(answers, size=n).astype(np.float32)
    return LabelledPairs(torch.from_numpy(features), torch.from_numpy(pairs), torch.from_numpy(target))


def numpy_of(*tensors):
    return [tensor.double().numpy() for tensor in tensors]


class TestLaplace:
    def test_the_head_is_member_0_of_the_ensemble(self):
        train, validation = answered(50), answered(20, 1)
        alone = Laplace(**SMALL).as_ensemble().fit(train, validation, stream(0))
        among = Ensemble(members=3, **SMALL).fit(train, validation, stream(0))
        first, second = (heads.rewards_KR(train.features_RD)[0] for heads in (alone, among))
        # The last bias has no gradient but rounding, so only differences of rewards agree.
        torch.testing.assert_close(first - first[0], second - second[0], rtol=1e-3, atol=1e-4)

    def test_samples_spread_as_the_last_layers_gaussian(self):
        train, validation, prior = answered(50), answered(20, 1), 2.0
        posterior = Laplace(**SMALL, prior_precision=prior, samples=4000)
        model = posterior.fit(train, validation, stream(0))
        heads = posterior.as_ensemble().fit(train, validation, stream(0))
        phi, rewards = numpy_of(heads.embedding_RH(train.features_RD), model.rewards_KR(train.features_RD))
        d = phi[train.responses_n2[:, 0]] - phi[train.responses_n2[:, 1]]
        w = heads.weights[-1][0, :, 0].double().numpy()
        M = prior * np.eye(4) + sum(expit(x @ w) * expit(-x @ w) * np.outer(x, x) for x in d)
        deviation = np.sqrt(np.diag(d @ np.linalg.inv(M) @ d.T))
        logit = rewards[:, train.responses_n2[:, 0]] - rewards[:, train.responses_n2[:, 1]]
        np.testing.assert_array_less(np.abs(logit.mean(0) - d @ w), 5 * deviation / np.sqrt(4000) + 1e-5)
        np.testing.assert_allclose(logit.std(0), deviation, rtol=5 / np.sqrt(2 * 4000))

    def test_the_prior_is_chosen_on_the_eval_split(self):
        train, validation = answered(50), answered(40, 1)

        def likelihood(model):
            p = pair_probabilities(model.rewards_KR(validation.features_RD), validation.responses_n2).mean(0)
            return float((validation.label_n * p.log() + (1 - validation.label_n) * (1 - p).log()).mean())

        each = {
            prior: likelihood(Laplace(**SMALL, prior_precision=prior).fit(train, validation, stream(0)))
            for prior in PRIOR_GRID
        }
        chosen = likelihood(Laplace(**SMALL).fit(train, validation, stream(0)))
        assert chosen == pytest.approx(max(each.values()), abs=1e-9)
        assert max(each.values()) > min(each.values()) + 1e-3


class TestLatentReward:
    def test_a_pair_is_judged_by_the_tails_of_the_training_rewards(self):
        train, pool = answered(50), answered(30, 1)
        model = LatentReward(**SMALL).fit(train, train, stream(0))
        (reward,) = numpy_of(model.rewards_KR(train.features_RD)[0])
        first, second = train.responses_n2.T.numpy()
        preferred = np.where(train.label_n == 1, reward[first], reward[second])
        other = np.where(train.label_n == 1, reward[second], reward[first])
        gaussians = [norm(side.mean(), side.std(ddof=1)) for side in (preferred, other)]
        pool_rewards = model.rewards_KR(pool.features_RD)
        actual = model.epistemic_N(pool.features_RD, pool.responses_n2, pool_rewards)
        for i, (a, b) in enumerate(pool.responses_n2):
            r = sorted([float(pool_rewards[0, a]), float(pool_rewards[0, b])], reverse=True)
            tails = [min(g.cdf(x), 1 - g.cdf(x)) for g, x in zip(gaussians, r, strict=True)]
            assert actual[i].item() == pytest.approx(-sum(tails), abs=1e-6)

    def test_it_is_a_posterior_with_its_own_measure(self):
        train = answered(20)
        model = LatentReward(**SMALL).fit(train, train, stream(0))
        assert isinstance(model, OwnEpistemic)
        actual = pair_uncertainty(model, train.pairs(), model.rewards_KR(train.features_RD))
        assert actual.epistemic_range == (-1.0, 0.0)
        assert ((actual.epistemic_N >= -1) & (actual.epistemic_N <= 0)).all()

    @pytest.mark.parametrize("reward", [[0.3], [0.3, 0.3]])
    def test_a_deviation_of_zero_leaves_scores_finite(self, reward):
        one = RewardGaussian.fitted(torch.tensor(reward))
        near = torch.tensor([0.3, 0.4])
        torch.testing.assert_close(tail_score(one, one, near, near), torch.tensor([-1.0, 0.0]).double())

    def test_shares_of_answers_weigh_rewards(self):
        reward = torch.tensor([0.0, 1.0, 4.0])
        halves = RewardGaussian.fitted(reward, torch.tensor([1.0, 1.0, 2.0]).double())
        whole = RewardGaussian.fitted(torch.tensor([0.0, 1.0, 4.0, 4.0]))
        torch.testing.assert_close(halves, whole)


class TestFeatureDensity:
    def test_a_pair_is_judged_by_its_densities(self):
        train, pool = answered(50), answered(30, 1)
        model = FeatureDensity(**SMALL).fit(train, train, stream(0))
        z, pool_z = numpy_of(model.embedding_RH(train.features_RD), model.embedding_RH(pool.features_RD))
        first, second = train.responses_n2.T.numpy()
        chosen = np.where(train.label_n == 1, first, second)
        rejected = np.where(train.label_n == 1, second, first)
        q = np.zeros(len(pool_z))
        for rows in (z[chosen], z[rejected]):
            covariance, _ = oas(rows)
            variance = np.trace(np.cov(rows.T, ddof=0)) / 4
            covariance += (1e-6 * variance + 1e-12) * np.eye(4)
            q += multivariate_normal(rows.mean(0), covariance).pdf(pool_z) / 2
        expected = -np.log(q[pool.responses_n2[:, 0]]) - np.log(q[pool.responses_n2[:, 1]])
        actual = model.epistemic_N(pool.features_RD, pool.responses_n2, model.rewards_KR(pool.features_RD))
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
        assert isinstance(model, OwnEpistemic)

    def test_standardised_scores(self):
        train, pool = answered(50), answered(30, 1)

        def scores(scale, pairs):
            model = FeatureDensity(**SMALL, scale=scale).fit(train, train, stream(0))
            return model.epistemic_N(pairs.features_RD, pairs.responses_n2, model.rewards_KR(pairs.features_RD))

        raw = scores("raw", train)
        torch.testing.assert_close(
            scores("standardised", pool), (scores("raw", pool) - raw.mean()) / raw.std(correction=0)
        )

    @pytest.mark.parametrize(("n", "H"), [(1, 1), (5, 12), (40, 3), (2, 1)])
    def test_shrinkage_is_that_of_scikit_learn(self, n, H):
        points = np.random.default_rng(0).normal(size=(n, H)) * np.arange(1, H + 1)
        centred = points - points.mean(0)
        covariance = centred.T @ centred / n
        actual = oas_shrinkage(torch.from_numpy(covariance), n)
        if n > 1 and H > 1:
            assert actual == pytest.approx(oas(points)[1], rel=1e-9)
        else:
            assert actual == 1.0

    @pytest.mark.parametrize("points", [torch.zeros(1, 3), torch.ones(30, 3), torch.eye(3)[:2]])
    def test_few_or_equal_points_leave_densities_finite(self, points):
        density = ClassGaussian(points, torch.ones(len(points)).double())
        far = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1e3, 0, 0]])
        assert torch.isfinite(density.log_density(far)).all()
        assert density.log_density(points).min() > density.log_density(far)[2]


def test_ties_count_half_in_both_classes():
    pairs = LabelledPairs(torch.zeros(4, 1), torch.tensor([[0, 1], [2, 3]]), torch.tensor([0.5, 1.0]))
    responses, preferred, other = preferred_weights(pairs)
    table = {int(r): (float(p), float(o)) for r, p, o in zip(responses, preferred, other, strict=True)}
    assert table == {0: (0.5, 0.5), 1: (0.5, 0.5), 2: (1.0, 0.0), 3: (0.0, 1.0)}


def test_only_the_responses_of_the_pairs_are_kept():
    pairs = answered(4)
    used = only_used(pairs)
    assert len(used.features_RD) == len(torch.unique(pairs.responses_n2))
    assert torch.equal(used.features_RD[used.responses_n2], pairs.features_RD[pairs.responses_n2])
