"""Policies that use neither features nor rewards: random choice, and the whole pool at once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from balbench.harness.policies.noise import NoiseVariant, coded_generator, coded_order
from balbench.harness.policies.policy import Policy, PoolView, Selection, take_highest
from balbench.harness.streams import Stream


class Random(Policy):
    """Uniform choice without replacement: the usual reference of label savings."""

    family: ClassVar[str] = "random"
    source: ClassVar[str] = "-"
    needs_rewards: ClassVar[bool] = False
    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    variant: NoiseVariant = "published"
    """`published` draws anew in each round. `as_coded` takes the same positions in all rounds and runs with equally
    many unlabelled pairs, in a pool that the seed shuffles once, as the code of BAL-PM does."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the pairs with the largest uniform noise, or (as coded) the pairs at the first drawn positions."""
        if self.variant == "published":
            return _uniform_choice(view, batch_size, stream)
        U = len(view.unlabelled_U)
        position_B = coded_order(view, stream)[coded_generator().permutation(U)[:batch_size]]
        return Selection(view.unlabelled_U[position_B], 1 - np.arange(batch_size) / U)


class FullData(Policy):
    """The whole pool is labelled at once: no choice of labels is expected to exceed its level."""

    version: ClassVar[int] = 2
    family: ClassVar[str] = "random"
    source: ClassVar[str] = "-"
    needs_rewards: ClassVar[bool] = False
    acquires_all: ClassVar[bool] = True
    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select random pairs. A study never calls this method, because no unlabelled pair is left."""
        return _uniform_choice(view, batch_size, stream)


def _uniform_choice(view: PoolView, batch_size: int, stream: Stream) -> Selection:
    return take_highest(view, view.uniform_U(stream), batch_size, (0.0, 1.0))
