"""Herding against the definition of generalised coverage, with the kernel written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from balbench.harness.policies import herding
from balbench.harness.policies.herding import Coverage, MaxHerding, UHerding, smallest_distance
from balbench.harness.policies.points import Points, points_of
from balbench.harness.streams import stream
from balbench.testing.examples import LinearRewards, pool_of, view_of


def places_slow(view, space):
    """Coordinates (N, Q) of all pairs, of length 1."""
    if space == "prompt":
        place_NQ = view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N].astype(np.float64)
    else:
        table_RH = view.embedding_RH.double().numpy()
        place_NQ = np.array([table_RH[a] - table_RH[b] for a, b in view.pool.responses_of_pair_N2])
    length_N1 = np.linalg.norm(place_NQ, axis=1, keepdims=True)
    return place_NQ / np.where(length_N1 > 0, length_N1, 1)


def squared_slow(view, space):
    place_NQ = places_slow(view, space)
    squared_NN = ((place_NQ[:, None] - place_NQ[None]) ** 2).sum(axis=2)
    if space == "pair":
        squared_NN = np.minimum(squared_NN, ((place_NQ[:, None] + place_NQ[None]) ** 2).sum(axis=2))
    return squared_NN


def herd_slow(view, space, weight_N, lengthscale, batch):
    """Greedy mean_n u_n max(0, k(x_n, x) - cover_n) over all pairs of the pool."""
    squared_NN, N = squared_slow(view, space), len(view.pool)
    kernel_NN = np.exp(-squared_NN / lengthscale**2)
    taken, left, picks, scores = view.acquired_n.tolist(), set(view.unlabelled_U.tolist()), [], []
    for _ in range(batch):
        cover_N = kernel_NN[:, taken].max(axis=1) if taken else np.zeros(N)
        gain = {i: np.sum(weight_N * np.maximum(0, kernel_NN[:, i] - cover_N)) / N for i in left}
        top = max(gain.values())
        if top <= 1e-7 * weight_N.sum() / N:
            top = 0.0
        tied = [i for i in left if gain[i] >= top * (1 - 2e-6)]
        here = {i: np.sum(squared_NN[i, taken] < 1e-12) for i in tied}
        pick = min(tied, key=lambda i: (here[i], -weight_N[i], view.pool.pair_id_N[i]))
        picks.append(pick)
        scores.append(top)
        taken.append(pick)
        left.remove(pick)
    return picks, scores


def margin_slow(view, temperature=1.0):
    rewards_KR = view.rewards_KR.double().numpy()
    weight_N = np.zeros(len(view.pool))  # labelled pairs are certain
    for i in view.unlabelled_U:
        first, second = view.pool.responses_of_pair_N2[i]
        p = np.mean(1 / (1 + np.exp((rewards_KR[:, second] - rewards_KR[:, first]) / temperature)))
        weight_N[i] = 1 - abs(p - (1 - p))
    return weight_N


@pytest.fixture(params=["large", "small"], autouse=True)
def block(request, monkeypatch):
    """Everything in one block, or many blocks and few rows kept."""
    if request.param == "small":
        monkeypatch.setattr(herding, "BLOCK", 5)
        monkeypatch.setattr(herding, "CACHE_BYTES", 4 * 8 * 7)


SHAPES = [{}, {"twins": True}, {"prompts": 1, "responses": 8}, {"constant": True}, {"prompts": 40, "responses": 2}]


@pytest.mark.parametrize("space", ["prompt", "pair"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("lengthscale", [1.0, 0.2])
def test_max_herding_is_greedy_coverage_to_the_last_pair(space, shape, lengthscale):
    view = view_of(pool_of(**shape))
    policy = MaxHerding(space=space, lengthscale=lengthscale)
    picks, scores = herd_slow(view, space, np.ones(len(view.pool)), lengthscale, len(view.unlabelled_U))
    actual = policy.select(view, len(picks), stream(0))
    np.testing.assert_allclose(actual.scores_B, scores, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(actual.pairs_B, picks)


@pytest.mark.parametrize("space", ["prompt", "pair"])
@given(seed=st.integers(0, 10**6), acquired=st.integers(0, 6))
@settings(max_examples=15, deadline=None)
def test_u_herding_is_greedy_uncertainty_coverage(space, seed, acquired):
    view = view_of(pool_of(seed=seed), acquired=acquired, seed=seed)
    picks, scores = herd_slow(view, space, margin_slow(view), 0.7, 20)
    actual = UHerding(space=space, lengthscale=0.7).select(view, 20, stream(0))
    np.testing.assert_allclose(actual.scores_B, scores, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(actual.pairs_B, picks)


def test_the_lengthscale_is_the_smallest_distance_of_acquired_points():
    view = view_of(pool_of(prompts=30, responses=2), acquired=8)
    squared_nn = squared_slow(view, "prompt")[np.ix_(view.acquired_n, view.acquired_n)]
    expected = np.sqrt(squared_nn[np.triu_indices(8, 1)].min())
    actual = UHerding().select(view, 5, stream(0))
    assert actual.diagnostics["coverage_lengthscale"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(actual.pairs_B, herd_slow(view, "prompt", margin_slow(view), expected, 5)[0])


@pytest.mark.parametrize("acquired", [0, 1, 5])
def test_the_lengthscale_is_one_without_two_acquired_places(acquired):
    view = view_of(pool_of(prompts=1, responses=6), acquired=acquired)
    assert smallest_distance(points_of(view, "prompt").normalised()) == 1


def test_the_margin_is_of_the_mean_probability_at_a_temperature():
    view = view_of(pool_of())
    weight_N = margin_slow(view, 2.5)
    np.testing.assert_allclose(UHerding(temperature=2.5)._weight_U(view), weight_N[view.unlabelled_U], rtol=1e-6)
    picks, _ = herd_slow(view, "pair", weight_N, 0.5, 10)
    actual = UHerding(space="pair", temperature=2.5, lengthscale=0.5).select(view, 10, stream(0))
    np.testing.assert_array_equal(actual.pairs_B, picks)


def test_another_uncertainty_makes_no_use_of_temperature():
    with pytest.raises(ValidationError, match="temperature"):
        UHerding(uncertainty="epistemic", temperature=2.0)
    view = view_of(pool_of())
    np.testing.assert_array_equal(UHerding(uncertainty="variance")._weight_U(view), view.score_U("variance"))


class Certain(LinearRewards):
    """A posterior whose own measure is below 0."""

    epistemic_range = (-np.inf, np.inf)

    def epistemic_N(self, features_RD, responses_N2, rewards_KR):
        return -1.0 - torch.arange(len(responses_N2), dtype=torch.float64)


def test_a_measure_below_zero_is_lifted():
    view = view_of(pool_of(), model=Certain(4))
    weight_U = UHerding(uncertainty="epistemic")._weight_U(view)
    np.testing.assert_array_equal(weight_U, np.arange(len(weight_U))[::-1])


def test_a_point_of_certain_pairs_is_worth_nothing():
    view = view_of(pool_of(), members=1)
    view.rewards_KR.mul_(1e6)  # margins of exactly 0
    actual = UHerding().select(view, len(view.unlabelled_U), stream(0))
    np.testing.assert_array_equal(actual.scores_B, 0)
    assert len(set(actual.pairs_B.tolist())) == len(view.unlabelled_U)


@pytest.mark.parametrize("lengthscale", [1.0, 1e-3])
def test_gains_by_blocks_and_by_rows_are_the_definition(lengthscale):
    rng = np.random.default_rng(4)
    base = rng.normal(size=(9, 30))
    near = base + 3e-4 * rng.normal(size=(9, 30))  # neighbours at about 1e-3 / sqrt(length)
    points = Points(
        torch.from_numpy(np.concatenate([base, near])).float(), np.arange(2, 18), np.arange(2), np.arange(16)
    )
    points = points.normalised()
    place, weight_X = points.points_XQ.double().numpy(), rng.random(18)
    kernel = np.exp(-((place[:, None] - place[None]) ** 2).sum(axis=2) / lengthscale**2)
    above = np.maximum(0, kernel - kernel[:, :2].max(axis=1, keepdims=True))
    expected = (weight_X[2:, None] * above[2:, 2:]).sum(axis=0)
    cover = Coverage(points, weight_X, lengthscale)
    np.testing.assert_allclose(cover.all_gains(), expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(cover.gains(np.arange(16)), expected, rtol=2e-4, atol=1e-6)
    cover.cover(3)
    assert cover.gains(np.array([3])) == 0


def test_when_a_pick_changes_most_gains_they_are_done_at_once(monkeypatch):
    passes = []
    every = Coverage.all_gains
    monkeypatch.setattr(Coverage, "all_gains", lambda self: passes.append(1) or every(self))
    monkeypatch.setattr(herding, "CACHE_BYTES", 0)
    view = view_of(pool_of(prompts=300, responses=2, dimension=2), acquired=0)
    picks, _ = herd_slow(view, "prompt", np.ones(300), 1.0, 6)
    np.testing.assert_array_equal(MaxHerding().select(view, 6, stream(0)).pairs_B, picks)
    assert len(passes) > 1


def test_uncertainty_moves_a_batch_to_uncertain_prompts():
    view = view_of(pool_of(prompts=40, responses=2))
    weight_N = margin_slow(view)
    plain, weighted = (
        policy.select(view, 8, stream(0)).pairs_B for policy in (MaxHerding(), UHerding(lengthscale=0.1))
    )
    assert weight_N[weighted].mean() > weight_N[plain].mean() + 0.1


def test_acquired_prompts_are_covered():
    pool = pool_of(prompts=10, responses=3)
    view = replace(
        view_of(pool), acquired_n=np.arange(0, 15, 3), unlabelled_U=np.setdiff1d(np.arange(30), np.arange(0, 15, 3))
    )
    prompts = pool.prompt_of_pair_N[MaxHerding(lengthscale=0.1).select(view, 5, stream(0)).pairs_B]
    assert set(prompts) == set(range(5, 10))
