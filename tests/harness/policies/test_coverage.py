"""Coverage by distances and clusters against its definitions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness import registry
from balbench.harness.policies import coverage
from balbench.harness.policies.coverage import KCenter, KMeans, TypiClust, _clusters, _distances, typicality
from balbench.harness.pool import blocks
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, responses_of, shuffled, view_of


def swapped(view):
    """The same round with the responses of every other pair shown in the other order."""
    swapped_N2 = view.pool.responses_of_pair_N2.copy()
    swapped_N2[::2] = swapped_N2[::2, ::-1]
    pool = replace(view.pool, responses_of_pair_N2=swapped_N2)
    return replace(view, index=type(view.index)(pool), splits=dict(view.splits) | {"pool": responses_of(pool)})


def at_prompts(coordinates, acquired=0, responses=2, seed=1):
    """A round whose prompts lie at given places."""
    coordinates = np.asarray(coordinates, np.float32)
    pool = pool_of(prompts=len(coordinates), responses=responses)
    return view_of(replace(pool, prompt_features_PQ=coordinates), acquired=acquired, seed=seed)


def places_slow(view, space):
    """Coordinates (N, Q) of all pairs."""
    if space == "prompt":
        return view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N].astype(np.float64)
    table_RH = view.embedding_RH.double().numpy()
    return np.array([table_RH[a] - table_RH[b] for a, b in view.pool.responses_of_pair_N2])


def distance_slow(a, b, space):
    actual = np.linalg.norm(a - b)
    return actual if space == "prompt" else min(actual, np.linalg.norm(a + b))


def k_center_slow(view, space, batch):
    """Farthest first over pairs; ties: fewest acquired pairs at the place, then order of identifiers."""
    place_N, taken, left = places_slow(view, space), view.acquired_n.tolist(), set(view.unlabelled_U.tolist())
    picks, scores = [], []
    for _ in range(batch):
        gap = {i: [distance_slow(place_N[i], place_N[j], space) for j in taken] for i in left}
        top = max(min(gap[i]) for i in left)
        tied = [i for i in left if min(gap[i]) >= top - 1e-5 * top - 1e-6]
        pick = min(tied, key=lambda i: (np.sum(np.array(gap[i]) < 1e-6), view.pool.pair_id_N[i]))
        picks.append(pick)
        scores.append(top)
        taken.append(pick)
        left.remove(pick)
    return picks, scores


class TestKCenter:
    @pytest.mark.parametrize("space", ["prompt", "pair"])
    @pytest.mark.parametrize("shape", [{}, {"twins": True}, {"dimension": 1}, {"constant": True}])
    def test_it_takes_the_farthest_pair_to_the_last(self, space, shape):
        view = view_of(pool_of(**shape))
        picks, scores = k_center_slow(view, space, len(view.unlabelled_U))
        actual = KCenter(space=space).select(view, len(picks), stream(0))
        np.testing.assert_array_equal(actual.pairs_B, picks)
        np.testing.assert_allclose(actual.scores_B, scores, rtol=1e-5, atol=1e-6)

    @given(st.integers(0, 10**6))
    @settings(max_examples=30, deadline=None)
    def test_ties_on_a_grid(self, seed):
        grid = np.random.default_rng(seed).integers(0, 3, size=(10, 2))
        view = at_prompts(grid, acquired=3, responses=3, seed=seed)
        picks, scores = k_center_slow(view, "prompt", 12)
        actual = KCenter(space="prompt").select(view, 12, stream(0))
        np.testing.assert_array_equal(actual.pairs_B, picks)
        np.testing.assert_allclose(actual.scores_B, scores, rtol=1e-5, atol=1e-6)

    def test_the_first_pair_of_all_is_drawn(self):
        view = view_of(pool_of(), acquired=0)
        batches = [KCenter().select(view, 4, stream(seed)) for seed in range(8)]
        assert len({batch.pairs_B[0] for batch in batches}) > 2
        for batch in batches:
            rest = view_of(pool_of(), acquired=0)
            rest = replace(
                rest, acquired_n=batch.pairs_B[:1], unlabelled_U=np.setdiff1d(rest.unlabelled_U, batch.pairs_B[:1])
            )
            np.testing.assert_array_equal(k_center_slow(rest, "pair", 3)[0], batch.pairs_B[1:])
            assert batch.scores_B[0] == 0

    def test_all_prompts_come_once_before_any_comes_twice(self):
        view = view_of(pool_of(prompts=10, responses=3), acquired=0)
        picks = KCenter(space="prompt").select(view, 30, stream(0)).pairs_B
        prompts = view.pool.prompt_of_pair_N[picks].reshape(3, 10)
        for turn in prompts:
            assert len(set(turn)) == 10


@pytest.mark.parametrize("name", ["k_center", "k_means", "typiclust", "max_herding", "u_herding"])
def test_it_does_not_matter_which_response_is_first(name):
    view = view_of(pool_of())
    policy = registry.load("policies", name)(space="pair")
    expected, actual = (policy.select(each, 12, stream(0)).pairs_B for each in (view, swapped(view)))
    np.testing.assert_array_equal(actual, expected)


BLOBS = [(0, 0), (100, 0), (0, 100), (100, 100)]


def blobs(sizes, seed=0):
    """Points around the corners of a large square."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(BLOBS[i], 1.0, size=(size, 2)) for i, size in enumerate(sizes)])


