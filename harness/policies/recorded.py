"""The batches that a finished cell of another run acquired, for a posterior that did not choose them."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_serializer

from balbench.harness.policies.policy import Policy, PoolView, Selection
from balbench.harness.streams import Stream


class Recorded(Policy):
    """A policy that repeats the batches of another cell. `balbench transfer` makes such policies; no study names one.

    In study.json and in reports, a recorded policy has the settings of the policy that chose the batches.
    """

    family: ClassVar[str] = "recorded"
    source: ClassVar[str] = "Lowell et al. 2019, arXiv 1807.04801"
    cost: ClassVar[str] = "B"
    needs_rewards: ClassVar[bool] = False

    buyer: dict[str, Any]
    """Settings of the policy that chose the batches, as in study.json."""
    batches: tuple[tuple[int, ...], ...] = Field(repr=False)
    """Pairs that each round acquired, in order."""

    @model_serializer
    def _settings_of_the_buyer(self) -> dict[str, Any]:
        return self.buyer

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Return the recorded batch of this round. Scores are not recorded, so they are NaN."""
        pairs_B = np.array(self.batches[view.round], dtype=np.int64)
        return Selection(pairs_B, np.full(len(pairs_B), np.nan))
