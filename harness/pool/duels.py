"""The pool as duels: prompts with several responses (arms), and the recorded pairs of these responses.

The oracle answers only recorded pairs, so a duel is a recorded pair, read in both directions. All orders are by
identifiers and do not depend on storage: a response is identified by the first pair that contains it, a prompt by its
first pair. Axes: N pairs, P prompts that have pairs, A arms (responses that are in pairs), E directed duels (two for
each pair), S segments.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from balbench.harness.pool.pairs import PreferencePool

Array = np.ndarray


class Segments:
    """Runs of equal labels in a sorted array, and reductions over each run."""

    def __init__(self, label_E: Array) -> None:
        """Find the runs; `label_E` has at least one entry."""
        self.start_S = np.flatnonzero(np.concatenate([[True], label_E[1:] != label_E[:-1]]))
        self.size_S = np.diff(np.append(self.start_S, len(label_E)))
        self.label_S = label_E[self.start_S]

    def max(self, value_E: Array) -> Array:
        """Return the largest value of each segment, shape (S,)."""
        return np.maximum.reduceat(value_E, self.start_S)

    def min(self, value_E: Array) -> Array:
        """Return the smallest value of each segment, shape (S,)."""
        return np.minimum.reduceat(value_E, self.start_S)

    def argmax(self, value_E: Array) -> Array:
        """Return the entry with the largest value of each segment, the first among equals, shape (S,)."""
        entry_E = np.arange(len(value_E))
        return self.min(np.where(value_E == self.spread(self.max(value_E)), entry_E, len(value_E)))

    def spread(self, value_S: Array) -> Array:
        """Return the value of each entry's segment, shape (E,)."""
        return np.repeat(value_S, self.size_S)


@dataclass(frozen=True, eq=False)
class Duels:
    """Directed duels, sorted by prompt, leader, partner and identifier.

    Attributes:
        number_E: number of each duel among all duels of the pool.
        prompt_E: prompt of each duel.
        leader_E: the arm that is chosen first.
        partner_E: the other arm.
        pair_E: the recorded pair of the two arms.
    """

    number_E: Array
    prompt_E: Array
    leader_E: Array
    partner_E: Array
    pair_E: Array

    def __len__(self) -> int:
        return len(self.number_E)

    def where(self, chosen_E: Array) -> Duels:
        """Return the duels at which a mask is true."""
        return Duels(*(getattr(self, item.name)[chosen_E] for item in fields(self)))

    @cached_property
    def by_prompt(self) -> Segments:
        """The duels of each prompt."""
        return Segments(self.prompt_E)

    @cached_property
    def by_leader(self) -> Segments:
        """The duels of each leader."""
        return Segments(self.leader_E)


class DuelPool:
    """The arms of each prompt and the recorded pairs among them.

    Attributes:
        response_A: the response of each arm; arms are sorted by prompt, then by identifier.
        prompt_A: the prompt of each arm, numbered from 0 in the order of identifiers.
        duels: every recorded pair in both directions.
    """

    def __init__(self, pool: PreferencePool, rank_N: Array) -> None:
        """Index a pool; `rank_N` is the position of each pair in the order of identifiers."""
        response_N2, pairs = pool.responses_of_pair_N2, len(pool)
        responses = len(pool.prompt_of_response_R)
        key_R = np.full(responses, 2 * pairs, dtype=np.int64)
        np.minimum.at(key_R, response_N2[:, 0], 2 * rank_N)
        np.minimum.at(key_R, response_N2[:, 1], 2 * rank_N + 1)
        prompt_key = np.full(len(pool.prompt_features_PQ), pairs, dtype=np.int64)
        np.minimum.at(prompt_key, pool.prompt_of_pair_N, rank_N)
        key_of_prompt_R = prompt_key[pool.prompt_of_response_R]
        order_R = np.lexsort((key_R, key_of_prompt_R))
        self.response_A = order_R[key_R[order_R] < 2 * pairs]
        self.prompt_A = np.unique(key_of_prompt_R[self.response_A], return_inverse=True)[1].ravel()
        self._arm_R = np.full(responses, -1, dtype=np.int64)
        self._arm_R[self.response_A] = np.arange(len(self.response_A))
        self.duels = self._directed(response_N2, rank_N)

    def _directed(self, response_N2: Array, rank_N: Array) -> Duels:
        arm_N2 = self._arm_R[response_N2]
        leader_E, partner_E = np.concatenate([arm_N2, arm_N2[:, ::-1]]).T
        pair_E = np.tile(np.arange(len(response_N2)), 2)
        order = np.lexsort((rank_N[pair_E], partner_E, leader_E))
        leader_E = leader_E[order]
        return Duels(np.arange(len(order)), self.prompt_A[leader_E], leader_E, partner_E[order], pair_E[order])

    @property
    def prompts(self) -> int:
        """Number of prompts with pairs."""
        return int(self.prompt_A[-1]) + 1

    def open_duels(self, pairs: Array) -> Duels:
        """Return the duels whose pairs are among `pairs`."""
        open_N = np.zeros(len(self.duels) // 2, dtype=bool)
        open_N[pairs] = True
        return self.duels.where(open_N[self.duels.pair_E])
