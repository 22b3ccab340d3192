"""Pools for tests of duels, from which some pairs are left out."""

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
