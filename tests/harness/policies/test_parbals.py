"""ParBaLS against its definition: each universe a dense Gaussian over weights, information by loops over answers."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import brentq
from scipy.special import expit

from balbench.harness.policies.parbals import ParBaLS, Universes
from balbench.harness.policies.targets import information
from balbench.harness.posteriors.gaussian import BradleyTerry, Gaussian, Standardiser
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of

SMALL = {"samples": 12, "universes": 3, "targets": 4}


def mutual_information(p_S, q_S):
    joint = {
        (a, b): np.mean((p_S if a else 1 - p_S) * (q_S if b else 1 - q_S)) for a, b in product((True, False), repeat=2)
    }
    first = {a: joint[a, True] + joint[a, False] for a in (True, False)}
    second = {b: joint[True, b] + joint[False, b] for b in (True, False)}
    return sum(joint[a, b] * np.log(joint[a, b] / (first[a] * second[b])) for a, b in joint)


def mode_step(m, v, y):
    """The logit of highest density of N(m, v) after the answer y."""
    return brentq(lambda t: (t - m) / v - (y - expit(t)), m - v - 1, m + v + 1, xtol=1e-13)


class Universe:
    """One pseudo-labelling: the Gaussian's moments and its samples, over weights."""

    def __init__(self, mean, covariance, weights):
        self.mean, self.covariance, self.weights = mean, covariance, weights.copy()

    def answer(self, x, y):
        direction, v, m = self.covariance @ x, x @ self.covariance @ x, x @ self.mean
        t = mode_step(m, v, y)
        slope = expit(t) * expit(-t)
        kappa = (1 - 1 / np.sqrt(1 + slope * v)) / v
        deviation = self.weights - self.mean
        self.mean = self.mean + direction * (y - expit(t))
        self.weights = self.mean + deviation - kappa * np.outer(deviation @ x, direction)
        self.covariance = np.linalg.inv(np.linalg.inv(self.covariance) + slope * np.outer(x, x))


def slowly(policy, view, batch, streams):
    """The ordered batch and its scores, from the definition."""
    known = ~np.isnan(view.label_n)
    pool_pairs = view.pool.responses_of_pair_N2
    used = np.unique(pool_pairs[np.concatenate([view.acquired_n[known], view.unlabelled_U])])
    embedding = view.embedding_RH.double().numpy()[used]
    centre, scale = embedding.mean(0), embedding.std(0) * np.sqrt(embedding.shape[1])

    def rows(table, pairs):
        phi = (table.double().numpy() - centre) / scale
        return phi[pairs[:, 0]] - phi[pairs[:, 1]]

    X = rows(view.embedding_RH, pool_pairs[view.acquired_n[known]])
    posterior = BradleyTerry(torch.from_numpy(X), torch.from_numpy(view.label_n[known])).posterior(1.0)
    split = view.splits[policy.target]
    chosen = streams.child("targets").numpy().permutation(len(split.responses_N2))[: policy.targets]
    target = rows(view.model.embedding_RH(split.features_RD), split.responses_N2.numpy()[chosen])
    pairs = view.unlabelled_U[np.argsort(view.index.rank_N[view.unlabelled_U])]
    candidate = rows(view.embedding_RH, pool_pairs[pairs])
    U = 1 if policy.pseudo_labels == "predictive" else policy.universes
    block = streams.child("block", 0)
    weights = posterior.samples_KH(policy.samples + U, block.child("samples").torch()).numpy()
    samples, labellers = weights[: policy.samples], weights[policy.samples :]
    start = posterior.mean_H.numpy(), posterior.covariance_HH().numpy(), samples
    universes = [Universe(*start) for _ in range(U)]
    picks, scores = [], []
    for _ in range(batch):
        score = np.full(len(pairs), -np.inf)
        for i in set(range(len(pairs))) - set(picks):
            score[i] = np.mean(
                [
                    mutual_information(expit(universe.weights @ candidate[i]), expit(universe.weights @ x))
                    for universe in universes
                    for x in target
                ]
            )
        pick = int(np.argmax(score))
        for u, universe in enumerate(universes):
            p = expit(labellers[u] @ candidate[pick])
            if policy.pseudo_labels == "predictive":
                p = expit(universe.weights @ candidate[pick]).mean()
            noise = view.index.uniform_N(block.child("labels", u))[pairs[pick]]
            threshold = noise if policy.pseudo_labels == "drawn" else 0.5
            universe.answer(candidate[pick], float(p > threshold))
        picks.append(pick)
        scores.append(score[pick])
    return pairs[picks], np.array(scores)


