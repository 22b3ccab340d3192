"""Small pools of all shapes for contract tests."""

import numpy as np
import torch

from harness.pairs import PreferencePool
from harness.policies.policy import PoolIndex, PoolView


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
    )


def view_of(pool: PreferencePool, acquired: int = 5, members: int = 3, seed: int = 1) -> PoolView:
    """A round in which some pairs are acquired and members disagree."""
    rng = np.random.default_rng(seed)
    acquired_n = rng.permutation(len(pool))[:acquired]
    rewards_KR = torch.from_numpy(rng.normal(size=(members, len(pool.response_features_RD)))).float()
    unlabelled_U = np.setdiff1d(np.arange(len(pool)), acquired_n)
    return PoolView(PoolIndex(pool), unlabelled_U, acquired_n, rewards_KR, round=2)


def shuffled(view: PoolView, order: np.ndarray) -> PoolView:
    """The same round with the pool stored in another order: new pair i is old pair order[i]."""
    pool = view.pool
    place = np.argsort(order)
    moved = PreferencePool(
        pool.response_features_RD,
        pool.prompt_features_PQ,
        pool.prompt_of_response_R,
        pool.responses_of_pair_N2[order],
        pool.pair_id_N[order],
    )
    return PoolView(
        PoolIndex(moved), np.sort(place[view.unlabelled_U]), place[view.acquired_n], view.rewards_KR, view.round
    )
