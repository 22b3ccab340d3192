"""BAL-PM against its definition: all distances, every pick, pair by pair."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma

from harness.policies.bal_pm import BalPm, EntropyOnly
from harness.policies.policy import PoolView
from harness.streams import stream
from support.worlds import pool_of, view_of


def slow_scores(view: PoolView, policy: BalPm, picked: list[int], radius: dict[int, float]) -> dict[int, float]:
    """Score of every remaining pair: U_i + beta (log(2 D_i + 1e-4) - digamma(n_i + 1) / d)."""
    pool, prompts = view.pool, view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N]
    acquired = [*view.acquired_n.tolist(), *picked]
    scores = {}
    for place, pair in enumerate(view.unlabelled_U.tolist()):
        if pair in picked:
            continue
        distance = distances(prompts[acquired], prompts[pair])
        n = np.sum(distance <= radius[pair] if policy.variant == "as_coded" else distance < radius[pair])
        entropy = np.log(2 * radius[pair] + 1e-4) - digamma(n + 1) / float(policy.digamma_divisor)
        scores[pair] = (view.epistemic_U[place] if policy.uses_uncertainty else 0) + policy.beta * entropy
    assert len(pool) >= len(scores)
    return scores


def slow_radius(view: PoolView, policy: BalPm) -> dict[int, float]:
    prompts = view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N]
    radius = {}
    for pair in view.unlabelled_U.tolist():
        if policy.variant == "as_coded":
            near = np.sort(distances(prompts[view.unlabelled_U], prompts[pair]))
            radius[pair] = near[min(policy.k, len(near)) - 1]
        else:
            others = np.unique(prompts, axis=0)
            near = np.sort(distances(others[(others != prompts[pair]).any(1)], prompts[pair]))
            radius[pair] = near[min(policy.k, len(near)) - 1] if len(near) else 0.0
    return radius


def distances(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    a, b = torch.from_numpy(points), torch.from_numpy(point[None])
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")[:, 0].double().numpy()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["published", "as_coded"]),
    st.integers(1, 6),
    st.sampled_from([0.01, 1.0]),
    st.integers(1, 15),
    st.integers(2, 4),
    st.booleans(),
    st.sampled_from([BalPm, EntropyOnly]),
    st.integers(0, 999),
)
def test_greedy_selection_by_definition(variant, k, beta, prompts, responses, twins, policy_class, seed):
    policy = policy_class(variant=variant, k=k, beta=beta, shift_features=False)
    pool = pool_of(prompts=prompts, responses=responses, seed=seed, twins=twins)
    view = view_of(pool, acquired=len(pool) // 3, seed=seed)
    batch = max(1, len(view.unlabelled_U) // 2)
    selection = policy.select(view, batch, stream(0))
    radius, picked = slow_radius(view, policy), []
    for pair, score in zip(selection.pairs_B.tolist(), selection.scores_B, strict=True):
        scores = slow_scores(view, policy, picked, radius)
        assert score == pytest.approx(max(scores.values()), abs=1e-6)
        assert scores[pair] == pytest.approx(score, abs=1e-6)
        picked.append(pair)


def test_ties_go_to_the_lowest_pair():
    view = view_of(pool_of(constant=True), acquired=0)
    flat = BalPm().fill(view, np.zeros(len(view.unlabelled_U)), 5)
    assert flat.pairs_B.tolist() == [0, 1, 2, 3, 4]


def test_uncertainties_that_round_to_one_score_tie():
    """1e-18 is lost beside an entropy of order one; the lowest number wins, as in the authors' code."""
    view = view_of(pool_of(prompts=1, responses=4), acquired=0)
    uncertainty = np.zeros(6)
    uncertainty[3] = 1e-18
    selection = BalPm(k=1, beta=1.0, variant="as_coded", shift_features=False).fill(view, uncertainty, 2)
    assert selection.pairs_B.tolist() == [0, 1]


def test_more_weight_on_entropy_buys_more_prompts():
    pool = pool_of(prompts=30, responses=5)
    view = view_of(pool, acquired=10)
    unique = [
        len(np.unique(pool.prompt_of_pair_N[BalPm(k=3, beta=beta).select(view, 25, stream(0)).pairs_B]))
        for beta in (0.0, 0.01, 10.0)
    ]
    assert unique[0] < unique[2]
    assert unique == sorted(unique)


def test_variants_set_the_switches_and_given_switches_win():
    published, as_coded = BalPm(), BalPm(variant="as_coded")
    assert (published.neighbours, published.ball, published.shift_features) == ("distinct_prompts", "open", False)
    assert (as_coded.neighbours, as_coded.ball, as_coded.shift_features) == ("remaining_pairs", "closed", True)
    assert BalPm(variant="as_coded", ball="open").ball == "open"


def test_notes_split_the_winning_scores():
    view = view_of(pool_of())
    selection = BalPm().select(view, 6, stream(0))
    assert selection.notes["uncertainty_score"] + selection.notes["entropy_score"] == pytest.approx(
        selection.scores_B.mean()
    )
