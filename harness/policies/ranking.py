"""Rankings by uncertainty that avoid near-duplicates: random groups, or one pair of each prompt."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, UncertaintyKind
from balbench.harness.streams import Stream


class SampleThenRank(Policy):
    """Split the pool into random groups, and draw the batch from the most uncertain pairs of the groups.

    If there are fewer groups than the batch needs, the remaining pairs are split into groups again.
    """

    family: ClassVar[str] = "ranking"
    source: ClassVar[str] = "code of Melo et al. 2024 (2406.10023)"

    group: int = Field(16, ge=1)
    """Number of pairs in a group. With 1 the choice is random; a group as large as the pool gives the top B."""
    uncertainty: UncertaintyKind = "epistemic"
    """The uncertainty that pairs are ranked by; `epistemic` is BALD, or the posterior's own measure if it has one."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the winners of random groups in random order."""
        uncertainty_U = view.score_U(self.uncertainty)
        left, taken = np.arange(len(uncertainty_U)), np.empty(0, dtype=np.int64)
        while len(taken) < batch_size:
            deal_U, draw_U = (view.uniform_U(stream.child(name, len(taken))) for name in ("deal", "draw"))
            winners = group_winners(uncertainty_U[left], deal_U[left], self.group)
            winners = left[winners]
            taken = np.concatenate([taken, winners[np.argsort(draw_U[winners], kind="stable")]])
            left = np.setdiff1d(left, winners, assume_unique=True)
        taken = taken[:batch_size]
        return Selection(view.unlabelled_U[taken], uncertainty_U[taken])


def group_winners(uncertainty_U: Array, noise_U: Array, size: int) -> Array:
    """Return the position of the most uncertain pair of each group (the first among ties), ascending.

    Groups are filled in the order of `noise_U`, with `size` pairs each; the last group can be smaller.
    """
    group_U = np.empty(len(noise_U), dtype=np.int64)
    group_U[np.argsort(noise_U, kind="stable")] = np.arange(len(noise_U)) // size
    order = np.lexsort((-uncertainty_U, group_U))
    first = np.flatnonzero(np.diff(group_U[order], prepend=-1))
    return np.sort(order[first])


class OnePerPrompt(Policy):
    """Top B by uncertainty with at most one pair of each prompt, then a second pair of each prompt, and so on."""

    family: ClassVar[str] = "ranking"
    source: ClassVar[str] = "code of Melo et al. 2024 (2406.10023)"

    uncertainty: UncertaintyKind = "epistemic"
    """The uncertainty that pairs are ranked by; `epistemic` is BALD, or the posterior's own measure if it has one."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Rank pairs, one of each prompt first (deterministic: `stream` is not used)."""
        uncertainty_U = view.score_U(self.uncertainty)
        prompt_U = view.pool.prompt_of_pair_N[view.unlabelled_U]
        order = one_per_group(uncertainty_U, prompt_U)[:batch_size]
        return Selection(view.unlabelled_U[order], uncertainty_U[order])


def one_per_group(score_U: Array, group_U: Array) -> Array:
    """Order positions by score: the best of each group first, then the second best of each, and so on.

    Ties go to the lowest position.
    """
    by_group = np.lexsort((-score_U, group_U))
    start = np.flatnonzero(np.diff(group_U[by_group], prepend=group_U.min(initial=0) - 1))
    turn_U = np.empty(len(score_U), dtype=np.int64)
    turn_U[by_group] = np.arange(len(score_U)) - np.repeat(start, np.diff(start, append=len(score_U)))
    return np.lexsort((-score_U, turn_U))
