"""Replay: the oracle that answers with recorded votes of people."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from balbench.oracles.annotations import Annotations, Choice, PairRecords
from balbench.oracles.oracle import Oracle, Stream


class Replay(Oracle):
    """Recorded human votes."""

    version: ClassVar[int] = 1

    votes: Literal["first", "sample", "majority"] = "first"
    """The answer for a pair with several votes: the `first` recorded vote, a vote that is drawn for each seed
    (`sample`), or the `majority` (an even split is a TIE)."""

    def check_records(self, pairs: PairRecords) -> None:
        """Check that each pair has a vote (see `Oracle.check_records`)."""
        if len(pairs) and pairs.votes_N.min() == 0:
            unvoted = str(pairs.pair_id_N[np.argmin(pairs.votes_N)])
            raise ValueError(f"pair {unvoted!r} has no recorded vote to replay; leave such pairs out")

    def annotate(self, pairs: PairRecords, stream: Stream) -> Annotations:
        """Answer from the recorded votes (see `Oracle.annotate`).

        Raises:
            ValueError: a pair has no recorded vote.
        """
        self.check_records(pairs)
        if self.votes == "majority":
            choice_B, annotator_B = _majority(pairs), np.full(len(pairs), "majority")
        else:
            vote_B = pairs.vote_start_N1[:-1]
            if self.votes == "sample":
                draw_B = np.array([stream.uniform("vote", pair_id) for pair_id in pairs.pair_id_N])
                vote_B = vote_B + (draw_B * pairs.votes_N).astype(np.int64)
            choice_B, annotator_B = pairs.vote_choice_V[vote_B], pairs.vote_annotator_V[vote_B]
        return Annotations(choice_B.astype(np.int8), annotator_B, np.ones(len(pairs)), np.zeros(len(pairs)))


def _majority(pairs: PairRecords) -> np.ndarray:
    share_N = pairs.first_share_N
    return np.select(
        [np.isnan(share_N), share_N > 0.5, share_N < 0.5],
        [Choice.ABSTAIN, Choice.FIRST, Choice.SECOND],
        Choice.TIE,
    )
