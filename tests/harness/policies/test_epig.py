"""EPIG against its definition: mutual information of two binary answers, summed cell by cell."""

import math

import numpy as np
import pytest
import torch

from balbench.harness.policies import epig
from balbench.harness.policies.epig import Epig
from balbench.harness.policies.uncertainty import Bald
from balbench.harness.streams import stream
from balbench.testing.examples import LinearRewards, pool_of, responses_of, shuffled, view_of


def mutual_information(p_K, q_K):
    """I(y; y*) of the mixture over k of two independent answers."""
    total = 0.0
    for a_K in (p_K, 1 - p_K):
        for b_K in (q_K, 1 - q_K):
            joint = np.mean(a_K * b_K)
            if joint > 0:
                total += joint * math.log(joint / (a_K.mean() * b_K.mean()))
    return total


def probabilities(model, responses, pairs=slice(None)):
    rewards_KR = model.rewards_KR(responses.features_RD).double().numpy()
    first, second = responses.responses_N2[pairs].numpy().T
    return 1 / (1 + np.exp(rewards_KR[:, second] - rewards_KR[:, first]))


def definition(view, target_KT):
    p_KU = probabilities(view.model, view.splits["pool"], torch.from_numpy(view.unlabelled_U))
    return np.array([np.mean([mutual_information(p_K, q_K) for q_K in target_KT.T]) for p_K in p_KU.T])


@pytest.mark.parametrize("target", ["eval", "pool"])
@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("block", [1, epig.BLOCK])
def test_epig_is_its_definition(monkeypatch, target, members, block):
    monkeypatch.setattr(epig, "BLOCK", block)
    view = view_of(pool_of(), members=members)
    score_U = definition(view, probabilities(view.model, view.splits[target]))
    selection = Epig(target=target).select(view, 9, stream(0))
    np.testing.assert_allclose(selection.scores_B, -np.sort(-score_U)[:9], atol=1e-12)
    found_B = score_U[np.searchsorted(view.unlabelled_U, selection.pairs_B)]
    np.testing.assert_allclose(found_B, selection.scores_B, atol=1e-12)


def test_targets_are_drawn_anew_from_the_stream():
    view = view_of(pool_of(prompts=30))
    few = Epig(targets=5)
    first, again, other = (few.select(view, 9, stream(seed)).scores_B for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    scores = [few.select(view, 1, stream(seed)).scores_B[0] for seed in range(5)]
    assert len(set(scores)) == 5


def test_targets_of_the_pool_do_not_depend_on_its_storage():
    view = view_of(pool_of(prompts=40, responses=2))
    order = np.random.default_rng(5).permutation(len(view.pool))
    policy = Epig(target="pool", targets=7)
    selection, moved = (policy.select(each, 8, stream(3)) for each in (view, shuffled(view, order)))
    np.testing.assert_array_equal(order[moved.pairs_B], selection.pairs_B)
    np.testing.assert_array_equal(moved.scores_B, selection.scores_B)


def test_one_sample_has_no_information_so_the_lowest_numbers_come_first():
    view = view_of(pool_of(), members=1)
    np.testing.assert_array_equal(Epig().select(view, 9, stream(0)).pairs_B, view.unlabelled_U[:9])


class Axes(LinearRewards):
    """Two samples that disagree about the first feature, much more about the second, and not about the third."""

    def __init__(self):
        self.weights_KD = torch.tensor([[1.0, 4.0, 1.0], [-1.0, -4.0, 1.0]])


def test_samples_that_hardly_disagree_have_distinct_scores():
    """As members of an ensemble are in early rounds; scores are then far below double precision's step at 1."""
    model = LinearRewards(4)
    model.weights_KD *= 3e-4
    selection = Epig().select(view_of(pool_of(), model=model), 9, stream(0))
    assert 0 < selection.scores_B[0] < 1e-10
    assert len(set(selection.scores_B)) == 9


def test_what_has_no_bearing_on_the_targets_scores_nothing():
    pool = pool_of(dimension=3)
    view = view_of(pool, model=Axes())
    settled = pool_of(dimension=3, seed=7)
    settled.response_features_RD[:, :2] = 0  # targets that the samples agree on
    view = type(view)(**{**vars(view), "splits": dict(view.splits) | {"eval": responses_of(settled)}})
    assert Bald().select(view, 1, stream(0)).scores_B[0] > 0.1
    np.testing.assert_allclose(Epig().select(view, 5, stream(0)).scores_B, 0, atol=1e-12)


def test_scores_reach_log_2_and_no_more():
    # Both samples are certain and opposed about all pairs: each answer settles all others.
    model = LinearRewards(1)
    model.weights_KD = torch.tensor([[1e6], [-1e6]])
    view = view_of(pool_of(dimension=1), model=model)
    np.testing.assert_allclose(Epig().select(view, 5, stream(0)).scores_B, math.log(2), atol=1e-9)
