"""Stochastic batch acquisition: sample a batch from a distribution given by the scores, by Gumbel noise.

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

FLOOR = 1e-5  # the authors' constant inside the logarithms
FIRST_BETA = 0.25  # where annealing starts, as in the authors' code


def softmax_scores(uncertainty_U: Array, gumbel_U: Array) -> Array:
    """SoftmaxBALD scores U + g (Kirsch et al. 2023, 2106.12059, table 1), shape (U,)."""
    return uncertainty_U + gumbel_U


def power_scores(uncertainty_U: Array, gumbel_U: Array) -> Array:
    """PowerBALD scores log(U + 1e-5) + g (Kirsch et al. 2023, 2106.12059, table 1), shape (U,).

    Raises:
        ValueError: an uncertainty is negative.
    """
    if len(uncertainty_U) and uncertainty_U.min() < 0:
        raise ValueError("power_bald needs uncertainties of 0 or more; take softmax_bald or soft_rank_bald")
    return np.log(uncertainty_U + FLOOR) + gumbel_U


def soft_rank_scores(uncertainty_U: Array, gumbel_U: Array) -> Array:
    """SoftRankBALD scores log(1/rank + 1e-5) + g (Kirsch et al. 2023, 2106.12059, table 1), shape (U,).

    The most uncertain pair has rank 1. No two pairs share a rank: among ties the lower number has the lower one.
    """
    rank_U = np.empty(len(uncertainty_U))
    rank_U[np.argsort(-uncertainty_U, kind="stable")] = np.arange(1, len(uncertainty_U) + 1)
    return np.log(1 / rank_U + FLOOR) + gumbel_U


class _Stochastic(Policy):
    """Top B of a score with Gumbel noise."""

    family: ClassVar[str] = "stochastic"
    source: ClassVar[str] = "Kirsch et al. 2023 (2106.12059) table 1"

    beta: float = Field(1.0, gt=0)
    variant: NoiseVariant = "published"
    uncertainty: UncertaintyKind = "epistemic"

    @abstractmethod
    def scores(self, uncertainty_U: Array, gumbel_U: Array) -> Array:
        """Return the noisy scores, shape (U,)."""

    def beta_at(self, number: int) -> float:
        """Return the noise's inverse scale in a round."""
        return self.beta

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Take the pairs with the largest noisy scores."""
        gumbel_U = gumbel(uniform_noise(view, stream, self.variant), self.beta_at(view.round))
        return take_highest(view, self.scores(view.score_U(self.uncertainty), gumbel_U), batch_size)


class SoftmaxBald(_Stochastic):
    """Sample without replacement with probability proportional to exp(beta U): top B of U + Gumbel(0, 1/beta).

    Attributes:
        beta: inverse temperature; the authors of BAL-PM take 10,000, for their uncertainties are tiny.
        variant: `published` draws new noise in each round. `as_coded` restarts the same noise in all rounds and
            runs, by position in a pool that the seed shuffles once, as the code of BAL-PM does.
        uncertainty: U above; `epistemic` is BALD, or the posterior's own measure where it has one.
    """

    beta: float = Field(10_000.0, gt=0)

    def scores(self, uncertainty_U: Array, gumbel_U: Array) -> Array:
        """See `softmax_scores`."""
        return softmax_scores(uncertainty_U, gumbel_U)


class SoftRankBald(_Stochastic):
    """Sample without replacement with probability proportional to rank^-beta: top B of -log rank + Gumbel(0, 1/beta).

    Attributes:
        beta: how steeply the probability falls with the rank.
        variant: as in `SoftmaxBald`.
        uncertainty: what pairs are ranked by; `epistemic` is BALD, or the posterior's own measure where it has one.
    """

    def scores(self, uncertainty_U: Array, gumbel_U: Array) -> Array:
        """See `soft_rank_scores`."""
        return soft_rank_scores(uncertainty_U, gumbel_U)


class PowerBald(_Stochastic):
    """Sample without replacement with probability proportional to U^beta: top B of log U + Gumbel(0, 1/beta).

    Attributes:
        beta: the exponent.
        anneal_rounds: over how many rounds beta rises, in equal steps, from 0.25 to its value; not at all where
            not given.
        variant: as in `SoftmaxBald`; and in `as_coded` the last step of annealing is missing, so that a beta of 8
            ends at 7.483 after 15 rounds.
        uncertainty: U above; `epistemic` is BALD, or the posterior's own measure where it has one.
    """

    beta: float = Field(8.0, gt=0)
    anneal_rounds: int | None = Field(None, ge=1)

    def beta_at(self, number: int) -> float:
        """Return the exponent in a round."""
        if self.anneal_rounds is None:
            return self.beta
        last = self.anneal_rounds if self.variant == "published" else self.anneal_rounds - 1
        return FIRST_BETA + (self.beta - FIRST_BETA) * min(number, last) / self.anneal_rounds

    def scores(self, uncertainty_U: Array, gumbel_U: Array) -> Array:
        """See `power_scores`."""
        return power_scores(uncertainty_U, gumbel_U)
