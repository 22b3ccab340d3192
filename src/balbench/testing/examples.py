"""Small pools, rounds, labelled pairs and records for the checks and for tests of plug-ins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from balbench.harness.policies.policy import PoolView
from balbench.harness.pool.feature_table import FeatureTable, StreamedTable
from balbench.harness.pool.index import PoolIndex, Responses
from balbench.harness.pool.pairs import PreferencePool
from balbench.harness.posteriors.posterior import FittedPosterior, LabelledPairs
from balbench.oracles.annotations import Choice, PairRecords

Array = np.ndarray


def pool_of(
    prompts: int = 12,
    responses: int = 3,
    dimension: int = 4,
    seed: int = 0,
    constant: bool = False,
    twins: bool = False,
) -> PreferencePool:
    """Return a pool of all pairs of `responses` responses to each prompt, in random order of identifiers.

    Args:
        prompts: number of prompts.
        responses: number of responses to each prompt.
        dimension: number of features of prompts and of responses.
        seed: seed of all features.
        constant: whether all features are 1.
        twins: whether each vector of prompt features belongs to two prompts.
    """
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(prompts, dimension)).astype(np.float32)
    if twins:
        features[1::2] = features[: len(features[1::2]) * 2 : 2]
    if constant:
        features[:] = 1.0
    first, second = np.triu_indices(responses, 1)
    pairs = np.concatenate([np.stack([first, second], 1) + prompt * responses for prompt in range(prompts)])
    R = prompts * responses
    return PreferencePool(
        response_features_RD=np.ones((R, dimension), np.float32)
        if constant
        else rng.normal(size=(R, dimension)).astype(np.float32),
        prompt_features_PQ=features,
        prompt_of_response_R=np.repeat(np.arange(prompts), responses),
        responses_of_pair_N2=pairs,
        pair_id_N=np.array([f"pair-{number:04d}" for number in rng.permutation(len(pairs))]),
        response_log_perplexity_R=rng.uniform(1, 4, R).astype(np.float32),
        response_token_entropy_R=rng.uniform(20, 200, R).astype(np.float32),
    )


class LinearRewards:
    """A fitted posterior whose reward samples are linear in the features."""

    def __init__(self, dimension: int, members: int = 3, seed: int = 1) -> None:
        self.weights_KD = torch.from_numpy(np.random.default_rng(seed).normal(size=(members, dimension))).float()

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return rewards, float32 (K, R); each response is scored alone, so its position cannot change its bits."""
        return (self.weights_KD[:, None] * _whole(features_RD)).sum(dim=2)

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the features, float32 (R, D)."""
        return _whole(features_RD).clone()


def _whole(features_RD: FeatureTable) -> torch.Tensor:
    return (
        features_RD if isinstance(features_RD, torch.Tensor) else torch.cat(list(features_RD.split(len(features_RD))))
    )


def view_of(
    pool: PreferencePool, acquired: int = 5, members: int = 3, seed: int = 1, model: FittedPosterior | None = None
) -> PoolView:
    """Return a round of a pool in which some pairs are acquired and the posterior samples disagree.

    Args:
        pool: the pool.
        acquired: number of acquired pairs, drawn at random, with random labels.
        members: number of posterior samples, if no model is given.
        seed: seed of the acquired pairs, of the labels, and of the model if none is given.
        model: the fitted posterior; `LinearRewards` by default.
    """
    rng = np.random.default_rng(seed)
    acquired_n = rng.permutation(len(pool))[:acquired]
    label_n = rng.integers(0, 2, acquired).astype(np.float64)
    unlabelled_U = np.setdiff1d(np.arange(len(pool)), acquired_n)
    dimension = pool.response_features_RD.shape[1]
    held_out = {name: pool_of(dimension=dimension, seed=seed) for seed, name in enumerate(("eval", "test", "ood"), 7)}
    splits = {name: responses_of(split) for name, split in {"pool": pool, **held_out}.items()}
    model = model or LinearRewards(dimension, members, seed)
    return PoolView(PoolIndex(pool), unlabelled_U, acquired_n, label_n, model, splits, round=2)


def on_disk(features_RD: FeatureTable, directory: Path) -> StreamedTable:
    """Return the same features as a table that is read from a file in `directory`."""
    path = directory / f"{len(list(directory.iterdir()))}.npy"
    np.save(path, _whole(features_RD).numpy())
    return StreamedTable.of(np.load(path, mmap_mode="c"), torch.device("cpu"))


def responses_of(pool: PreferencePool) -> Responses:
    """Return the responses and pairs of a pool as policies see them."""
    return Responses(torch.from_numpy(pool.response_features_RD), torch.from_numpy(pool.responses_of_pair_N2))


def shuffled(view: PoolView, order: Array) -> PoolView:
    """Return the same round with the pairs of the pool stored in another order: new pair i is old pair order[i]."""
    pool = replace(
        view.pool, responses_of_pair_N2=view.pool.responses_of_pair_N2[order], pair_id_N=view.pool.pair_id_N[order]
    )
    return _in_pool(view, pool, order)


def _in_pool(view: PoolView, pool: PreferencePool, order: Array) -> PoolView:
    """Return a round with the same pairs in another pool, whose pair i is the old pair order[i]."""
    new_number_N = np.argsort(order)
    return replace(
        view,
        index=PoolIndex(pool),
        unlabelled_U=np.sort(new_number_N[view.unlabelled_U]),
        acquired_n=new_number_N[view.acquired_n],
        splits=dict(view.splits) | {"pool": responses_of(pool)},
    )


def reordered(pool: PreferencePool, seed: int) -> tuple[PreferencePool, Array, Array]:
    """Return the same pool with pairs, responses and prompts stored in other orders.

    Returns:
        The pool, the old number of each new pair, and the old number of each new response.
    """
    rng = np.random.default_rng(seed)
    pair_order, response_order, prompt_order = (
        rng.permutation(count) for count in (len(pool), len(pool.prompt_of_response_R), len(pool.prompt_features_PQ))
    )
    scores = {name: getattr(pool, name) for name in ("response_log_perplexity_R", "response_token_entropy_R")}
    stored = PreferencePool(
        pool.response_features_RD[response_order],
        pool.prompt_features_PQ[prompt_order],
        np.argsort(prompt_order)[pool.prompt_of_response_R[response_order]],
        np.argsort(response_order)[pool.responses_of_pair_N2[pair_order]],
        pool.pair_id_N[pair_order],
        **{name: None if table_R is None else table_R[response_order] for name, table_R in scores.items()},
    )
    return stored, pair_order, response_order


def reordered_view(view: PoolView, seed: int) -> tuple[PoolView, Array]:
    """Return the same round with a reordered pool (see `reordered`), and the old number of each new pair."""
    pool, pair_order, _ = reordered(view.pool, seed)
    return _in_pool(view, pool, pair_order), pair_order


def labelled_pairs(n: int, responses: int = 40, dimension: int = 5, seed: int = 0) -> LabelledPairs:
    """Return `n` labelled pairs of random responses; the first feature of a response is its reward."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(responses, dimension)).astype(np.float32)
    pairs = np.stack([rng.permutation(responses)[:2] for _ in range(n)])
    label_n = (features[pairs[:, 0], 0] > features[pairs[:, 1], 0]).astype(np.float32)
    return LabelledPairs(torch.from_numpy(features), torch.from_numpy(pairs), torch.from_numpy(label_n))


def records_of(pairs: int = 30, seed: int = 0) -> PairRecords:
    """Return records with one to five votes a pair (ties included), true probabilities and lengths of responses."""
    rng = np.random.default_rng(seed)
    pair_V = np.repeat(np.arange(pairs), rng.integers(1, 6, size=pairs))
    return PairRecords(
        pair_id_N=np.array([f"pair-{number}" for number in range(pairs)]),
        vote_pair_V=pair_V,
        vote_choice_V=rng.choice([Choice.FIRST, Choice.SECOND, Choice.TIE], len(pair_V), p=[0.4, 0.4, 0.2]).astype(
            np.int8
        ),
        vote_annotator_V=np.array([f"person-{number}" for number in rng.integers(0, 9, size=len(pair_V))]),
        probability_N=rng.random(pairs),
        response_length_N2=rng.integers(1, 99, size=(pairs, 2)),
    )
