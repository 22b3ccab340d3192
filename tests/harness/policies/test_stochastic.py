"""Stochastic policies against the distributions that they are meant to sample."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from balbench.harness.policies.noise import coded_order
from balbench.harness.policies.stochastic import PowerBald, SoftmaxBald, SoftRankBald, power_scores, soft_rank_scores
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of


def weights(policy, uncertainty: np.ndarray) -> np.ndarray:
    """What the probability of the first pick is proportional to (Kirsch et al. 2023, table 1)."""
    if isinstance(policy, SoftmaxBald):
        return np.exp(policy.beta * uncertainty)
    if isinstance(policy, PowerBald):
        return (uncertainty + 1e-5) ** policy.beta
    rank = np.array([1 + sum(other > one for other in uncertainty) for one in uncertainty])
    return (1 / rank + 1e-5) ** policy.beta


@pytest.mark.parametrize("policy", [SoftmaxBald(beta=4.0), PowerBald(beta=2.0), SoftRankBald()], ids=type)
def test_a_batch_is_a_sample_without_replacement(policy):
    """P(i, then j) = w_i / sum w x w_j / (sum w - w_i)."""
    view = view_of(pool_of(prompts=2), acquired=0)
    weight = weights(policy, view.epistemic_U)
    share = weight / weight.sum()
    expected = {(i, j): share[i] * share[j] / (1 - share[i]) for i, j in permutations(range(6), 2)}
    batches = [tuple(policy.select(view, 2, stream(seed, "policy")).pairs_B.tolist()) for seed in range(6000)]
    for batch, probability in expected.items():
        error = 4.5 * np.sqrt(probability * (1 - probability) / len(batches))  # 90 comparisons
        assert batches.count(batch) / len(batches) == pytest.approx(probability, abs=error)


@pytest.mark.parametrize("policy", [SoftmaxBald, PowerBald, SoftRankBald])
@pytest.mark.parametrize("kind", ["epistemic", "predictive", "variance"])
def test_with_hardly_any_noise_the_most_uncertain_are_taken(policy, kind):
    view = view_of(pool_of())
    selection = policy(beta=1e9, uncertainty=kind).select(view, 5, stream(0))
    expected = view.unlabelled_U[np.argsort(-view.score_U(kind), kind="stable")[:5]]
    np.testing.assert_array_equal(selection.pairs_B, expected)


def test_ties_have_ranks_of_their_own():
    scores = soft_rank_scores(np.array([0.2, 0.5, 0.2, 0.1, 0.5]), np.zeros(5))
    np.testing.assert_allclose(scores, np.log(1 / np.array([3.0, 1, 4, 5, 2]) + 1e-5))


def test_negative_uncertainties_have_no_powers():
    with pytest.raises(ValueError, match="power_bald needs uncertainties of 0 or more"):
        power_scores(np.array([0.1, -0.2]), np.zeros(2))


def test_noise_is_new_in_each_round_and_run():
    view = view_of(pool_of())
    batches = {
        tuple(SoftRankBald().select(view, 8, stream(seed, "policy", number)).pairs_B)
        for seed in range(3)
        for number in range(3)
    }
    assert len(batches) == 9


def test_noise_as_coded_is_the_same_by_position():
    policy = SoftmaxBald(beta=1.0, variant="as_coded")
    for seed, number in ((0, 1), (0, 2), (4, 2)):
        view = replace(view_of(pool_of(), seed=number), round=number)
        order = coded_order(view, stream(seed))
        noise = -np.log(-np.log(np.random.RandomState(42).uniform(size=len(order))))
        expected = view.epistemic_U[order] + noise
        selection = policy.select(view, 8, stream(seed, "policy", number))
        np.testing.assert_allclose(selection.scores_B, np.sort(expected)[::-1][:8])
        np.testing.assert_array_equal(selection.pairs_B, view.unlabelled_U[order][np.argsort(-expected)[:8]])


def test_annealing_reaches_beta_after_its_rounds():
    policy = PowerBald(beta=8.0, anneal_rounds=15)
    actual = [policy.beta_at(number) for number in range(20)]
    np.testing.assert_allclose(np.diff(actual)[:15], 7.75 / 15)
    assert actual[0] == 0.25
    assert actual[15:] == [8.0] * 5
    assert PowerBald(beta=3.0).beta_at(0) == 3.0


def test_annealing_makes_early_batches_more_random():
    """The batch's mean uncertainty at beta 0.25 (round 0) is below that at beta 8 (round 15)."""
    view = view_of(pool_of())
    policy = PowerBald(anneal_rounds=15)
    means = [
        np.mean(
            [
                view.epistemic_U[np.isin(view.unlabelled_U, policy.select(at, 5, stream(seed)).pairs_B)].mean()
                for seed in range(50)
            ]
        )
        for at in (replace(view, round=0), replace(view, round=15))
    ]
    assert means[0] < 0.8 * means[1]
