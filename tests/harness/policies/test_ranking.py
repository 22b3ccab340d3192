"""Rankings with a safeguard, against their definitions written as loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balbench.harness.policies.ranking import OnePerPrompt, SampleThenRank, group_winners, one_per_group
from balbench.harness.policies.uncertainty import Bald
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of

scored = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30)


@given(scored)
def test_one_per_group_by_definition(pairs):
    """Pass after pass over the ranking; each pass takes a pair unless it took one of the same group before."""
    score, group = np.array(pairs, dtype=float).T
    ranked = sorted(range(len(pairs)), key=lambda place: (-score[place], place))
    expected = []
    while len(expected) < len(pairs):
        chosen = set()
        for place in ranked:
            if place not in expected and group[place] not in chosen:
                chosen.add(group[place])
                expected.append(place)
    assert one_per_group(score, group).tolist() == expected


def test_no_prompt_comes_again_before_all_have_come():
    pool = pool_of(prompts=12, responses=4)
    view = view_of(pool)
    selection = OnePerPrompt().select(view, 30, stream(0))
    prompts = pool.prompt_of_pair_N[selection.pairs_B]
    left = len(np.unique(pool.prompt_of_pair_N[view.unlabelled_U]))
    assert len(np.unique(prompts[:left])) == left
    assert np.all(np.diff(selection.scores_B[:left]) <= 0)
    assert np.bincount(prompts).max() == 3


@given(scored, st.integers(1, 31), st.integers(0, 99))
def test_group_winners_by_definition(pairs, size, seed):
    score = np.array(pairs, dtype=float)[:, 0]
    noise = np.random.default_rng(seed).random(len(score))
    dealt = np.argsort(noise)
    groups = [sorted(dealt[start : start + size]) for start in range(0, len(score), size)]
    expected = [max(group, key=lambda place: (score[place], -place)) for group in groups]
    assert group_winners(score, noise, size).tolist() == sorted(expected)


def test_one_group_of_all_is_the_ranking():
    view = view_of(pool_of())
    for kind in ("epistemic", "variance"):
        selection = SampleThenRank(group=1000, uncertainty=kind).select(view, 6, stream(0))
        ranked = view.unlabelled_U[np.argsort(-view.score_U(kind), kind="stable")]
        np.testing.assert_array_equal(selection.pairs_B, ranked[:6])
    np.testing.assert_array_equal(
        SampleThenRank(group=1000).select(view, 6, stream(0)).pairs_B, Bald().select(view, 6, stream(0)).pairs_B
    )


@pytest.mark.parametrize("group", [1, 4])
def test_a_pair_wins_as_often_as_the_best_of_a_random_group(group):
    """36 pairs: the one of rank r (from 0) is first with probability C(35 - r, g - 1) / C(36, g)."""
    from math import comb

    view = view_of(pool_of(), acquired=0)
    ranked = np.argsort(-view.epistemic_U, kind="stable").tolist()
    draws = 6000
    firsts = [SampleThenRank(group=group).select(view, 1, stream(seed)).pairs_B[0] for seed in range(draws)]
    share = np.bincount([ranked.index(pair) for pair in firsts], minlength=36) / draws
    expected = np.array([comb(35 - rank, group - 1) / comb(36, group) for rank in range(36)])
    np.testing.assert_allclose(share, expected, atol=4.5 * np.sqrt(expected.max() / draws))


def test_winners_come_before_what_is_dealt_again():
    """Nine winners of groups of four; the second deal has 27 pairs, the most uncertain of them wins for certain."""
    view = view_of(pool_of(), acquired=0)
    policy = SampleThenRank(group=4)
    first = policy.select(view, 9, stream(1)).pairs_B
    both = policy.select(view, 16, stream(1)).pairs_B
    np.testing.assert_array_equal(both[:9], first)
    left = np.setdiff1d(view.unlabelled_U, first)
    assert left[np.argmax(view.epistemic_U[left])] in both[9:]
