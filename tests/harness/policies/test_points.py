"""Places of pairs, their distances and the order in which their pairs are offered."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from balbench.harness.policies.points import Points, RemainingPairs, points_of, squared_distances, tied_at_top
from balbench.harness.pool import blocks
from balbench.testing.examples import pool_of, responses_of, shuffled, view_of


def swapped(view):
    """The same round with the responses of every other pair shown in the other order."""
    swapped_N2 = view.pool.responses_of_pair_N2.copy()
    swapped_N2[::2] = swapped_N2[::2, ::-1]
    pool = replace(view.pool, responses_of_pair_N2=swapped_N2)
    return replace(view, index=type(view.index)(pool), splits=dict(view.splits) | {"pool": responses_of(pool)})


def differences_slow(view, pairs):
    table_RH = view.embedding_RH.double().numpy()
    return np.array([table_RH[a] - table_RH[b] for a, b in view.pool.responses_of_pair_N2[pairs]])


def distance_slow(a, b, signed):
    actual = np.linalg.norm(a - b)
    return actual if signed else min(actual, np.linalg.norm(a + b))


def places_slow(view, space):
    """Coordinates of the unlabelled and of the acquired pairs."""
    if space == "pair":
        return differences_slow(view, view.unlabelled_U), differences_slow(view, view.acquired_n)
    prompts_NQ = view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N].astype(np.float64)
    return prompts_NQ[view.unlabelled_U], prompts_NQ[view.acquired_n]


@pytest.mark.parametrize("space", ["prompt", "pair"])
def test_pairs_lie_where_they_should_up_to_their_sign(space):
    view = view_of(pool_of(twins=True))
    points = points_of(view, space)
    for point, pairs in ((points.point_U, 0), (points.point_n, 1)):
        expected = places_slow(view, space)[pairs]
        actual = points.points_XQ[torch.from_numpy(point)].double().numpy()
        gap = [distance_slow(a, b, points.signed) for a, b in zip(actual, expected, strict=True)]
        np.testing.assert_allclose(gap, 0, atol=1e-6)


def test_prompts_with_the_same_features_are_one_point():
    points = points_of(view_of(pool_of(prompts=12, twins=True)), "prompt")
    assert len(points) == 6
    assert points.weight_X().sum() == len(points.point_U)
    assert points.acquired_X.sum() == len(points.point_n)


def test_only_prompts_of_pairs_count():
    view = view_of(pool_of(prompts=12))
    pool = view.pool
    kept = pool.prompt_of_pair_N < 5
    fewer = replace(pool, responses_of_pair_N2=pool.responses_of_pair_N2[kept], pair_id_N=pool.pair_id_N[kept])
    assert len(points_of(view_of(fewer), "prompt")) == 5


@pytest.mark.parametrize("space", ["prompt", "pair"])
def test_points_do_not_depend_on_storage_or_on_which_response_is_first(space):
    view = view_of(pool_of())
    order = np.random.default_rng(5).permutation(len(view.pool))
    expected = points_of(view, space)
    for other in (swapped(view), shuffled(view, order)):
        assert torch.equal(points_of(other, space).points_XQ, expected.points_XQ)


def test_equal_and_opposite_differences_are_one_point():
    pool = pool_of(prompts=3, responses=2)
    features = np.array([[2, 1], [1, 3], [1, 3], [2, 1], [5, 5], [5, 5]], np.float32)  # D, -D, 0
    view = view_of(replace(pool, response_features_RD=features, prompt_features_PQ=features[:3]), acquired=0)
    points = points_of(view, "pair")
    np.testing.assert_array_equal(np.unique(points.points_XQ.numpy(), axis=0), [[0, 0], [1, -2]])
    assert points.point_U[0] == points.point_U[1] != points.point_U[2]


@pytest.mark.parametrize("space", ["prompt", "pair"])
def test_distances_equal_their_definition(space, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * 5 * 3)  # a few rows a block
    view = view_of(pool_of(dimension=3, twins=True))
    points = points_of(view, space)
    places = points.points_XQ.double().numpy()
    acquired = np.flatnonzero(points.acquired_X)
    slow_XX = np.array([[distance_slow(a, b, points.signed) for b in places] for a in places])
    np.testing.assert_allclose(points.distance_to(4), slow_XX[4], rtol=1e-6)
    np.testing.assert_allclose(points.distance_to_acquired(), slow_XX[:, acquired].min(axis=1), rtol=1e-9, atol=1e-12)


def test_nothing_acquired_is_infinitely_far():
    assert np.isinf(points_of(view_of(pool_of(), acquired=0), "pair").distance_to_acquired()).all()


def test_points_that_coincide_up_to_rounding_are_at_zero():
    a_1Q = 1e3 * torch.rand(1, 500, dtype=torch.float64)
    assert squared_distances(a_1Q, a_1Q * (1 + 1e-9), signed=True) == 0
    assert squared_distances(a_1Q, -a_1Q, signed=False) == 0
    assert squared_distances(a_1Q, a_1Q * (1 + 1e-5), signed=True) > 0


def test_normalised_points_have_length_one_and_zero_stays_zero():
    points = Points(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), np.array([0]), np.array([1]), np.array([0]))
    np.testing.assert_allclose(points.normalised().points_XQ, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_orientation_does_not_depend_on_signs_and_keeps_neighbours_together():
    rng = np.random.default_rng(3)
    base = np.repeat([[5.0, 0.0, 0.0], [4.0, -3.0, 0.0]], 20, axis=0) + rng.normal(size=(40, 3))
    signs = rng.choice([-1.0, 1.0], size=(40, 1))
    plain, turned = (
        Points(torch.from_numpy(x).float(), np.arange(40), np.arange(0), np.arange(40), signed=False).oriented()
        for x in (base, base * signs)
    )
    np.testing.assert_allclose(np.abs(turned), np.abs(plain), rtol=1e-6)
    assert len(np.unique(np.sign((turned * plain).sum(axis=1)))) == 1  # all the same way round
    assert len(np.unique(np.sign(turned[:, 0]))) == 1


def test_offers_go_to_the_fewest_acquired_then_by_preference_then_by_identifier():
    points = Points(torch.eye(3), np.array([0, 0, 1, 1, 2]), np.array([2]), np.array([4, 3, 2, 1, 0]))
    remaining = RemainingPairs(points, np.array([0.5, 0.5, 0.1, 0.9, 7.0]))
    every = np.arange(3)
    assert [remaining.take(every) for _ in range(5)] == [(3, 1), (1, 0), (4, 2), (0, 0), (2, 1)]


def test_a_tie_is_relative_to_the_highest_score():
    top, tied = tied_at_top(np.array([9.0, 2.0, 2.0 - 1e-7, 1.9]), np.array([False, True, True, True]))
    assert top == 2
    np.testing.assert_array_equal(tied, [1, 2])
    np.testing.assert_array_equal(tied_at_top(np.array([-1.0, -1.0 - 1e-7, -2.0]), np.ones(3, bool))[1], [0, 1])
