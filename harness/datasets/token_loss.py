"""Texts that the encoder receives only in part, and pairs whose responses have the same tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from balbench.harness.datasets.tokens import Tokens

Array = np.ndarray
MANY = 0.05  # a larger share of cut texts gives a warning


@dataclass(frozen=True)
class TokenLoss:
    """Counts of the losses between texts and tokens.

    Attributes:
        texts: texts that were counted.
        cut_texts: texts that are longer than the limit.
        pairs: pairs that were counted.
        pairs_same_by_cut: pairs whose responses have the same tokens, at least one of them because of the cut.
        pairs_same: pairs whose responses have the same tokens without a cut.
    """

    texts: int
    cut_texts: int
    pairs: int
    pairs_same_by_cut: int
    pairs_same: int

    @classmethod
    def of(cls, tokens: Sequence[Tokens], tokens_of_pair_N2: Array) -> TokenLoss:
        """Count losses; `tokens_of_pair_N2` has the indices in `tokens` of the two responses of each pair."""
        cut = np.array([text.uncut > len(text.ids_T) for text in tokens], dtype=bool)
        same_N = np.array(
            [np.array_equal(tokens[a].ids_T, tokens[b].ids_T) for a, b in tokens_of_pair_N2.tolist()], dtype=bool
        )
        by_cut = int((same_N & cut[tokens_of_pair_N2].any(axis=1)).sum()) if len(same_N) else 0
        return cls(len(tokens), int(cut.sum()), len(same_N), by_cut, int(same_N.sum()) - by_cut)

    def warnings(self, limit: int) -> Iterator[str]:
        """Yield one line with the remedy for each kind of loss; `limit` is the largest number of tokens of a text."""
        if self.pairs_same_by_cut:
            yield (
                f"{self.pairs_same_by_cut:,} of {self.pairs:,} pairs have two responses that are the same after the cut"
                f" to {limit} tokens; raise dataset.max_length, or use an encoder for longer texts"
            )
        if self.pairs_same:
            yield (
                f"{self.pairs_same:,} of {self.pairs:,} pairs have two responses that are the same to the encoder's"
                " tokenizer; leave their rows out, or use another encoder"
            )
        if self.cut_texts > MANY * self.texts:
            yield (
                f"{self.cut_texts:,} of {self.texts:,} texts are longer than {limit} tokens and are cut (first the"
                " prompt, then the response); raise dataset.max_length, or use an encoder for longer texts"
            )
