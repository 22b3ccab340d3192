"""Policies that look at nothing: random choice, and the whole pool at once."""

from __future__ import annotations

from typing import ClassVar

from harness.policies.policy import Policy, PoolView, Selection, best
from harness.streams import Stream


class Random(Policy):
    """Uniform choice without replacement: the reference that label savings are measured against."""

    family: ClassVar[str] = "random"
    source: ClassVar[str] = "-"
    needs_rewards: ClassVar[bool] = False

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Take the pairs with the largest uniform noise."""
        return best(view, view.uniform_U(stream), batch_size, (0.0, 1.0))


class FullData(Random):
    """The whole pool is labelled at once: the level that no choice of labels is expected to exceed."""

    acquires_all: ClassVar[bool] = True
