"""BAL-PM against its definition: all distances, every pick, pair by pair."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.special import digamma

from balbench.harness.policies.bal_pm import BalPm, EntropyOnly
from balbench.harness.policies.policy import PoolView
from balbench.harness.policies.prompt_entropy import nearest_acquired, nearest_weighted, shift_as_coded
from balbench.harness.pool.neighbours import NeighbourIndex
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of


def slow_scores(view: PoolView, policy: BalPm, picked: list[int], radius: dict[int, float]) -> dict[int, float]:
    """Score of every remaining pair: U_i + beta (log(2 D_i + 1e-4) - digamma(n_i + 1) / d)."""
    pool, prompts = view.pool, view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N]
    acquired = [*view.acquired_n.tolist(), *picked]
    scores = {}
    for place, pair in enumerate(view.unlabelled_U.tolist()):
        if pair in picked:
            continue
        distance = distances(prompts[acquired], prompts[pair])
        n = np.sum(distance <= radius[pair] if policy.variant == "as_coded" else distance < radius[pair])
        entropy = np.log(2 * radius[pair] + 1e-4) - digamma(n + 1) / float(policy.digamma_divisor)
        scores[pair] = (view.epistemic_U[place] if policy.uses_uncertainty else 0) + policy.beta * entropy
    assert len(pool) >= len(scores)
    return scores


def slow_radius(view: PoolView, policy: BalPm) -> dict[int, float]:
    prompts = view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N]
    radius = {}
    for pair in view.unlabelled_U.tolist():
        if policy.variant == "as_coded":
            near = np.sort(distances(prompts[view.unlabelled_U], prompts[pair]))
            radius[pair] = near[min(policy.k, len(near)) - 1]
        else:
            others = np.unique(prompts, axis=0)
            near = np.sort(distances(others[(others != prompts[pair]).any(1)], prompts[pair]))
            radius[pair] = near[min(policy.k, len(near)) - 1] if len(near) else 0.0
    return radius


def distances(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    a, b = torch.from_numpy(points), torch.from_numpy(point[None])
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")[:, 0].double().numpy()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["published", "as_coded"]),
    st.integers(1, 6),
    st.sampled_from([0.01, 1.0]),
    st.integers(1, 15),
    st.integers(2, 4),
    st.booleans(),
    st.sampled_from([BalPm, EntropyOnly]),
    st.integers(0, 999),
)
def test_greedy_selection_by_definition(variant, k, beta, prompts, responses, twins, policy_class, seed):
    policy = policy_class(variant=variant, k=k, beta=beta, shift_features=False)
    pool = pool_of(prompts=prompts, responses=responses, seed=seed, twins=twins)
    view = view_of(pool, acquired=len(pool) // 3, seed=seed)
    batch = max(1, len(view.unlabelled_U) // 2)
    selection = policy.select(view, batch, stream(0))
    radius, picked = slow_radius(view, policy), []
    for pair, score in zip(selection.pairs_B.tolist(), selection.scores_B, strict=True):
        scores = slow_scores(view, policy, picked, radius)
        assert score == pytest.approx(max(scores.values()), abs=1e-6)
        assert scores[pair] == pytest.approx(score, abs=1e-6)
        picked.append(pair)


def test_ties_go_to_the_lowest_pair():
    view = view_of(pool_of(constant=True), acquired=0)
    flat = BalPm().fill(view, np.zeros(len(view.unlabelled_U)), 5)
    assert flat.pairs_B.tolist() == [0, 1, 2, 3, 4]


def test_uncertainties_that_round_to_one_score_tie():
    """1e-18 is lost beside an entropy of order one; the lowest number wins, as in the authors' code."""
    view = view_of(pool_of(prompts=1, responses=4), acquired=0)
    uncertainty = np.zeros(6)
    uncertainty[3] = 1e-18
    selection = BalPm(k=1, beta=1.0, variant="as_coded", shift_features=False).fill(view, uncertainty, 2)
    assert selection.pairs_B.tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered")
def test_scores_are_finite_or_the_setting_is_named():
    with pytest.raises(ValidationError, match="less than or equal to 10"):
        BalPm(beta=1e308)
    assert np.isfinite(list(BalPm(beta=1e100).select(view_of(pool_of()), 3, stream(0)).diagnostics.values())).all()
    with pytest.raises(ValueError, match="scores are not finite: the prompt entropy overflows; raise digamma_divisor"):
        BalPm(digamma_divisor=1e-308).select(view_of(pool_of()), 3, stream(0))


def test_more_weight_on_entropy_buys_more_prompts():
    """With k 1 a ball holds its own prompt only: entropy falls there with each pick, and nowhere else."""
    unique = np.zeros(3)
    for seed in range(4):
        pool = pool_of(prompts=30, responses=5, seed=seed)
        view = view_of(pool, acquired=10)  # uncertainties up to about 0.5
        for place, beta in enumerate((0.0, 0.1, 1.0)):
            pairs = BalPm(k=1, beta=beta).select(view, 25, stream(0)).pairs_B
            unique[place] += len(np.unique(pool.prompt_of_pair_N[pairs]))
    assert unique[0] < unique[1] < unique[2]


def test_variants_set_the_switches_and_given_switches_win():
    published, as_coded = BalPm(), BalPm(variant="as_coded")
    assert (published.neighbours, published.ball, published.shift_features) == ("distinct_prompts", "open", False)
    assert (as_coded.neighbours, as_coded.ball, as_coded.shift_features) == ("remaining_pairs", "closed", True)
    assert BalPm(variant="as_coded", ball="open").ball == "open"


