"""Distances between the two responses of each pair."""

from __future__ import annotations

import numpy as np
import torch

from balbench.harness.pool.blocks import row_blocks
from balbench.harness.pool.feature_table import FeatureTable

Array = np.ndarray
FARTHEST = 0.05  # share of the pool's pairs that count as the farthest


def pair_distances(features_RD: FeatureTable, responses_N2: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean distance between the features of each pair's responses, float64 (N,), in blocks of pairs.

    Args:
        features_RD: features of the responses.
        responses_N2: the two responses of each pair.
    """
    distances = torch.empty(len(responses_N2), dtype=torch.float64, device=responses_N2.device)
    rows = torch.arange(len(responses_N2), device=responses_N2.device)
    for block in row_blocks(rows, bytes_a_row=24 * features_RD.shape[1]):
        first_bD, second_bD = (features_RD[responses_N2[block, side]].double() for side in (0, 1))
        distances[block] = torch.linalg.vector_norm(first_bD - second_bD, dim=1)
    return distances


class PoolDistances:
    """The distances of a pool's pairs, with which batches are compared."""

    def __init__(self, distance_N: Array) -> None:
        """Summarise the distances of all pairs (see `pair_distances`)."""
        self._distance_N, self._mean = distance_N, float(distance_N.mean())
        self._limit = np.quantile(distance_N, 1 - FARTHEST)

    def facts(self, pairs_B: Array) -> dict[str, float]:
        """Compare a batch with the pool.

        Returns:
            `distance_mean`: mean distance of the batch over the mean of the pool (absent if all distances are 0).
            `farthest_share`: share of the batch whose distance is above the pool's 95% quantile; 0.05 on average if the
            batch is a random choice.
        """
        distance_B = self._distance_N[pairs_B]
        facts = {"farthest_share": float(np.mean(distance_B > self._limit))}
        if self._mean > 0:
            facts["distance_mean"] = float(distance_B.mean()) / self._mean
        return facts
