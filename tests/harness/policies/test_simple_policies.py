"""Random choice and rankings by uncertainty against their definitions."""

from dataclasses import replace

import numpy as np
import pytest

from balbench.harness.policies.noise import coded_order
from balbench.harness.policies.policy import PoolView, Selection, check_range, take_highest
from balbench.harness.policies.random import FullData, Random
from balbench.harness.policies.uncertainty import Bald, PredictiveEntropy, Variance
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of


@pytest.mark.parametrize(
    ("policy", "kind"), [(Bald, "epistemic"), (PredictiveEntropy, "predictive"), (Variance, "variance")]
)
def test_the_most_uncertain_are_taken_in_order(policy, kind):
    view = view_of(pool_of())
    selection = policy().select(view, 5, stream(0))
    ranked = sorted(zip(-view.score_U(kind), view.unlabelled_U, strict=True))[:5]
    assert selection.pairs_B.tolist() == [pair for _, pair in ranked]
    np.testing.assert_array_equal(selection.scores_B, [-score for score, _ in ranked])


def test_ties_go_to_the_lowest_number():
    view = view_of(pool_of(), acquired=0)
    assert take_highest(view, np.ones(len(view.unlabelled_U)), 3, (0, 1)).pairs_B.tolist() == [0, 1, 2]


@pytest.mark.parametrize("scores", [[0.0, 2.0], [-1.0, 0.5], [0.5, np.nan]])
def test_scores_out_of_range_are_an_error(scores):
    with pytest.raises(ValueError, match="scores must be in"):
        check_range(np.array(scores), (0.0, 1.0))


def test_random_is_uniform_over_pairs():
    view = view_of(pool_of(), acquired=0)
    picks = np.concatenate([Random().select(view, 3, stream(seed, "policy")).pairs_B for seed in range(2000)])
    share = np.bincount(picks, minlength=36) / len(picks)
    np.testing.assert_allclose(share, 1 / 36, atol=0.01)


def positions(view: PoolView, selection: Selection, seed: int) -> list[int]:
    """Positions of a batch among the unlabelled pairs, in the order of the run's seed."""
    order = view.unlabelled_U[coded_order(view, stream(seed))]
    place = {pair: position for position, pair in enumerate(order.tolist())}
    return [place[pair] for pair in selection.pairs_B.tolist()]


def test_random_as_coded_takes_the_same_positions_in_every_round_and_run():
    first, later = view_of(pool_of()), replace(view_of(pool_of(), seed=5), round=9)
    policy, pairs = Random(variant="as_coded"), set()
    expected = np.random.RandomState(42).choice(len(first.unlabelled_U), 6, replace=False).tolist()
    for view in (first, later):
        for seed in (0, 3):
            selection = policy.select(view, 6, stream(seed, "policy", view.round))
            assert positions(view, selection, seed) == expected
            pairs.add(tuple(selection.pairs_B.tolist()))
    assert len(pairs) == 4  # the seed shuffles the pool, and other pairs are left


@pytest.mark.parametrize("size", [100, 2000])
def test_random_as_coded_is_the_authors(golden, size):
    case = golden(f"random_{size}")
    pool = pool_of(prompts=size, responses=2)
    view = view_of(pool, acquired=0)
    selection = Random(variant="as_coded").select(view, int(case["picks"]), stream(0))
    np.testing.assert_array_equal(case["ids"][positions(view, selection, 0)], case["out_selected_ids"])


def test_full_data_buys_everything_at_once_and_has_no_setting():
    assert FullData().acquires_all
    assert not FullData.model_fields
