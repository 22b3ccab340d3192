"""Results that are computed once from a pool's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from balbench.harness.pool.distances import pair_distances
from balbench.harness.pool.duels import DuelPool
from balbench.harness.pool.feature_table import FeatureTable
from balbench.harness.pool.neighbours import NeighbourIndex
from balbench.harness.pool.pairs import PreferencePool
from balbench.harness.streams import Stream

Array = np.ndarray


class PoolIndex:
    """Results that are computed once from a pool's features and used in all rounds, seeds and policies."""

    def __init__(self, pool: PreferencePool, cache: Path | None = None) -> None:
        """Index a pool; `cache` is a directory of the pool, through which processes share results."""
        self.pool, self._cache = pool, cache

    @cached_property
    def neighbours(self) -> NeighbourIndex:
        """Exact sorted neighbours of the distinct prompts."""
        return NeighbourIndex(self.pool.prompt_features_PQ, cache=self._cache)

    @cached_property
    def point_of_pair_N(self) -> Array:
        """The distinct prompt (point of `neighbours`) of each pair."""
        return self.neighbours.point_of_prompt_P[self.pool.prompt_of_pair_N]

    @cached_property
    def rank_N(self) -> Array:
        """The position of each pair in the order of identifiers; noise in this order does not depend on storage."""
        rank_N = np.empty(len(self.pool), dtype=np.int64)
        rank_N[np.argsort(self.pool.pair_id_N, kind="stable")] = np.arange(len(self.pool))
        return rank_N

    @cached_property
    def duels(self) -> DuelPool:
        """The pool as duels between the responses of each prompt."""
        return DuelPool(self.pool, self.rank_N)

    def uniform_N(self, stream: Stream) -> Array:
        """Return uniform noise in (0, 1) for each pair, independent of the storage order."""
        return (1.0 - stream.numpy().random(len(self.pool)))[self.rank_N]


@dataclass(frozen=True, eq=False)
class Responses:
    """The responses of a split and pairs made of them, on the device of the study: features without labels.

    Attributes:
        features_RD: float32 features of the responses.
        responses_N2: the two responses of each pair.
        known_distances: returns the distances of the pairs; without it they are computed from the features.
    """

    features_RD: FeatureTable
    responses_N2: torch.Tensor
    known_distances: Callable[[], torch.Tensor] | None = None

    @cached_property
    def distance_N(self) -> torch.Tensor:
        """Euclidean distance between the features of each pair's responses, float64 (N,), computed when first used."""
        if self.known_distances is not None:
            return self.known_distances()
        return pair_distances(self.features_RD, self.responses_N2)

    def take(self, pairs: torch.Tensor) -> Responses:
        """Return the pairs with these numbers; their distances come from the distances of all pairs."""
        return Responses(self.features_RD, self.responses_N2[pairs], lambda: self.distance_N[pairs])

    def on_used_responses(self) -> tuple[Responses, torch.Tensor]:
        """Return the same pairs on a table of their own responses only, and the rows of that table in this one."""
        used_R, row_N2 = torch.unique(self.responses_N2, return_inverse=True)
        return Responses(self.features_RD[used_R], row_N2, lambda: self.distance_N), used_R