@pytest.mark.parametrize("pseudo_labels", ["likeliest", "drawn", "predictive"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_batch_is_that_of_the_definition(pseudo_labels, seed):
    policy = ParBaLS(pseudo_labels=pseudo_labels, **SMALL)
    view = view_of(pool_of(seed=seed), acquired=8, seed=seed)
    view.label_n[2] = np.nan  # the annotator abstained
    actual = policy.select(view, 6, stream(seed))
    pairs, scores = slowly(policy, view, 6, stream(seed))
    np.testing.assert_array_equal(actual.pairs_B, pairs)
    np.testing.assert_allclose(actual.scores_B, scores, rtol=1e-4, atol=1e-7)


def test_pseudo_labels_matter():
    view = view_of(pool_of(), acquired=8)
    kinds = ("likeliest", "drawn", "predictive")
    batches = {kind: ParBaLS(pseudo_labels=kind, **SMALL).select(view, 20, stream(0)) for kind in kinds}
    assert len({tuple(batch.scores_B[5:]) for batch in batches.values()}) == 3


def test_information_is_that_of_the_joint_table():
    rng = np.random.default_rng(0)
    p, q = rng.random((7, 5)), rng.random((7, 3))
    expected = [np.mean([mutual_information(p[:, i], q[:, j]) for j in range(3)]) for i in range(5)]
    np.testing.assert_allclose(information(torch.from_numpy(p), torch.from_numpy(q)), expected, atol=1e-12)


def test_information_of_certain_answers():
    p = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 0.5]]).double()
    torch.testing.assert_close(information(p, p[:, :1]), torch.tensor([np.log(2), 0.0, 0.0]).double())


def test_samples_follow_the_posterior_of_each_universe():
    # Deviations whose outer products sum to the covariance stay such deviations.
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(8, 3))
    prior = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    spread = prior.spread_HC(torch.from_numpy(rows))
    labels = torch.tensor([[1.0] * 5, [0.0, 1.0, 0.0, 1.0, 0.0]]).double()
    universes = Universes(spread, torch.zeros(8).double(), spread.clone(), labels, shape=(2, 5), picks=3)
    picks = [universes.take()[0] for _ in range(3)]
    for u in range(2):
        mean, precision = np.zeros(3), np.eye(3)
        for x, y in zip(rows[picks], labels[u, picks].numpy(), strict=True):
            direction = np.linalg.solve(precision, x)
            t = mode_step(x @ mean, x @ direction, y)
            mean = mean + direction * (y - expit(t))
            precision = precision + expit(t) * expit(-t) * np.outer(x, x)
        logits = universes._logit_USG[u].numpy()
        deviation = logits - rows @ mean
        np.testing.assert_allclose(deviation.T @ deviation, rows @ np.linalg.inv(precision) @ rows.T, atol=1e-9)
        np.testing.assert_allclose(universes._mean_UG[u], rows @ mean, atol=1e-9)


def test_a_copy_of_a_pick_is_worth_less_than_before():
    pool = pool_of(prompts=10, responses=2)
    pool.response_features_RD[2:4] = pool.response_features_RD[:2]  # pair 1 is pair 0 again
    view = view_of(pool, acquired=0)
    rows = Standardiser(view.embedding_RH).differences(view.embedding_RH, view.responses(np.arange(10)))
    posterior = BradleyTerry(rows[:0], torch.zeros(0)).posterior(0.1)
    samples = posterior.samples_KH(2000, stream(0).torch()) @ rows.mT
    universes = Universes(
        posterior.spread_HC(rows), torch.zeros(10).double(), samples, torch.ones(4, 2).double(), (4, 2), picks=2
    )
    first, second = universes.take(), universes.take()
    assert {first[0], second[0]} == {0, 1}
    assert second[1] < 0.9 * first[1]


def test_the_candidates_do_not_depend_on_the_batch():
    view = view_of(pool_of())
    policy = ParBaLS(candidates=6, **SMALL)
    everything = policy.select(view, len(view.unlabelled_U), stream(0)).pairs_B
    np.testing.assert_array_equal(policy.select(view, 4, stream(0)).pairs_B, everything[:4])
    assert len(set(everything)) == len(view.unlabelled_U)


def test_a_split_that_no_data_set_has_is_refused():
    with pytest.raises(ValidationError, match="target"):
        ParBaLS(target="evil")


def test_answers_bought_change_the_batch():
    view = view_of(pool_of(), acquired=8)
    other = replace(view, label_n=1 - view.label_n)
    first, second = (ParBaLS(**SMALL).select(one, 10, stream(0)) for one in (view, other))
    assert not np.array_equal(first.scores_B, second.scores_B)
