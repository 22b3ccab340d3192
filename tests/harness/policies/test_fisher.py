"""Design policies against their definitions: inverses and determinants recomputed for every pair and pick."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.policies import fisher
from balbench.harness.policies.fisher import Adpo, ArmFi, Design, GreedyDesign
from balbench.harness.pool import blocks
from balbench.harness.streams import stream
from balbench.testing.examples import LinearRewards, pool_of, responses_of, view_of


class HiddenLayer(LinearRewards):
    """A model whose last layer sees something else than the features."""

    def embedding_RH(self, features_RD):
        mixing_DH = torch.from_numpy(np.random.default_rng(3).normal(size=(features_RD.shape[1], 6))).float()
        return torch.tanh(features_RD @ mixing_DH)


def view_with_hidden_layer(acquired=5, seed=1, **kwargs):
    pool = pool_of(seed=seed, **kwargs)
    return view_of(pool, acquired=acquired, seed=seed, model=HiddenLayer(pool.response_features_RD.shape[1], seed=seed))


def facts(view, pairs, table_RH=None):
    """(p (1 - p), D) of pairs, one after another."""
    table_RH = (view.embedding_RH if table_RH is None else table_RH).numpy()
    rewards_KR = view.rewards_KR.double().numpy()
    weights, differences = [], []
    for first, second in view.pool.responses_of_pair_N2[pairs]:
        p = np.mean([1 / (1 + np.exp(-(r[first] - r[second]))) for r in rewards_KR])
        weights.append(p * (1 - p))
        differences.append((table_RH[first] - table_RH[second]).astype(np.float64))
    return np.array(weights), np.array(differences).reshape(len(pairs), table_RH.shape[1])


def information(weights, differences, ridge):
    matrix = ridge * np.eye(differences.shape[1])
    for weight, difference in zip(weights, differences, strict=True):
        matrix += weight * np.outer(difference, difference)
    return matrix


def greedy_slow(matrix, weights, differences, picks):
    """argmax log det(M + w D D'), every determinant anew; lowest place among ties."""
    taken, gains = [], []
    for _ in range(picks):
        before = np.linalg.slogdet(matrix)[1]
        gain = [
            -np.inf if i in taken else np.linalg.slogdet(matrix + w * np.outer(d, d))[1] - before
            for i, (w, d) in enumerate(zip(weights, differences, strict=True))
        ]
        taken.append(int(np.flatnonzero(np.array(gain) >= max(gain) - 1e-9)[0]))
        gains.append(max(gain))
        matrix = matrix + weights[taken[-1]] * np.outer(differences[taken[-1]], differences[taken[-1]])
    return taken, gains


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), acquired=st.integers(0, 20), ridge=st.sampled_from([1e-3, 0.1, 10.0]))
def test_arm_fi_is_its_definition(seed, acquired, ridge):
    view = view_with_hidden_layer(acquired=acquired, seed=seed)
    inverse = np.linalg.inv(information(*facts(view, view.acquired_n), ridge))
    weights, differences = facts(view, view.unlabelled_U)
    score_U = np.array([w * d @ inverse @ d for w, d in zip(weights, differences, strict=True)])
    selection = ArmFi(ridge=ridge).select(view, 8, stream(0))
    np.testing.assert_allclose(selection.scores_B, -np.sort(-score_U)[:8], rtol=1e-7)
    np.testing.assert_allclose(score_U[np.searchsorted(view.unlabelled_U, selection.pairs_B)], selection.scores_B)


def test_arm_fi_as_coded_is_the_gradient_of_log_det_at_weights_of_one():
    view = view_with_hidden_layer()
    past = information(*facts(view, view.acquired_n), 1e-6)
    weights, differences = (torch.from_numpy(part) for part in facts(view, view.unlabelled_U))
    share_U = torch.ones(len(weights), dtype=torch.float64, requires_grad=True)
    design = torch.from_numpy(past) + (differences * (weights * share_U)[:, None]).T @ differences
    (gradient_U,) = torch.autograd.grad(torch.logdet(design), share_U)
    selection = ArmFi(variant="as_coded").select(view, 8, stream(0))
    order = np.argsort(-gradient_U.numpy(), kind="stable")[:8]
    np.testing.assert_array_equal(selection.pairs_B, view.unlabelled_U[order])
    np.testing.assert_allclose(selection.scores_B, gradient_U.numpy()[order], rtol=1e-7)


def test_a_variant_sets_what_is_not_given():
    assert ArmFi().design == "past"
    assert (ArmFi(variant="as_coded").design, ArmFi(variant="as_coded").ridge) == ("pool", 1e-6)
    assert (ArmFi(variant="as_coded", ridge=0.5).design, ArmFi(variant="as_coded", ridge=0.5).ridge) == ("pool", 0.5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    acquired=st.integers(0, 30),
    ridge=st.sampled_from([1e-3, 0.1, 10.0]),
    options=st.sampled_from([{}, {"features": "frozen"}, {"weights_of": "equal"}]),
    first_block=st.integers(1, 3),
)
def test_adpo_is_its_definition(seed, acquired, ridge, options, first_block):
    view = view_with_hidden_layer(acquired=acquired, seed=seed, prompts=14)
    table = view.splits["pool"].features_RD if "features" in options else None
    weights, differences = facts(view, view.unlabelled_U, table)
    past_weights, past = facts(view, view.acquired_n, table)
    if "weights_of" in options:
        weights, past_weights = np.ones_like(weights), np.ones_like(past_weights)
    with pytest.MonkeyPatch.context() as patch:  # small blocks leave old leverages about
        patch.setattr(fisher, "FIRST_BLOCK", first_block)
        patch.setattr(blocks, "BLOCK_BYTES", 8 * 6 * 5)
        selection = Adpo(ridge=ridge, **options).select(view, 12, stream(0))
    picks, gains = greedy_slow(information(past_weights, past, ridge), weights, differences, 12)
    np.testing.assert_array_equal(selection.pairs_B, view.unlabelled_U[picks])
    np.testing.assert_allclose(selection.scores_B, gains, rtol=1e-6, atol=1e-9)


