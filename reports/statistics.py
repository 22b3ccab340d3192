"""The paired bootstrap over seeds, and percentiles of samples that may hold infinities."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
FEWEST_SEEDS = 3  # with fewer, resampling has next to nothing to resample: no interval is given
_BOOTSTRAP_SEED = 20_241


@lru_cache(maxsize=16)
def bootstrap_indices(seeds: int, resamples: int = RESAMPLES, seed: int = _BOOTSTRAP_SEED) -> np.ndarray:
    """Draw the seeds of each resample: read-only int64 array (resamples B, seeds S), values in [0, S).

    The same arguments give the same array, so two policies that are resampled with it are resampled in pairs.

    Raises:
        ValueError: there is no seed to draw from.
    """
    if seeds < 1:
        raise ValueError(f"a bootstrap needs at least one seed, not {seeds}")
    index_BS = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    index_BS.flags.writeable = False
    return index_BS


def resampled_means(values_ST: np.ndarray, index_BS: np.ndarray) -> np.ndarray:
    """Average the drawn rows of `values_ST` (seeds S x steps T) for each resample: shape (B, T).

    Sums run over seeds in the order of `index_BS`, alike for all steps: equal columns give equal means to
    the last bit, which a matrix product does not promise and a crossing (a comparison) needs.
    """
    total_BT = np.zeros((len(index_BS), values_ST.shape[1]))
    for index_B in index_BS.T:
        total_BT += values_ST[index_B]
    return total_BT / index_BS.shape[1]


def percentile_ends(values_B: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the two ends of the percentile interval of `values_B`, which may hold -inf and +inf.

    The ends are order statistics, the nearest ones outside: nothing is interpolated, so an infinite end is
    reported as infinite and never mixed with a number.
    """
    sorted_B = np.sort(values_B)
    tail = (1 - confidence) / 2 * (len(sorted_B) - 1)
    # a rounding error must not move the end by one place
    first = math.floor(tail + 1e-9)
    return float(sorted_B[first]), float(sorted_B[len(sorted_B) - 1 - first])
