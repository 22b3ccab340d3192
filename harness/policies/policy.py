"""The contract of every acquisition policy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch

from balbench.harness.component import Component
from balbench.harness.pool.contents import Contents
from balbench.harness.pool.index import PoolIndex, Responses
from balbench.harness.pool.pairs import PreferencePool
from balbench.harness.posteriors.posterior import FittedPosterior, pair_uncertainty, sampled_rewards
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import LN2, Uncertainty, pair_probabilities

Array = np.ndarray
UncertaintyKind = Literal["epistemic", "predictive", "variance"]


@dataclass(frozen=True, eq=False)
class PoolView:
    """All that a policy may know in a round: features, posterior, past acquisitions. No unbought label.

    Attributes:
        index: the pool and what was computed from its features.
        unlabelled_U: pairs that can be acquired, ascending.
        acquired_n: pairs acquired so far, in order.
        target_n: float64 answers to the acquired pairs: P(first preferred), NaN where the oracle abstained.
        model: the posterior, fitted to the acquired pairs.
        splits: `pool` and the held-out splits by name, without their labels.
        round: number of the round, from 0.
    """

    index: PoolIndex
    unlabelled_U: Array
    acquired_n: Array
    target_n: Array
    model: FittedPosterior
    splits: Mapping[str, Responses]
    round: int = 0

    @property
    def pool(self) -> PreferencePool:
        """The pool."""
        return self.index.pool

    @cached_property
    def rewards_KR(self) -> torch.Tensor:
        """Posterior reward samples of all responses of the pool, float32."""
        return sampled_rewards(self.model, self.splits["pool"].features_RD)

    @cached_property
    def uncertainty_U(self) -> Uncertainty:
        """Uncertainties of the unlabelled pairs."""
        pool = self.splits["pool"]
        return pair_uncertainty(self.model, pool.features_RD, self.responses(self.unlabelled_U), self.rewards_KR)

    @property
    def epistemic_U(self) -> Array:
        """Epistemic uncertainty of the unlabelled pairs: BALD scores, or the posterior's own measure."""
        return self.score_U("epistemic")

    def score_U(self, kind: UncertaintyKind) -> Array:
        """An uncertainty of the unlabelled pairs, float64; its range is checked.

        Raises:
            ValueError: a value lies outside its range.
        """
        found = self.uncertainty_U
        limits = {"epistemic": found.epistemic_range, "predictive": (0.0, LN2), "variance": (0.0, 0.25)}
        scores_U = getattr(found, f"{kind}_N").cpu().numpy()
        check_range(scores_U, limits[kind])
        return scores_U

    def probability_Kn(self, pairs: Array) -> torch.Tensor:
        """P(first preferred) of pairs under each posterior sample, float64 (K, n)."""
        return pair_probabilities(self.rewards_KR, self.responses(pairs))

    def responses(self, pairs: Array) -> torch.Tensor:
        """The two responses of pairs (n, 2), on the device."""
        return self.splits["pool"].responses_N2[torch.from_numpy(pairs)]

    @cached_property
    def embedding_RH(self) -> torch.Tensor:
        """Inputs of the reward model's last layer for all responses of the pool, float32 (see `FittedPosterior`)."""
        return self.model.embedding_RH(self.splits["pool"].features_RD)

    def differences(self, pairs: Array) -> torch.Tensor:
        """Embedding of the first response minus that of the second, float32 (n, H)."""
        responses_n2 = self.responses(pairs)
        return self.embedding_RH[responses_n2[:, 0]] - self.embedding_RH[responses_n2[:, 1]]

    def uniform_U(self, stream: Stream) -> Array:
        """Uniform noise in (0, 1) for each unlabelled pair, the same however the pool is stored."""
        return self.index.uniform_N(stream)[self.unlabelled_U]


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

    A subclass says its `family`, `source` (paper and equation) and `cost` class and whether it needs posterior
    rewards of the whole pool (then these are timed apart and their uncertainties logged), and implements `select`.
    """

    family: ClassVar[str] = ""
    source: ClassVar[str] = ""
    cost: ClassVar[str] = "N"  # growth per batch with N pairs, X distinct prompts, B picks
    needs_rewards: ClassVar[bool] = True
    acquires_all: ClassVar[bool] = False  # the whole pool is labelled before the first round

    def check_data(self, contents: Contents) -> None:
        """Check, before any round and where possible before they are built, that the data hold what the policy needs.

        Raises:
            DataError: it does not; with what is missing and the remedy.
        """

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


def best(
    view: PoolView, scores_U: Array, batch_size: int, limits: tuple[float, float] = (-np.inf, np.inf)
) -> Selection:
    """Take the pairs with the highest scores; ties go to the lowest number.

    Raises:
        ValueError: a score is not a number, or lies outside its limits.
    """
    check_range(scores_U, limits)
    order = np.argsort(-scores_U, kind="stable")[:batch_size]
    return Selection(view.unlabelled_U[order], scores_U[order])


def check_range(scores: Array, limits: tuple[float, float], tolerance: float = 1e-6) -> None:
    """Raise ValueError unless all scores are numbers within their limits."""
    low, high = limits
    if len(scores) and not (scores.min() >= low - tolerance and scores.max() <= high + tolerance):
        raise ValueError(f"scores must lie in [{low:.6g}, {high:.6g}]; got [{scores.min():.6g}, {scores.max():.6g}]")
