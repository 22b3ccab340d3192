"""Distances between the two responses of each pair."""

from __future__ import annotations

import torch

from balbench.harness.pool.blocks import row_blocks
from balbench.harness.pool.feature_table import FeatureTable


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
