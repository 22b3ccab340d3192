"""BatchBALD against its definition: joint entropies summed over every configuration, every pair looked at."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.policies import batch_bald
from balbench.harness.policies.batch_bald import BatchBald, all_configurations, drawn_configurations
from balbench.harness.policies.uncertainty import Bald
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of


def probabilities(N, K, spread, seed=0):
    rng = np.random.default_rng(seed)
    return 1 / (1 + np.exp(-1.5 * rng.normal(size=N) - spread * rng.normal(size=(K, N))))


def view_with(p_KN):
    """What the policy looks at of a view."""
    p_KN = torch.from_numpy(p_KN)
    return SimpleNamespace(unlabelled_U=np.arange(p_KN.shape[1]), probability_Kn=lambda pairs: p_KN[:, pairs])


def entropy(*probability):
    return -sum(p * math.log(p) for p in probability if p > 0)


def joint_information(p_Kb):
    """I(y_1 .. y_b; k) = H(y_1 .. y_b) - mean_k sum_i H(y_i | k)."""
    b = p_Kb.shape[1]
    joint = [
        np.mean([math.prod(p[i] if y else 1 - p[i] for i, y in enumerate(answer)) for p in p_Kb])
        for answer in itertools.product((0, 1), repeat=b)
    ]
    return entropy(*joint) - np.mean([sum(entropy(q, 1 - q) for q in p) for p in p_Kb])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), K=st.integers(1, 6), spread=st.sampled_from([0.01, 0.5, 3.0]))
def test_while_exact_it_is_its_definition(seed, K, spread):
    p_KN = probabilities(9, K, spread, seed)
    selection = BatchBald().select(view_with(p_KN), 5, stream(0))
    picks = []
    for pick, score in zip(selection.pairs_B, selection.scores_B, strict=True):
        before = joint_information(p_KN[:, picks])
        gain_N = np.array([-1 if i in picks else joint_information(p_KN[:, [*picks, i]]) - before for i in range(9)])
        if gain_N.max() < 1e-10:
            break
        assert gain_N[pick] > gain_N.max() - 1e-12
        assert score == pytest.approx(gain_N[pick], abs=1e-12)
        picks.append(int(pick))
    assert selection.diagnostics["batch_information"] == pytest.approx(joint_information(p_KN[:, picks]), abs=1e-9)


def published_joint_entropy(answer_Cb, p_Kb, p_K):
    """The paper's eq. 12: configurations c drawn from p(c), each weighted by 1 / p(c)."""
    total = 0.0
    for answer in answer_Cb:
        given_K = np.prod(np.where(answer, p_Kb, 1 - p_Kb), axis=1)
        for with_K in (given_K * p_K, given_K * (1 - p_K)):
            total -= with_K.mean() * math.log(with_K.mean()) / given_K.mean()
    return total / len(answer_Cb)


