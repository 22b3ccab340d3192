"""Stochastic batch acquisition: a batch is sampled with probabilities that grow with the scores, by Gumbel noise.

The top B of score + g, with independent g ~ Gumbel(0, 1/beta), are a sample of B pairs without replacement with
probabilities proportional to exp(beta score).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from pydantic import Field

from balbench.harness.policies.noise import NoiseVariant, gumbel, uniform_noise
from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, UncertaintyKind, take_highest
from balbench.harness.streams import Stream

FLOOR = 1e-5  # constant of the authors inside the logarithms
FIRST_BETA = 0.25  # beta of the first round of annealing, as in the authors' code


def softmax_scores(uncertainty_U: Array, gumbel_U: Array) -> Array:
    """SoftmaxBALD scores U + g (Kirsch et al. 2023, 2106.12059, table 1), shape (U,)."""
    return uncertainty_U + gumbel_U


def power_scores(uncertainty_U: Array, gumbel_U: Array) -> Array:
    """PowerBALD scores log(U + 1e-5) + g (Kirsch et al. 2023, 2106.12059, table 1), shape (U,).

    Raises:
        ValueError: an uncertainty is negative.
    """
    if len(uncertainty_U) and uncertainty_U.min() < 0:
        raise ValueError("power_bald needs uncertainties of 0 or more; use softmax_bald or soft_rank_bald")
    return np.log(uncertainty_U + FLOOR) + gumbel_U


def soft_rank_scores(uncertainty_U: Array, gumbel_U: Array) -> Array:
    """SoftRankBALD scores log(1/rank + 1e-5) + g (Kirsch et al. 2023, 2106.12059, table 1), shape (U,).

    The most uncertain pair has rank 1. No two pairs share a rank: among ties the lower pair number has the lower rank.
    """
    rank_U = np.empty(len(uncertainty_U))
    rank_U[np.argsort(-uncertainty_U, kind="stable")] = np.arange(1, len(uncertainty_U) + 1)
    return np.log(1 / rank_U + FLOOR) + gumbel_U


class _Stochastic(Policy):
    """Top B of a score with Gumbel noise."""

    family: ClassVar[str] = "stochastic"
    source: ClassVar[str] = "Kirsch et al. 2023 (2106.12059) table 1"

    beta: float = Field(1.0, gt=0)
    """Inverse temperature."""
    variant: NoiseVariant = "published"
    """`published` draws new noise in each round. `as_coded` restarts the same noise in all rounds and runs, by position
    in a pool that the seed shuffles once, as the code of BAL-PM does."""
    uncertainty: UncertaintyKind = "epistemic"
    """The uncertainty U of the score; `epistemic` is BALD, or the posterior's own measure if it has one."""

    @abstractmethod
    def scores(self, uncertainty_U: Array, gumbel_U: Array) -> Array:
        """Return the noisy scores, shape (U,)."""

    def beta_at(self, number: int) -> float:
        """Return the inverse temperature of a round."""
        return self.beta

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the pairs with the largest noisy scores."""
        gumbel_U = gumbel(uniform_noise(view, stream, self.variant), self.beta_at(view.round))
        return take_highest(view, self.scores(view.score_U(self.uncertainty), gumbel_U), batch_size)


class SoftmaxBald(_Stochastic):
    """Sample without replacement in proportion to exp(beta U): top B of U + Gumbel(0, 1/beta)."""

    beta: float = Field(10_000.0, gt=0)
    """Inverse temperature. The authors of BAL-PM use 10,000, because their uncertainties are small."""

    def scores(self, uncertainty_U: Array, gumbel_U: Array) -> Array:
        """See `softmax_scores`."""
        return softmax_scores(uncertainty_U, gumbel_U)


class SoftRankBald(_Stochastic):
    """Sample without replacement in proportion to rank^-beta: top B of -log rank + Gumbel(0, 1/beta)."""

    beta: float = Field(1.0, gt=0)
    """Exponent of the rank: with a larger value the probability falls faster."""

    def scores(self, uncertainty_U: Array, gumbel_U: Array) -> Array:
        """See `soft_rank_scores`."""
        return soft_rank_scores(uncertainty_U, gumbel_U)


class PowerBald(_Stochastic):
    """Sample without replacement in proportion to U^beta: top B of log U + Gumbel(0, 1/beta)."""

    beta: float = Field(8.0, gt=0)
    """Exponent of the uncertainty."""
    anneal_rounds: int | None = Field(None, ge=1)
    """Number of rounds in which beta rises from 0.25 to its value, in equal steps. Without a number, beta is constant.
    The variant `as_coded` lacks the last step, so that a beta of 8 ends at 7.483 after 15 rounds."""

    def beta_at(self, number: int) -> float:
        """Return the exponent of a round."""
        if self.anneal_rounds is None:
            return self.beta
        last = self.anneal_rounds if self.variant == "published" else self.anneal_rounds - 1
        return FIRST_BETA + (self.beta - FIRST_BETA) * min(number, last) / self.anneal_rounds

    def scores(self, uncertainty_U: Array, gumbel_U: Array) -> Array:
        """See `power_scores`."""
        return power_scores(uncertainty_U, gumbel_U)
