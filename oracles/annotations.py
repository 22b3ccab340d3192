"""Ground truth about pairs (`PairRecords`) and answers of an oracle (`Annotations`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import numpy as np

Array = np.ndarray


class Choice(IntEnum):
    """An annotator's answer to "which response is better?"."""

    SECOND = 0
    FIRST = 1
    TIE = 2
    ABSTAIN = 3


@dataclass(frozen=True)
class PairRecords:
    """Ground truth about N pairs, the source of oracles' answers and of the evaluation on held-out splits.

    Axes: N pairs, V recorded votes (`vote_pair_V` is ascending, so that votes on the same pair are adjacent).

    Attributes:
        pair_id_N: stable identifiers; all of an oracle's randomness about a pair is keyed by its identifier.
        vote_pair_V: the row of each vote's pair.
        vote_choice_V: `Choice` values.
        vote_annotator_V: the annotator of each vote ("" if unknown).
        probability_N: the true P(first preferred), known only for simulated worlds.
        response_length_N2: characters of the two responses, known only for texts.
        vote_strength_V: how strong each preference is, from 0 on; NaN if unknown, None if nothing was recorded.
        vote_seconds_V: seconds that each vote took; NaN if unknown, None if nothing was recorded.
        vote_price_V: price of each vote; NaN if unknown, None if nothing was recorded.
    """

    pair_id_N: Array
    vote_pair_V: Array
    vote_choice_V: Array
    vote_annotator_V: Array
    probability_N: Array | None = None
    response_length_N2: Array | None = None
    vote_strength_V: Array | None = None
    vote_seconds_V: Array | None = None
    vote_price_V: Array | None = None

    def __post_init__(self) -> None:
        if np.any(np.diff(self.vote_pair_V) < 0):
            raise ValueError("vote_pair_V must be ascending")

    def __len__(self) -> int:
        return len(self.pair_id_N)

    @property
    def vote_start_N1(self) -> Array:
        """Offsets of the votes on each pair (N + 1 offsets into the V axis)."""
        return np.searchsorted(self.vote_pair_V, np.arange(len(self) + 1))

    @property
    def votes_N(self) -> Array:
        """The number of votes on each pair."""
        return np.bincount(self.vote_pair_V, minlength=len(self))

    @property
    def first_share_N(self) -> Array:
        """The share of recorded votes for the first response, ties counted half (NaN without votes)."""
        for_first_V = np.select([self.vote_choice_V == Choice.FIRST, self.vote_choice_V == Choice.TIE], [1.0, 0.5], 0.0)
        counts_V = self.vote_choice_V != Choice.ABSTAIN
        first_N = np.bincount(self.vote_pair_V, weights=for_first_V, minlength=len(self))
        votes_N = np.bincount(self.vote_pair_V, weights=counts_V, minlength=len(self))
        return np.divide(first_N, votes_N, out=np.full(len(self), np.nan), where=votes_N > 0)

    def take(self, rows: Array) -> PairRecords:
        """Return the records of some pairs, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        start_N1 = self.vote_start_N1
        count_B = start_N1[rows + 1] - start_N1[rows]
        pair_V = np.repeat(np.arange(len(rows)), count_B)
        within_V = np.arange(len(pair_V)) - np.repeat(np.cumsum(count_B) - count_B, count_B)
        votes = start_N1[rows][pair_V] + within_V
        taken: dict[str, Any] = {
            field.name: value[votes if field.name.endswith("_V") else rows]
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(self, **{**taken, "vote_pair_V": pair_V})


@dataclass(frozen=True)
class Annotations:
    """Answers to B queries.

    Attributes:
        choice_B: int8 `Choice` values.
        annotator_B: name of the annotator of each answer.
        cost_B: price of each answer, in the oracle's currency.
        seconds_B: time that the annotator needed for each answer.
    """

    choice_B: Array
    annotator_B: Array
    cost_B: Array
    seconds_B: Array

    @property
    def label_B(self) -> Array:
        """P(first preferred) to train on: 1, 0, 0.5 for a tie, NaN for an abstention."""
        return np.array([0.0, 1.0, 0.5, np.nan])[self.choice_B]

    def followed_by(self, later: Annotations) -> Annotations:
        """Return these answers followed by later answers."""
        return Annotations(
            *(np.concatenate([getattr(self, item.name), getattr(later, item.name)]) for item in fields(self))
        )

    def totals(self) -> dict[str, float]:
        """Return total cost, total seconds and the number of annotators, independent of the order of the answers."""
        return {
            "cost": math.fsum(self.cost_B),
            "annotator_seconds": math.fsum(self.seconds_B),
            "annotators": len(np.unique(self.annotator_B)),
        }
