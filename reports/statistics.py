"""The paired bootstrap over seeds, and percentiles of samples that may hold infinities."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
FEWEST_SEEDS = 3  # resamples of fewer seeds are too few for an interval
_BOOTSTRAP_SEED = 20_241


@lru_cache(maxsize=16)
def bootstrap_indices(seeds: int, resamples: int = RESAMPLES, seed: int = _BOOTSTRAP_SEED) -> np.ndarray:
    """Draw the seeds of each resample: read-only int64 array (resamples B, seeds S), values in [0, S).

    The same arguments give the same array, so policy and reference are resampled in pairs.

    Raises:
        ValueError: `seeds` is below 1.
    """
    if seeds < 1:
        raise ValueError(f"a bootstrap needs at least one seed, not {seeds}")
    index_BS = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    index_BS.flags.writeable = False
    return index_BS


@lru_cache(maxsize=16)
def resample(seeds: int, resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Draw resamples and keep each distinct resample once: five seeds have at most 126 distinct resamples.

    Resamples are distinct if a seed occurs in them a different number of times; the order of the draws has no meaning.

    Args:
        seeds: number of seeds, S.
        resamples: number of draws, B; may be 0.

    Returns:
        index_US: the distinct resamples, each sorted, read-only; the first is every seed once.
        use_B: the row of `index_US` of each drawn resample, read-only.
    """
    every_1S = np.arange(seeds)[None, :]
    drawn_BS = np.sort(bootstrap_indices(seeds, resamples), axis=1) if resamples else every_1S[:0]
    index_US, use_B = np.unique(np.concatenate([every_1S, drawn_BS]), axis=0, return_inverse=True)
    first = use_B[0]
    order_U = np.concatenate([[first], np.delete(np.arange(len(index_US)), first)])
    index_US, use_B = index_US[order_U], np.argsort(order_U)[use_B[1:]]
    index_US.flags.writeable = use_B.flags.writeable = False
    return index_US, use_B


def resampled_means(values_ST: np.ndarray, index_BS: np.ndarray) -> np.ndarray:
    """Average the drawn rows of `values_ST` (seeds S x rounds T) for each resample: shape (B, T).

    Sums run over seeds in the order of `index_BS` for all rounds, so that equal columns give equal means to the last
    bit. A crossing compares such means; a matrix product does not guarantee their equality.
    """
    total_BT = np.zeros((len(index_BS), values_ST.shape[1]))
    for index_B in index_BS.T:
        total_BT += values_ST[index_B]
    return total_BT / index_BS.shape[1]


def percentile_ends(values_B: np.ndarray) -> tuple[float, float]:
    """Return the two ends of the 95% percentile interval of `values_B`, which may hold -inf and +inf.

    The ends are order statistics, the nearest ones outside: nothing is interpolated, so an infinite end stays
    infinite and never mixes with a number.
    """
    sorted_B = np.sort(values_B)
    tail = (1 - CONFIDENCE) / 2 * (len(sorted_B) - 1)
    # the small number keeps a rounding error from moving the end by one position
    first = math.floor(tail + 1e-9)
    return float(sorted_B[first]), float(sorted_B[len(sorted_B) - 1 - first])