@pytest.mark.parametrize("setting", [{"ball": "closed"}, {"neighbours": "remaining_pairs"}, {"digamma_divisor": 2.0}])
def test_settings_that_the_kl_estimator_ignores_are_refused(setting):
    with pytest.raises(ValidationError, match=f"estimator kl does not use {next(iter(setting))}"):
        BalPm(estimator="kl", **setting)


# The KL estimator


def shifted(view: PoolView) -> np.ndarray:
    """The pool's prompts as the authors' code shifts them; the acquired ones stay."""
    prompts = view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N].astype(np.float64)
    left = prompts[view.unlabelled_U]
    if np.ptp(left, axis=0).max() == 0:  # all the same: the authors' code divides by 0, ours leaves them as they are
        return prompts.astype(np.float32)
    return (prompts - left.mean(axis=0) / left.std(axis=0, ddof=1)).astype(np.float32)


def test_a_feature_that_does_not_vary_is_not_shifted():
    points = torch.tensor([[1.0, 5.0], [3.0, 5.0], [100.0, 7.0]])
    actual = shift_as_coded(points, np.array([1, 1, 0]))
    np.testing.assert_allclose(actual[:, 0], points[:, 0] - 2 / np.sqrt(2), rtol=1e-6)
    np.testing.assert_array_equal(actual[:, 1], points[:, 1])
    np.testing.assert_array_equal(shift_as_coded(points, np.array([0, 1, 0])), points)


def slow_kl_scores(view: PoolView, policy: BalPm, picked: list[int]) -> dict[int, float]:
    """Score of every remaining pair: U_i + beta log(2 D_i + 1e-4), D_i to the k-th nearest acquired pair."""
    prompts = view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N]
    own = shifted(view) if policy.shift_features else prompts
    scores = {}
    for place, pair in enumerate(view.unlabelled_U.tolist()):
        if pair in picked:
            continue
        near = np.sort(
            np.concatenate([distances(prompts[view.acquired_n], own[pair]), distances(own[picked], own[pair])])
        )
        entropy = np.log(2 * near[min(policy.k, len(near)) - 1] + 1e-4) if len(near) else 0.0
        scores[pair] = (view.epistemic_U[place] if policy.uses_uncertainty else 0) + policy.beta * entropy
    return scores


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["published", "as_coded"]),
    st.integers(1, 6),
    st.sampled_from([0.01, 1.0]),
    st.integers(2, 15),
    st.integers(2, 4),
    st.booleans(),
    st.sampled_from([0, 1, 3, None]),
    st.sampled_from([BalPm, EntropyOnly]),
    st.integers(0, 999),
)
def test_greedy_selection_with_the_kl_estimator(
    variant, k, beta, prompts, responses, twins, acquired, policy_class, seed
):
    policy = policy_class(variant=variant, estimator="kl", k=k, beta=beta)
    pool = pool_of(prompts=prompts, responses=responses, seed=seed, twins=twins)
    view = view_of(
        pool, acquired=min(len(pool) // 3, 3) if acquired is None else min(acquired, len(pool) - 2), seed=seed
    )
    selection, picked = policy.select(view, max(1, len(view.unlabelled_U) // 2), stream(0)), []
    for pair, score in zip(selection.pairs_B.tolist(), selection.scores_B, strict=True):
        scores = slow_kl_scores(view, policy, picked)
        assert score == pytest.approx(max(scores.values()), abs=1e-6)
        assert scores[pair] == pytest.approx(score, abs=1e-6)
        picked.append(pair)


def slow_nearest(centres: np.ndarray, others: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    repeated = np.repeat(others, counts, axis=0)
    actual = np.full((len(centres), k), np.inf)
    for row, centre in enumerate(centres):
        near = np.sort(np.linalg.norm(repeated.astype(np.float64) - centre, axis=1))[:k]
        actual[row, : len(near)] = near
    return actual


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 150), st.integers(1, 15), st.integers(1, 5), st.sampled_from([0.0, 300.0]), st.integers(0, 999))
def test_nearest_acquired_pairs(acquired, k, most, offset, seed):
    """Candidates, proofs and the index's lists give what all distances give, far from the origin too."""
    rng = np.random.default_rng(seed)
    points = (rng.normal(size=(150, 6)) + offset).astype(np.float32)
    counts = np.zeros(150, dtype=np.int64)
    counts[rng.permutation(150)[:acquired]] = rng.integers(1, most + 1, acquired)
    some = np.flatnonzero(counts)
    expected = slow_nearest(points, points[some], counts[some], k)
    actual = nearest_weighted(torch.from_numpy(points), torch.from_numpy(points[some]), counts[some], k)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    for width in (8, 64):
        np.testing.assert_array_equal(nearest_acquired(NeighbourIndex(points, width), counts, k), actual)


def test_a_row_that_products_cannot_prove_is_done_again():
    """Points so close together, so far from their mean, that float32 products order them at random."""
    rng = np.random.default_rng(0)
    tight = rng.normal(size=(60, 4)) * 1e-3 + np.repeat([[-1e3], [1e3]], 30, axis=0)
    points, counts = tight.astype(np.float32), np.ones(60, dtype=np.int64)
    actual = nearest_weighted(torch.from_numpy(points), torch.from_numpy(points), counts, 5)
    np.testing.assert_allclose(actual, slow_nearest(points, points, counts, 5), rtol=1e-5, atol=1e-12)


def test_notes_split_the_winning_scores():
    view = view_of(pool_of())
    selection = BalPm().select(view, 6, stream(0))
    assert selection.diagnostics["uncertainty_score"] + selection.diagnostics["entropy_score"] == pytest.approx(
        selection.scores_B.mean()
    )
