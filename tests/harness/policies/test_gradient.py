"""Gradient policies against their definitions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from balbench.harness.policies.gradient import Badge, GradientNorm, Sharpe, _draw, hallucinated_gradients
from balbench.harness.pool import blocks
from balbench.harness.streams import stream
from balbench.testing.examples import LinearRewards, pool_of, responses_of, view_of


def gradients_slow(view):
    """(p - y) D of each unlabelled pair at its most probable answer."""
    table_RH, rewards_KR = view.embedding_RH.double().numpy(), view.rewards_KR.double().numpy()
    actual = []
    for first, second in view.pool.responses_of_pair_N2[view.unlabelled_U]:
        p = np.mean(1 / (1 + np.exp(rewards_KR[:, second] - rewards_KR[:, first])))
        actual.append((p - (1 if p >= 0.5 else 0)) * (table_RH[first] - table_RH[second]))
    return np.array(actual)


def test_with_one_sample_it_is_the_gradient_of_the_loss_by_the_last_layer(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4 * 4 * 7)  # 7 pairs of 4 features: several blocks
    view = view_of(pool_of(), members=1)
    found_UH = hallucinated_gradients(view)
    for pair, found_H in zip(view.unlabelled_U, found_UH, strict=True):
        first, second = view.pool.responses_of_pair_N2[pair]
        weights = view.model.weights_KD[0].clone().requires_grad_()
        logit = weights @ view.splits["pool"].features_RD[first] - weights @ view.splits["pool"].features_RD[second]
        loss = -torch.nn.functional.logsigmoid(logit if logit >= 0 else -logit)
        torch.testing.assert_close(found_H, torch.autograd.grad(loss, weights)[0], rtol=1e-4, atol=1e-6)


def test_gradients_of_several_samples_use_the_mean_probability():
    view = view_of(pool_of())
    np.testing.assert_allclose(hallucinated_gradients(view), gradients_slow(view), rtol=1e-4, atol=1e-6)


def test_the_longest_gradients_are_taken():
    view = view_of(pool_of())
    length_U = np.linalg.norm(gradients_slow(view), axis=1)
    order = np.argsort(-length_U)[:6]
    selection = GradientNorm().select(view, 6, stream(0))
    np.testing.assert_array_equal(selection.pairs_B, view.unlabelled_U[order])
    np.testing.assert_allclose(selection.scores_B, length_U[order], rtol=1e-5)


@pytest.mark.parametrize("policy", [GradientNorm(), Badge(), Sharpe(), Sharpe(prior="model")])
def test_it_does_not_matter_which_response_is_first(policy):
    view = view_of(pool_of())
    swapped_N2 = view.pool.responses_of_pair_N2.copy()
    swapped_N2[::2] = swapped_N2[::2, ::-1]
    pool = replace(view.pool, responses_of_pair_N2=swapped_N2)
    swapped = replace(view, index=type(view.index)(pool), splits=dict(view.splits) | {"pool": responses_of(pool)})
    actual, moved = (policy.select(each, 8, stream(0)).pairs_B for each in (view, swapped))
    np.testing.assert_array_equal(moved, actual)


class TestBadge:
    def test_it_is_k_means_plus_plus_seeding(self):
        view = view_of(pool_of(prompts=20))
        points, ids = gradients_slow(view), view.pool.pair_id_N[view.unlabelled_U]
        uniforms = stream(5).child("badge").numpy().random(10)
        picks = [int(np.argmax((points**2).sum(axis=1)))]
        for uniform in uniforms[1:]:
            weight = {
                identifier: min(((point - points[pick]) ** 2).sum() for pick in picks)
                for identifier, point in zip(ids, points, strict=True)
            }
            mass, goal = 0.0, uniform * sum(weight.values())
            for identifier in sorted(weight):
                mass += weight[identifier]
                if mass > goal:
                    break
            picks.append(int(np.flatnonzero(ids == identifier)[0]))
        actual = Badge().select(view, 10, stream(5))
        np.testing.assert_array_equal(actual.pairs_B, view.unlabelled_U[picks])
        scores = [(points[picks[0]] ** 2).sum()]
        scores += [min(((points[b] - points[a]) ** 2).sum() for a in picks[:i]) for i, b in enumerate(picks) if i]
        np.testing.assert_allclose(actual.scores_B, scores, rtol=1e-4)

    def test_the_second_pick_is_drawn_by_squared_distance(self):
        view = view_of(pool_of(prompts=3), acquired=0)
        points = gradients_slow(view)
        first = int(np.argmax((points**2).sum(axis=1)))
        weight = ((points - points[first]) ** 2).sum(axis=1)
        drawn = [Badge().select(view, 2, stream(seed, "policy")).pairs_B[1] for seed in range(4000)]
        np.testing.assert_allclose(np.bincount(drawn, minlength=9) / 4000, weight / weight.sum(), atol=0.03)

    def test_where_all_lie_together_the_rest_is_uniform(self):
        view = view_of(pool_of(prompts=3, constant=True), acquired=0)
        drawn = [Badge().select(view, 2, stream(seed)).pairs_B for seed in range(2000)]
        assert {pair for pair, _ in drawn} == {0}
        np.testing.assert_allclose(np.bincount([pair for _, pair in drawn], minlength=9)[1:] / 2000, 1 / 8, atol=0.03)

    @given(
        weights=st.lists(st.floats(0, 1e9), min_size=1, max_size=8),
        uniform=st.floats(0, 1, exclude_max=True),
        data=st.data(),
    )
    def test_a_draw_is_free_and_has_weight_where_any_has(self, weights, uniform, data):
        weight_U = np.array(weights)
        taken_U = np.array(data.draw(st.lists(st.booleans(), min_size=len(weights), max_size=len(weights))))
        taken_U[data.draw(st.integers(0, len(weights) - 1))] = False
        order_U = np.array(data.draw(st.permutations(range(len(weights)))))
        place = _draw(weight_U, taken_U, order_U, uniform)
        assert not taken_U[place]
        assert weight_U[place] > 0 or not weight_U[~taken_U].any()

    def test_the_largest_draw_stays_inside(self):
        weight_U = np.array([0.1, 0.2, 0.3, 0.0])
        assert _draw(weight_U, np.zeros(4, dtype=bool), np.arange(4), 1.0) == 2


class TestSharpe:
    @pytest.mark.parametrize("prior", ["uniform", "model"])
    def test_it_is_mean_over_deviation_of_the_gradient_size(self, prior):
        """Equations 6 to 8, with the gradients of both answers at the mean reward."""
        view = view_of(pool_of())
        mean_R, table_RH = view.rewards_KR.double().mean(dim=0).numpy(), view.embedding_RH.double().numpy()
        ratios = []
        for first, second in view.pool.responses_of_pair_N2[view.unlabelled_U]:
            p_first = 1 / (1 + np.exp(mean_R[second] - mean_R[first]))
            length = np.linalg.norm(table_RH[first] - table_RH[second])
            sizes = np.array([(1 - p_first) * length, p_first * length])
            answers = np.array([0.5, 0.5] if prior == "uniform" else [p_first, 1 - p_first])
            mean = answers @ sizes
            ratios.append(mean / np.sqrt(answers @ (sizes - mean) ** 2))
        order = np.argsort(-np.array(ratios))[:9]
        selection = Sharpe(prior=prior).select(view, 9, stream(0))
        np.testing.assert_array_equal(selection.pairs_B, view.unlabelled_U[order])
        np.testing.assert_allclose(selection.scores_B, np.array(ratios)[order], rtol=1e-6)

    @pytest.mark.parametrize("prior", ["uniform", "model"])
    @pytest.mark.parametrize("scale", [0.0, 1e6])
    def test_equal_and_far_rewards_have_finite_scores(self, prior, scale):
        model = LinearRewards(4)
        model.weights_KD = model.weights_KD * scale
        view = view_of(pool_of(), model=model)
        assert np.isfinite(Sharpe(prior=prior).select(view, len(view.unlabelled_U), stream(0)).scores_B).all()
