"""Stochastic policies `as_coded` and one_per_prompt against the authors' own scores and selections."""

import numpy as np
import pytest
from scipy.stats import rankdata

from balbench.harness.policies.noise import coded_generator, gumbel
from balbench.harness.policies.ranking import one_per_group
from balbench.harness.policies.stochastic import PowerBald, power_scores, soft_rank_scores, softmax_scores

SCORES = {
    "softmax_bald": (softmax_scores, ["50_b8_s42", "500_b8_s42", "300_b4_s42_ties"]),
    "power_bald": (power_scores, ["50_b8_s42", "500_b8_s42", "2000_b1_s7"]),
    "softrank_bald": (soft_rank_scores, ["50_b8_s42", "2000_b1_s7"]),
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, (_, names) in SCORES.items() for name in names])
def test_scores_and_selection(golden, kind, name):
    case = golden(f"{kind}_{name}")
    actual = SCORES[kind][0](case["uncertainty_f32"], case["gumbel_noise"])
    np.testing.assert_allclose(actual, case["out_scores"], rtol=0, atol=1e-6)
    order = np.argsort(-actual, kind="stable")[: int(case["picks"])]
    np.testing.assert_array_equal(case["ids"][order], case["out_selected_ids"])


@pytest.mark.parametrize("kind", SCORES)
def test_noise_as_coded(golden, kind):
    case = golden(f"{kind}_50_b8_s42")
    actual = gumbel(coded_generator().uniform(size=50), float(case["gumbel_beta"]))
    np.testing.assert_allclose(actual, case["gumbel_noise"], rtol=1e-12)


def test_ranks_of_ties(golden):
    """Among ties the authors' ranks are those of an unstable sort; ours follow the numbers. All else is the same."""
    case = golden("softrank_bald_300_b4_s42_ties")
    uncertainty = case["uncertainty_f32"]

    def ranks(scores):
        return np.round(1 / (np.exp(scores - case["gumbel_noise"]) - 1e-5)).astype(int)

    theirs, ours = ranks(case["out_scores"]), ranks(soft_rank_scores(uncertainty, case["gumbel_noise"]))
    np.testing.assert_array_equal(ours, rankdata(-uncertainty, method="ordinal"))
    for tied in (uncertainty == value for value in np.unique(uncertainty)):
        assert sorted(ours[tied]) == sorted(theirs[tied])


def test_annealing_as_coded(golden):
    case = golden("power_annealing")
    rounds = int(case["annealing_epochs"])
    policy = PowerBald(beta=float(case["gumbel_beta"]), anneal_rounds=rounds, variant="as_coded")
    actual = [policy.beta_at(number) for number in range(len(case["out_beta_by_epoch"]))]
    np.testing.assert_allclose(actual, case["out_beta_by_epoch"], rtol=1e-12)


def test_one_pair_a_group(golden):
    case = golden("clustered_rank")
    order = one_per_group(case["uncertainty_f32"], case["group"])[: int(case["picks"])]
    np.testing.assert_array_equal(case["ids"][order], case["out_selected_ids"])
