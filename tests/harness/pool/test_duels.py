"""A pool read as duels: against a dictionary of pairs, and in any storage order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.pool.duels import Segments
from balbench.harness.pool.index import PoolIndex
from balbench.harness.pool.pairs import PreferencePool
from balbench.testing.examples import pool_of, reordered
from support.duels import thinned


def recorded(pool: PreferencePool) -> dict[tuple[int, int], int]:
    """The pair of two responses in either order; of several the one with the first identifier."""
    found: dict[tuple[int, int], int] = {}
    for pair in np.argsort(pool.pair_id_N)[::-1]:
        first, second = pool.responses_of_pair_N2[pair]
        found[int(first), int(second)] = found[int(second), int(first)] = int(pair)
    return found


@pytest.mark.parametrize("pool", [pool_of(), pool_of(responses=2), thinned(pool_of(responses=5), 0.5)])
def test_every_pair_is_found_in_either_order_and_no_other_is(pool):
    known, responses = recorded(pool), len(pool.prompt_of_response_R)
    first, second = np.indices((responses, responses)).reshape(2, -1)
    wanted = [known.get((int(i), int(j)), -1) for i, j in zip(first, second, strict=True)]
    assert PoolIndex(pool).duels.pair_of(first, second).tolist() == wanted


def test_two_responses_that_were_recorded_twice_give_the_first_identifier():
    pool = pool_of(prompts=1, responses=2)
    twice = PreferencePool(
        pool.response_features_RD,
        pool.prompt_features_PQ,
        pool.prompt_of_response_R,
        np.array([[0, 1], [1, 0]]),
        np.array(["b", "a"]),
    )
    duels = PoolIndex(twice).duels
    assert duels.pair_of(np.array([0, 1]), np.array([1, 0])).tolist() == [1, 1]
    assert len(duels.duels) == 4


def test_each_pair_stands_in_both_directions_sorted_by_prompt_and_leader():
    pool = thinned(pool_of(responses=5), 0.6)
    index = PoolIndex(pool).duels
    duels = index.duels
    met = np.stack([index.response_A[duels.leader_E], index.response_A[duels.partner_E]], axis=1)
    wanted = pool.responses_of_pair_N2[duels.pair_E]
    assert ((met == wanted).all(axis=1) | (met == wanted[:, ::-1]).all(axis=1)).all()
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


def test_open_duels_are_those_of_the_given_pairs():
    index = PoolIndex(pool_of()).duels
    left = index.open_duels(np.array([3, 7, 20]))
    assert sorted(left.pair_E) == [3, 3, 7, 7, 20, 20]
    np.testing.assert_array_equal(index.duels.pair_E[left.number_E], left.pair_E)


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
