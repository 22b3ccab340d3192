"""Stochastic batch acquisition: sample a batch from a distribution given by the scores, by Gumbel noise."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from harness.policies.policy import Array, Policy, PoolView, Selection, best
from harness.streams import Stream

FLOOR = 1e-5  # the authors' constant inside the logarithm


def power_scores(epistemic_U: Array, gumbel_U: Array) -> Array:
    """PowerBALD scores log(U + 1e-5) + g (Kirsch et al. 2023, 2106.12059, table 1), shape (U,)."""
    return np.log(epistemic_U + FLOOR) + gumbel_U


class PowerBald(Policy):
    """Sample without replacement with probability proportional to U^beta: top B of log U + Gumbel(0, 1/beta)."""

    family: ClassVar[str] = "stochastic"
    source: ClassVar[str] = "Kirsch et al. 2023 (2106.12059) table 1"
    beta: float = Field(8.0, gt=0)

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Take the pairs with the largest noisy scores."""
        gumbel_U = -np.log(-np.log(view.uniform_U(stream) * (1 - 1e-16))) / self.beta
        return best(view, power_scores(view.epistemic_U, gumbel_U), batch_size)
