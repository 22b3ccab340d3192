"""The pool as duels: both directions of each pair, in any storage order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.pool.duels import Segments
from balbench.harness.pool.index import PoolIndex
from balbench.harness.pool.pairs import PreferencePool
from balbench.testing.examples import pool_of, reordered
from support.duels import thinned


def test_two_responses_that_are_recorded_twice_have_four_duels():
    pool = pool_of(prompts=1, responses=2)
    twice = PreferencePool(
        pool.response_features_RD,
        pool.prompt_features_PQ,
        pool.prompt_of_response_R,
        np.array([[0, 1], [1, 0]]),
        np.array(["b", "a"]),
    )
    duels = PoolIndex(twice).duels.duels
    assert duels.pair_E.tolist() == [1, 0, 1, 0]  # of two equal duels, the pair with the first identifier comes first


def test_each_pair_occurs_in_both_directions_sorted_by_prompt_and_leader():
    pool = thinned(pool_of(responses=5), 0.6)
    index = PoolIndex(pool).duels
    duels = index.duels
    met = np.stack([index.response_A[duels.leader_E], index.response_A[duels.partner_E]], axis=1)
    expected = pool.responses_of_pair_N2[duels.pair_E]
    assert ((met == expected).all(axis=1) | (met == expected[:, ::-1]).all(axis=1)).all()
    assert np.bincount(duels.pair_E).tolist() == [2] * len(pool)
    assert len(np.unique(met, axis=0)) == 2 * len(pool)
    keys = list(zip(duels.prompt_E, duels.leader_E, duels.partner_E, strict=True))
    assert keys == sorted(keys)
    np.testing.assert_array_equal(index.prompt_A[duels.leader_E], duels.prompt_E)


def test_responses_and_prompts_without_pairs_are_left_out():
    pool = thinned(pool_of(responses=4), 0.25)
    index = PoolIndex(pool).duels
    assert sorted(index.response_A) == np.unique(pool.responses_of_pair_N2).tolist()
    assert len(index.response_A) < len(pool.prompt_of_response_R)
    assert index.prompts == len(np.unique(pool.prompt_of_pair_N)) < 12


def test_arms_and_prompts_do_not_depend_on_how_the_pool_is_stored():
    pool = thinned(pool_of(responses=4), 0.7)
    moved, pair_order, response_order = reordered(pool, seed=3)
    one, two = PoolIndex(pool).duels, PoolIndex(moved).duels
    np.testing.assert_array_equal(response_order[two.response_A], one.response_A)
    np.testing.assert_array_equal(two.prompt_A, one.prompt_A)
    np.testing.assert_array_equal(two.duels.leader_E, one.duels.leader_E)
    np.testing.assert_array_equal(pair_order[two.duels.pair_E], one.duels.pair_E)


def test_open_duels_are_the_duels_of_the_given_pairs():
    index = PoolIndex(pool_of()).duels
    remaining = index.open_duels(np.array([3, 7, 20]))
    assert sorted(remaining.pair_E) == [3, 3, 7, 7, 20, 20]
    np.testing.assert_array_equal(index.duels.pair_E[remaining.number_E], remaining.pair_E)


@given(
    runs=st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=5), min_size=1, max_size=8),
)
@settings(deadline=None)
def test_segments_reduce_as_loops_do(runs):
    label_E = np.concatenate([[3 * number] * len(run) for number, run in enumerate(runs)])
    value_E = np.concatenate(runs).astype(float)
    segments = Segments(label_E)
    assert segments.label_S.tolist() == [3 * number for number in range(len(runs))]
    assert segments.size_S.tolist() == [len(run) for run in runs]
    assert segments.max(value_E).tolist() == [max(run) for run in runs]
    assert segments.min(value_E).tolist() == [min(run) for run in runs]
    inside = segments.argmax(value_E) - segments.start_S
    assert inside.tolist() == [run.index(max(run)) for run in runs]
    np.testing.assert_array_equal(segments.spread(segments.label_S), label_E)
