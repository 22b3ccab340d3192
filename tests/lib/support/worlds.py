"""Small pools of all shapes for contract tests."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from balbench.harness.policies.policy import PoolView
from balbench.harness.pool.feature_table import StreamedTable
from balbench.harness.pool.index import PoolIndex, Responses
from balbench.harness.pool.pairs import PreferencePool


def pool_of(
    prompts: int = 12,
    responses: int = 3,
    dimension: int = 4,
    seed: int = 0,
    constant: bool = False,
    twins: bool = False,
) -> PreferencePool:
    """All pairs of `responses` responses to each prompt; with `twins` each prompt's features stand twice."""
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
    """A fitted posterior whose samples are linear in the features."""

    def __init__(self, dimension: int, members: int = 3, seed: int = 1) -> None:
        self.weights_KD = torch.from_numpy(np.random.default_rng(seed).normal(size=(members, dimension))).float()

    def rewards_KR(self, features_RD: torch.Tensor) -> torch.Tensor:
        # One response after another: the same bits wherever it is stored.
        return (self.weights_KD[:, None] * features_RD).sum(dim=2)

    def embedding_RH(self, features_RD: torch.Tensor) -> torch.Tensor:
        return features_RD.clone()


def view_of(pool: PreferencePool, acquired: int = 5, members: int = 3, seed: int = 1, model=None) -> PoolView:
    """A round in which some pairs are acquired and members disagree."""
    rng = np.random.default_rng(seed)
    acquired_n = rng.permutation(len(pool))[:acquired]
    target_n = rng.integers(0, 2, acquired).astype(np.float64)
    unlabelled_U = np.setdiff1d(np.arange(len(pool)), acquired_n)
    dimension = pool.response_features_RD.shape[1]
    model = model or LinearRewards(dimension, members, seed)
    splits = {"pool": responses_of(pool), "eval": responses_of(pool_of(dimension=dimension, seed=7))}
    return PoolView(PoolIndex(pool), unlabelled_U, acquired_n, target_n, model, splits, round=2)


def on_disk(features_RD: torch.Tensor, directory: Path, dtype: type = np.float32) -> StreamedTable:
    """The same features as a table that is read from a file of its own."""
    path = directory / f"{len(list(directory.iterdir()))}.npy"
    np.save(path, features_RD.numpy().astype(dtype))
    return StreamedTable.of(np.load(path, mmap_mode="c"), torch.device("cpu"))


def responses_of(pool: PreferencePool) -> Responses:
    """The responses and pairs of a pool as policies see them."""
    return Responses(torch.from_numpy(pool.response_features_RD), torch.from_numpy(pool.responses_of_pair_N2))


def shuffled(view: PoolView, order: np.ndarray) -> PoolView:
    """The same round with the pool stored in another order: new pair i is old pair order[i]."""
    place = np.argsort(order)
    moved = replace(
        view.pool, responses_of_pair_N2=view.pool.responses_of_pair_N2[order], pair_id_N=view.pool.pair_id_N[order]
    )
    return replace(
        view,
        index=PoolIndex(moved),
        unlabelled_U=np.sort(place[view.unlabelled_U]),
        acquired_n=place[view.acquired_n],
        splits=dict(view.splits) | {"pool": responses_of(moved)},
    )