def test_adpo_leaves_most_leverages_alone():
    """Laziness is what makes wide features affordable: old leverages are bounds."""
    view = view_with_hidden_layer(prompts=400, acquired=40)
    refreshed = []
    with pytest.MonkeyPatch.context() as patch:
        refresh = fisher.GreedyDesign._refresh
        patch.setattr(fisher, "FIRST_BLOCK", 16)
        patch.setattr(
            fisher.GreedyDesign, "_refresh", lambda self, places: (refreshed.append(len(places)), refresh(self, places))
        )
        Adpo().select(view, 50, stream(0))
    assert sum(refreshed) < 0.3 * 50 * len(view.unlabelled_U)


@pytest.mark.parametrize("policy", [ArmFi(), ArmFi(variant="as_coded"), Adpo(), Adpo(features="frozen")])
class TestAnyDesign:
    def test_an_abstention_informs_of_nothing(self, policy):
        view = view_with_hidden_layer(acquired=6)
        label_n = view.label_n.copy()
        label_n[[0, 3]] = np.nan
        fewer = replace(view, acquired_n=np.delete(view.acquired_n, [0, 3]), label_n=np.delete(view.label_n, [0, 3]))
        abstained = policy.select(replace(view, label_n=label_n), 6, stream(0))
        np.testing.assert_array_equal(abstained.pairs_B, policy.select(fewer, 6, stream(0)).pairs_B)
        assert abstained.scores_B[0] != policy.select(view, 6, stream(0)).scores_B[0]

    def test_it_does_not_matter_which_response_is_first(self, policy):
        view = view_with_hidden_layer()
        swapped_N2 = view.pool.responses_of_pair_N2.copy()
        swapped_N2[::2] = swapped_N2[::2, ::-1]
        pool = replace(view.pool, responses_of_pair_N2=swapped_N2)
        splits = dict(view.splits) | {"pool": responses_of(pool)}
        swapped = replace(view, index=type(view.index)(pool), splits=splits)
        actual, moved = (policy.select(each, 8, stream(0)) for each in (view, swapped))
        np.testing.assert_array_equal(moved.pairs_B, actual.pairs_B)
        np.testing.assert_allclose(moved.scores_B, actual.scores_B, rtol=1e-9)


def view_of_directions(features, pairs):
    """A view in which nothing is known: zero rewards, so p = 1/2 everywhere, and responses with given features."""
    pool = replace(
        pool_of(prompts=1, responses=len(features)),
        response_features_RD=np.array(features, dtype=np.float32),
        responses_of_pair_N2=np.array(pairs),
        pair_id_N=np.array([f"pair-{number}" for number in range(len(pairs))]),
    )
    model = LinearRewards(len(features[0]))
    model.weights_KD = torch.zeros_like(model.weights_KD)
    return view_of(pool, acquired=0, model=model)


def test_adpo_does_not_take_twins_where_arm_fi_does():
    # Pairs 0 and 1 point the same way; pair 2 is shorter and at a right angle.
    view = view_of_directions([[0, 0], [2, 0], [2, 0], [0, 1]], [(0, 1), (0, 2), (0, 3)])
    assert ArmFi(ridge=0.01).select(view, 2, stream(0)).pairs_B.tolist() == [0, 1]
    assert Adpo(ridge=0.01).select(view, 2, stream(0)).pairs_B.tolist() == [0, 2]


def test_ties_go_to_the_lowest_number():
    rng = np.random.default_rng(0)
    features = [[0.0] * 5, *rng.normal(size=(4, 5)).tolist()]
    pairs = [(0, 4), (0, 3), (0, 2), (0, 1)] * 4  # each direction four times
    view = view_of_directions(features, pairs)
    actual = Adpo().select(view, 16, stream(0)).pairs_B.tolist()
    for direction in range(4):
        assert [pair for pair in actual if pair % 4 == direction] == [direction + 4 * i for i in range(4)]


def test_gains_that_differ_by_rounding_are_ties():
    table_RH = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    twins_U2 = torch.tensor([[0, 1], [0, 1], [0, 1]])
    for weight_U, pick in ((np.array([1.0, 1 + 1e-13, 1.0]), 0), (np.array([1.0, 1 + 1e-6, 1.0]), 1)):
        assert GreedyDesign(Design(table_RH, 0.1), twins_U2, weight_U, 1).take()[0] == pick


def test_an_indefinite_matrix_gets_more_ridge():
    table_RH = torch.from_numpy(np.random.default_rng(0).normal(scale=1e6, size=(8, 16))).float()
    design = Design(table_RH, 1e-9)
    design.add(torch.tensor([[0, 1], [2, 3], [4, 5]]), np.full(3, 0.25))
    assert torch.linalg.cholesky_ex(design.matrix_HH)[1] > 0
    known, unknown = design.leverage_n(torch.tensor([[0, 1], [6, 7]]))
    assert 0 <= known < 4.001  # w D' M^-1 D is at most 1 once a pair is in the design
    assert np.isfinite(unknown)
    assert unknown > 100 * known