def answers_drawn(p_Kb, samples, source):
    """The configurations that `drawn_configurations` goes through."""
    each = -(-samples // len(p_Kb))
    return (source.numpy().random((each, *p_Kb.shape)) < p_Kb).reshape(-1, p_Kb.shape[1])


@pytest.mark.parametrize("estimator", ["paired", "published"])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_with_drawn_configurations_each_pick_has_the_highest_estimate_of_the_whole_pool(estimator, spread):
    p_KN, B, K = probabilities(60, 4, spread), 7, 4
    policy = BatchBald(exact_up_to=2, samples=150, estimator=estimator)
    selection = policy.select(view_with(p_KN), B, stream(5))
    exact = BatchBald().select(view_with(p_KN), B, stream(5))
    np.testing.assert_allclose(selection.scores_B[:3], exact.scores_B[:3], atol=1e-12)
    assert (np.abs(selection.scores_B[3:] - exact.scores_B[3:]) > 1e-9).all()
    for number in range(3, B):
        picks, p_Kb = selection.pairs_B[:number], p_KN[:, selection.pairs_B[:number]]
        answer_Cb = answers_drawn(p_Kb, 150, stream(5, "answers", number))
        given_CK = np.stack([np.prod(np.where(answer, p_Kb, 1 - p_Kb), axis=1) for answer in answer_Cb])
        weight_CK = given_CK / given_CK.sum(axis=1, keepdims=True)
        base = np.mean([entropy(*[g.mean()]) / g.mean() for g in given_CK])  # the estimate without the pair
        weight_K = weight_CK.mean(axis=0) if estimator == "paired" else np.full(K, 1 / K)
        gain_N = np.array(
            [
                published_joint_entropy(answer_Cb, p_Kb, p_KN[:, i])
                - base
                - sum(w * entropy(p, 1 - p) for w, p in zip(weight_K, p_KN[:, i], strict=True))
                for i in range(60)
            ]
        )
        gain_N[picks] = -np.inf
        assert selection.pairs_B[number] == gain_N.argmax()
        assert selection.scores_B[number] == pytest.approx(gain_N.max(), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    K=st.integers(2, 8),
    spread=st.sampled_from([0.02, 0.3, 1.0, 3.0]),
    picks=st.integers(1, 25),
    published=st.booleans(),
)
def test_bounds_hold_and_lose_no_best_pair(seed, K, spread, picks, published):
    p_KN = torch.from_numpy(probabilities(300, K, spread, seed))
    now = drawn_configurations(p_KN[:, :picks], 400, stream(seed))
    if published:
        now = now._replace(weight_K=torch.full_like(now.weight_K, 1 / K))
    gains, everything = batch_bald._Gains(p_KN), torch.arange(300)
    exact_N = gains._gain(now, everything)
    for merged in now.merged(batch_bald.MERGED):
        assert merged.joint_CK.sum() == pytest.approx(1)
        assert (gains._gain(merged, everything) >= exact_N - batch_bald.ROUNDING).all()
    pick, gain = gains.best(now)
    assert gain == pytest.approx(float(exact_N.max()), abs=2 * batch_bald.ROUNDING)
    assert float(exact_N[pick]) == pytest.approx(gain, abs=batch_bald.ROUNDING)


def test_a_bound_of_many_joint_configurations_is_tight():
    p_KN = torch.from_numpy(probabilities(500, 5, 0.5))
    now, gains = drawn_configurations(p_KN[:, :12], 1000, stream(0)), batch_bald._Gains(p_KN)
    exact_N = gains._gain(now, torch.arange(500))
    slack = [float((gains._gain(merged, torch.arange(500)) - exact_N).max()) for merged in now.merged((1, 16, 128))]
    assert slack[1] < slack[0] / 3
    assert slack[2] < slack[1] / 3


def test_drawn_configurations_estimate_the_gains_without_bias():
    p_KN = torch.from_numpy(probabilities(30, 5, 0.7, seed=3))
    gains, everything = batch_bald._Gains(p_KN), torch.arange(30)
    exact_N = gains._gain(all_configurations(p_KN[:, :6]), everything)
    found_SN = torch.stack(
        [gains._gain(drawn_configurations(p_KN[:, :6], 200, stream(s)), everything) for s in range(200)]
    )
    error_N = (found_SN.mean(dim=0) - exact_N).abs()
    assert (error_N < 5 * found_SN.std(dim=0) / math.sqrt(200) + 1e-12).all()


def test_paired_estimates_scatter_less_than_published_ones():
    p_KN = torch.from_numpy(probabilities(50, 5, 0.2, seed=3))
    gains, everything = batch_bald._Gains(p_KN), torch.arange(50)
    paired, published = [], []
    for seed in range(50):
        drawn = drawn_configurations(p_KN[:, :12], 200, stream(seed))
        paired.append(gains._gain(drawn, everything))
        published.append(gains._gain(drawn._replace(weight_K=torch.full((5,), 0.2).double()), everything))
    assert torch.stack(paired).std(dim=0).mean() < torch.stack(published).std(dim=0).mean() / 2


def test_the_first_pick_is_that_of_bald():
    view = view_of(pool_of())
    bald = Bald().select(view, 1, stream(0))
    selection = BatchBald().select(view, 3, stream(0))
    assert selection.pairs_B[0] == bald.pairs_B[0]
    assert selection.scores_B[0] == pytest.approx(bald.scores_B[0], abs=1e-12)


def test_a_twin_of_a_pick_has_less_information():
    p_KN = np.array([[0.99, 0.99, 0.2], [0.01, 0.01, 0.3], [0.5, 0.5, 0.9]])
    assert BatchBald().select(view_with(p_KN), 2, stream(0)).pairs_B.tolist() == [0, 2]


def test_pairs_without_a_gain_are_in_the_order_of_bald():
    # Two samples; the first answer settles which one holds.
    p_KN = np.array([[0.6, 1.0, 0.9, 0.7, 0.5], [0.5, 0.0, 0.1, 0.2, 0.5]])
    selection = BatchBald().select(view_with(p_KN), 5, stream(0))
    assert selection.pairs_B.tolist() == [1, 2, 3, 0, 4]
    np.testing.assert_allclose(selection.scores_B, [math.log(2), 0, 0, 0, 0], atol=1e-12)
    assert selection.diagnostics == {"batch_information": pytest.approx(math.log(2)), "informative_picks": 1}


@pytest.mark.parametrize("exact_up_to", [0, 10])
def test_the_information_of_a_batch_is_at_most_log_k_and_adds_up(exact_up_to):
    p_KN = probabilities(80, 3, 2.0)
    policy = BatchBald(exact_up_to=exact_up_to, samples=3000)
    selection = policy.select(view_with(p_KN), 10, stream(1))
    assert selection.diagnostics["batch_information"] <= math.log(3)
    assert selection.scores_B.sum() == pytest.approx(selection.diagnostics["batch_information"], abs=0.05)


def test_certain_answers_survive():
    p_KN = np.random.default_rng(0).choice([0.0, 1e-300, 0.5, 1.0 - 1e-16, 1.0], size=(4, 40))
    selection = BatchBald(exact_up_to=3, samples=50).select(view_with(p_KN), 40, stream(0))
    assert np.isfinite(selection.scores_B).all()
    assert sorted(selection.pairs_B) == list(range(40))
