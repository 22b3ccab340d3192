"""Facts about a file of votes: counts for `data.json`, lines for `balbench check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from balbench.harness.datasets.grouping import PromptGroups
from balbench.harness.datasets.text_pairs import TextPairs
from balbench.oracles.annotations import Choice

Array = np.ndarray


@dataclass(frozen=True)
class RowCounts:
    """Counts of the rows of a file, and of the pairs made from them.

    Attributes:
        rows: number of rows; each is a vote.
        repeated: number of rows that equal an earlier row in pair, choice and annotator.
        pairs, responses, prompts: numbers of distinct pairs, responses and prompts.
        ties: number of pairs with equally many votes for both responses.
        most_votes: largest number of votes on a pair.
        single_votes: number of pairs with one vote.
    """

    rows: int
    repeated: int
    pairs: int
    responses: int
    prompts: int
    ties: int
    most_votes: int
    single_votes: int

    @classmethod
    def of(cls, pairs: TextPairs) -> RowCounts:
        """Count the tables of a file."""
        N = len(pairs.pair_id_N)
        votes_N = np.bincount(pairs.vote_pair_V, minlength=N)
        first_N = np.bincount(pairs.vote_pair_V[pairs.vote_choice_V == Choice.FIRST], minlength=N)
        second_N = np.bincount(pairs.vote_pair_V[pairs.vote_choice_V == Choice.SECOND], minlength=N)
        _, annotator_V = np.unique(pairs.vote_annotator_V, return_inverse=True)
        distinct = np.unique(np.stack([pairs.vote_pair_V, pairs.vote_choice_V, annotator_V]), axis=1).shape[1]
        return cls(
            rows=len(pairs.vote_pair_V),
            repeated=len(pairs.vote_pair_V) - distinct,
            pairs=N,
            responses=len(pairs.response_R),
            prompts=len(pairs.prompt_P),
            ties=int((first_N == second_N).sum()),
            most_votes=int(votes_N.max()),
            single_votes=int((votes_N == 1).sum()),
        )

    def __str__(self) -> str:
        several = self.pairs - self.single_votes
        votes = "one vote each" if not several else f"{several:,} with 2 to {self.most_votes:,} votes"
        more = [
            f"ties or even votes on {self.ties:,} of {self.pairs:,} pairs" if self.ties else "",
            f"{self.repeated:,} of {self.rows:,} rows repeat an earlier row and count as further votes"
            if self.repeated
            else "",
        ]
        return "; ".join(
            [
                f"{self.rows:,} rows are votes on {self.pairs:,} pairs ({votes}) of {self.responses:,} responses"
                f" to {self.prompts:,} prompts",
                *filter(None, more),
            ]
        )


def pairs_of_prompts(pairs: TextPairs) -> Array:
    """Return the prompt of each pair, shape (N,)."""
    return pairs.prompt_of_response_R[pairs.responses_of_pair_N2[:, 0]]


def text_lines(pairs: TextPairs, groups: PromptGroups, splits: Mapping[str, Array]) -> Iterator[str]:
    """Yield lines about rows, groups of prompts and splits; `splits` has the prompts of each split."""
    yield f"schema: {pairs.facts.schema} {pairs.facts.fields}"
    if pairs.facts.unusable:
        yield f"warning: {pairs.facts.unusable_line()}; the study skips them"
    yield f"rows: {RowCounts.of(pairs)}"
    yield f"groups: {groups}"
    pairs_P = np.bincount(pairs_of_prompts(pairs), minlength=len(pairs.prompt_P))
    sizes = [f"{name} {pairs_P[rows].sum():,} pairs of {len(rows):,} prompts" for name, rows in splits.items()]
    yield f"splits: {', '.join(sizes)}"