class TestKMeans:
    def test_each_blob_gives_the_pair_next_to_its_mean_and_the_largest_comes_first(self):
        places, sizes = blobs((5, 9, 7, 3)), (5, 9, 7, 3)
        view = at_prompts(places)
        actual = KMeans().select(view, 4, stream(0))
        start, expected = np.cumsum((0, *sizes)), []
        for blob in (1, 2, 0, 3):
            members = places.astype(np.float32)[start[blob] : start[blob + 1]].astype(np.float64)
            gap = np.linalg.norm(members - members.mean(axis=0), axis=1)
            expected.append((start[blob] + gap.argmin(), -gap.min()))
        np.testing.assert_array_equal(actual.pairs_B, [pick for pick, _ in expected])
        np.testing.assert_allclose(actual.scores_B, [score for _, score in expected], rtol=1e-4)

    def test_centres_are_means_of_the_pairs_nearest_to_them(self):
        rng = np.random.default_rng(2)
        points_XQ, weight_X = rng.normal(size=(80, 3)).astype(np.float32), rng.integers(1, 5, 80).astype(float)
        centre_KQ, cluster_X = _clusters(points_XQ, weight_X, 6, 300, stream(0))
        gap_XK = np.linalg.norm(points_XQ[:, None] - centre_KQ[None], axis=2)
        np.testing.assert_array_equal(cluster_X, gap_XK.argmin(axis=1))
        np.testing.assert_allclose(_distances(centre_KQ, points_XQ), gap_XK.T, rtol=1e-5)
        for k, centre in enumerate(centre_KQ):
            inside = cluster_X == k
            mean = np.average(points_XQ[inside], axis=0, weights=weight_X[inside])
            np.testing.assert_allclose(centre, mean, rtol=1e-4, atol=1e-5)

    def test_acquired_pairs_play_no_part(self):
        places = blobs((6, 6))
        view = at_prompts(places)
        kept = replace(view, acquired_n=np.arange(6), unlabelled_U=np.arange(6, 12))
        assert (KMeans().select(kept, 6, stream(0)).pairs_B >= 6).all()

    def test_with_fewer_points_than_picks_centres_are_served_again(self):
        view = at_prompts([[0, 0], [10, 0]], responses=3)  # three pairs at each of two points
        actual = KMeans().select(view, 6, stream(0))
        prompts = view.pool.prompt_of_pair_N[actual.pairs_B]
        assert all(set(turn) == {0, 1} for turn in prompts.reshape(3, 2))
        np.testing.assert_allclose(actual.scores_B, 0, atol=1e-6)

    def test_seeds_of_streams_differ_and_repeat(self):
        view = view_of(pool_of(prompts=60, responses=2))
        first, again, other = (KMeans().select(view, 10, stream(s)).pairs_B for s in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert set(first) != set(other)

    def test_many_dimensions_start_from_a_projection(self, monkeypatch):
        monkeypatch.setattr(coverage, "SEED_DIMENSIONS", 3)
        places = np.repeat(20 * np.eye(6), 8, axis=0) + np.random.default_rng(1).normal(size=(48, 6))
        view = at_prompts(places)
        order = np.random.default_rng(5).permutation(len(view.pool))
        picks = KMeans().select(view, 6, stream(3)).pairs_B
        np.testing.assert_array_equal(order[KMeans().select(shuffled(view, order), 6, stream(3)).pairs_B], picks)
        assert len(set(picks // 8)) >= 4


def typicality_slow(points, neighbours):
    actual = []
    for i, a in enumerate(points):
        gaps = sorted(np.linalg.norm(a - b) for j, b in enumerate(points) if j != i)[
            : min(neighbours, len(points) // 2)
        ]
        actual.append(1 / ((np.mean(gaps) if gaps else 0) + 1e-5))
    return np.array(actual)


class TestTypiClust:
    @pytest.mark.parametrize("M", [1, 2, 3, 30, 50])
    def test_typicality_is_its_definition(self, M, monkeypatch):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * M * 7)  # seven rows a block
        points = np.random.default_rng(M).normal(size=(M, 3)).astype(np.float32)
        np.testing.assert_allclose(typicality(points, 20), typicality_slow(points.astype(float), 20), rtol=1e-6)

    def test_points_that_coincide_are_finite(self):
        np.testing.assert_allclose(typicality(np.ones((9, 2), np.float32), 20), 1e5)

    def test_the_largest_clusters_without_labels_give_their_most_typical_point(self):
        sizes, places = (8, 12, 10, 7), blobs((8, 12, 10, 7)).astype(np.float32)
        view = at_prompts(places)
        acquired = np.array([10])  # in the second blob, the largest
        view = replace(view, acquired_n=acquired, unlabelled_U=np.setdiff1d(view.unlabelled_U, acquired))
        actual = TypiClust().select(view, 3, stream(0))  # 1 + 3 clusters
        start = np.cumsum((0, *sizes))
        for pick, score, blob in zip(actual.pairs_B, actual.scores_B, (2, 0, 3), strict=True):
            typical = typicality_slow(places[start[blob] : start[blob + 1]].astype(float), 20)
            assert pick == start[blob] + typical.argmax()
            assert score == pytest.approx(typical.max(), rel=1e-6)

    def test_when_all_clusters_have_labels_those_with_the_fewest_go_first_without_what_is_acquired(self):
        sizes, places = (8, 12), blobs((8, 12)).astype(np.float32)
        view = at_prompts(places)
        acquired = np.array([0, 10, 11])
        view = replace(view, acquired_n=acquired, unlabelled_U=np.setdiff1d(view.unlabelled_U, acquired))
        actual = TypiClust(clusters=2).select(view, 4, stream(0)).pairs_B
        assert [int(pick >= sizes[0]) for pick in actual] == [0, 1, 0, 1]  # acquired 1:2, 2:2, 2:3, 3:3
        left = np.setdiff1d(np.arange(8), [0])
        assert actual[0] == left[typicality_slow(places[left].astype(float), 20).argmax()]
        left = np.setdiff1d(left, actual[0])
        assert actual[2] == left[typicality_slow(places[left].astype(float), 20).argmax()]

    def test_small_clusters_wait(self):
        view = at_prompts(blobs((8, 3)))
        picks = TypiClust(clusters=2).select(view, 11, stream(0)).pairs_B
        assert set(picks[:8]) == set(range(8))
        assert TypiClust(clusters=2, smallest=3).select(view, 2, stream(0)).pairs_B.max() >= 8

    def test_prompts_count_once_and_give_a_second_pair_last(self):
        view = at_prompts(blobs((6, 6)), responses=3)
        picks = TypiClust(clusters=2).select(view, 24, stream(0)).pairs_B
        prompts = view.pool.prompt_of_pair_N[picks]
        assert len(set(prompts[:12])) == len(set(prompts[12:])) == 12
