"""Random, BALD and PowerBALD against their definitions."""

import numpy as np
import pytest

from harness.policies.policy import best, check_range
from harness.policies.random import FullData, Random
from harness.policies.stochastic import PowerBald, power_scores
from harness.policies.uncertainty import Bald, PredictiveEntropy, Variance
from harness.streams import stream
from support.worlds import pool_of, view_of


@pytest.mark.parametrize(("policy", "kind"), [(Bald, "epistemic"), (PredictiveEntropy, "predictive"), (Variance, "variance")])
def test_the_most_uncertain_are_taken_in_order(policy, kind):
    view = view_of(pool_of())
    selection = policy().select(view, 5, stream(0))
    ranked = sorted(zip(-view.score_U(kind), view.unlabelled_U, strict=True))[:5]
    assert selection.pairs_B.tolist() == [pair for _, pair in ranked]
    np.testing.assert_array_equal(selection.scores_B, [-score for score, _ in ranked])


def test_ties_go_to_the_lowest_number():
    view = view_of(pool_of(), acquired=0)
    assert best(view, np.ones(len(view.unlabelled_U)), 3, (0, 1)).pairs_B.tolist() == [0, 1, 2]


@pytest.mark.parametrize("scores", [[0.0, 2.0], [-1.0, 0.5], [0.5, np.nan]])
def test_scores_out_of_range_are_an_error(scores):
    with pytest.raises(ValueError, match="scores must lie in"):
        check_range(np.array(scores), (0.0, 1.0))


def test_random_is_uniform_over_pairs():
    view = view_of(pool_of(), acquired=0)
    picks = np.concatenate([Random().select(view, 3, stream(seed, "policy")).pairs_B for seed in range(2000)])
    share = np.bincount(picks, minlength=36) / len(picks)
    np.testing.assert_allclose(share, 1 / 36, atol=0.01)


def test_power_bald_samples_in_proportion_to_the_power_of_the_score():
    """The Gumbel-max trick: P(first pick = i) = (U_i + 1e-5)^beta / sum_j (U_j + 1e-5)^beta."""
    view = view_of(pool_of(prompts=2), acquired=0)
    weight = (view.epistemic_U + 1e-5) ** 2.0
    firsts = [PowerBald(beta=2.0).select(view, 1, stream(seed, "policy")).pairs_B[0] for seed in range(4000)]
    share = np.bincount(firsts, minlength=6) / len(firsts)
    np.testing.assert_allclose(share, weight / weight.sum(), atol=0.03)


@pytest.mark.parametrize("name", ["50_b8_s42", "500_b8_s42", "2000_b1_s7"])
def test_power_scores_are_the_authors(golden, name):
    case = dict(np.load(golden / f"power_bald_{name}.npz"))
    found = power_scores(case["uncertainty_f32"], case["gumbel_noise"])
    np.testing.assert_allclose(found, case["out_scores"], rtol=0, atol=1e-6)


def test_full_data_buys_everything_at_once():
    assert FullData().acquires_all
