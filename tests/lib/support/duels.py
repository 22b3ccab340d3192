"""Pools for tests of duels: some pairs left out, all tables stored in another order."""

import numpy as np

from balbench.harness.pool.pairs import PreferencePool


def thinned(pool: PreferencePool, share: float, seed: int = 0) -> PreferencePool:
    """The pool with a random share of its pairs; responses stay."""
    kept = np.flatnonzero(np.random.default_rng(seed).random(len(pool)) < share)
    return PreferencePool(
        pool.response_features_RD,
        pool.prompt_features_PQ,
        pool.prompt_of_response_R,
        pool.responses_of_pair_N2[kept],
        pool.pair_id_N[kept],
    )


def restored(pool: PreferencePool, seed: int) -> tuple[PreferencePool, np.ndarray, np.ndarray]:
    """The pool with pairs, responses and prompts stored in other orders.

    Returns:
        The pool, and the old number of each new pair and of each new response.
    """
    rng = np.random.default_rng(seed)
    pair_order, response_order, prompt_order = (
        rng.permutation(count) for count in (len(pool), len(pool.prompt_of_response_R), len(pool.prompt_features_PQ))
    )
    moved = PreferencePool(
        pool.response_features_RD[response_order],
        pool.prompt_features_PQ[prompt_order],
        np.argsort(prompt_order)[pool.prompt_of_response_R[response_order]],
        np.argsort(response_order)[pool.responses_of_pair_N2[pair_order]],
        pool.pair_id_N[pair_order],
    )
    return moved, pair_order, response_order
