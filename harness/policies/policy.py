"""The contract of every acquisition policy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from harness.component import Component
from harness.neighbours import NeighbourIndex
from harness.pairs import PreferencePool
from harness.streams import Stream
from harness.uncertainty import Uncertainty, pair_probabilities, uncertainty

Array = np.ndarray


class PoolIndex:
    """What can be computed once from a pool's features and serves all rounds, seeds and policies."""

    def __init__(self, pool: PreferencePool, cache: Path | None = None) -> None:
        """Serve a pool; `cache` is a directory that belongs to it, to share results between processes."""
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
        """The place of each pair in the order of identifiers: noise drawn in that order ignores storage order."""
        rank_N = np.empty(len(self.pool), dtype=np.int64)
        rank_N[np.argsort(self.pool.pair_id_N, kind="stable")] = np.arange(len(self.pool))
        return rank_N


@dataclass(frozen=True, eq=False)
class PoolView:
    """All that a policy may know in a round: features, posterior samples, past acquisitions. No unbought label.

    Attributes:
        index: the pool and what was computed from its features.
        unlabelled_U: pairs that can be acquired, ascending.
        acquired_n: pairs acquired so far, in order.
        rewards_KR: posterior reward samples of all responses (None for policies that do not need them).
        round: number of the round, from 0.
    """

    index: PoolIndex
    unlabelled_U: Array
    acquired_n: Array
    rewards_KR: torch.Tensor | None = None
    round: int = 0

    @property
    def pool(self) -> PreferencePool:
        """The pool."""
        return self.index.pool

    @cached_property
    def uncertainty_U(self) -> Uncertainty:
        """Uncertainties of the unlabelled pairs."""
        assert self.rewards_KR is not None, "the policy must say needs_rewards = True"
        responses_U2 = torch.from_numpy(self.pool.responses_of_pair_N2[self.unlabelled_U]).to(self.rewards_KR.device)
        return uncertainty(pair_probabilities(self.rewards_KR, responses_U2))

    @property
    def epistemic_U(self) -> Array:
        """BALD scores of the unlabelled pairs, in [0, ln 2]."""
        return self.uncertainty_U.epistemic_N.cpu().numpy()

    def uniform_U(self, stream: Stream) -> Array:
        """Uniform noise in (0, 1) for each unlabelled pair, the same however the pool is stored."""
        noise_N = 1.0 - stream.numpy().random(len(self.pool))
        return noise_N[self.index.rank_N[self.unlabelled_U]]


@dataclass(frozen=True)
class Selection:
    """An ordered batch.

    Attributes:
        pairs_B: pair numbers, in the order of acquisition.
        scores_B: the score with which each was taken.
        notes: numbers about the batch that are worth a line in the log.
    """

    pairs_B: Array
    scores_B: Array
    notes: Mapping[str, float] = field(default_factory=dict)


class Policy(Component):
    """An acquisition rule. Its fields are its settings in a study file.

    A subclass says its `family`, `source` (paper and equation), `cost` class and whether it needs posterior
    rewards of the whole pool, and implements `select`.
    """

    family: ClassVar[str] = ""
    source: ClassVar[str] = ""
    cost: ClassVar[str] = "N"  # growth per batch with N pairs, X distinct prompts, B picks
    needs_rewards: ClassVar[bool] = True
    acquires_all: ClassVar[bool] = False  # the whole pool is labelled before the first round

    @abstractmethod
    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Return an ordered batch of unlabelled pairs without repetition, the same for the same stream.

        Args:
            view: what the policy may know.
            batch_size: at most the number of unlabelled pairs.
            stream: the source of all randomness of this call.

        Raises:
            ValueError: a score lies outside its range.
        """


def best(view: PoolView, scores_U: Array, batch_size: int, limits: tuple[float, float]) -> Selection:
    """Take the pairs with the highest scores; ties go to the lowest number."""
    check_range(scores_U, limits)
    order = np.argsort(-scores_U, kind="stable")[:batch_size]
    return Selection(view.unlabelled_U[order], scores_U[order])


def check_range(scores: Array, limits: tuple[float, float], tolerance: float = 1e-6) -> None:
    """Raise ValueError unless all scores are numbers within their limits."""
    low, high = limits
    if len(scores) and not (scores.min() >= low - tolerance and scores.max() <= high + tolerance):
        raise ValueError(f"scores must lie in [{low:.6g}, {high:.6g}]; got [{scores.min():.6g}, {scores.max():.6g}]")
