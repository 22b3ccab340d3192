"""Tokens of texts: pieces of a template, and cuts that remove the prompt before the response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from balbench.harness.datasets.model_files import ModelFiles, another_model
from balbench.harness.errors import DataError

Array = np.ndarray
Cut = Literal["end", "start"]
Part = Literal["prompt", "response", "frame"]  # the frame is the text that the template adds
PARTS: tuple[Part, ...] = ("prompt", "response", "frame")  # in the order in which they are cut
SPECIAL = len(PARTS)  # tokens that the tokenizer adds; they are cut last
TOKENIZER_TEXTS = 512


@dataclass(frozen=True)
class Piece:
    """A part of a text: the prompt, the response, or the text that the template adds."""

    part: Part
    text: str


class Tokens(NamedTuple):
    """The tokens of a text of T tokens, after the cut to the limit.

    Attributes:
        ids_T: token ids, int64, special tokens included.
        part_T: index in PARTS of each token, or SPECIAL.
        uncut: the number of tokens before the cut.
    """

    ids_T: Array
    part_T: Array
    uncut: int


def cut_tokens(part_T: Array, limit: int, cut: Cut = "end") -> Array:
    """Return the indices of the tokens to keep, ascending, at most `limit` of them.

    The prompt is cut at its end (or start); if that is not enough, the response at its end, then the template.

    Args:
        part_T: index in PARTS of each token, or SPECIAL.
        limit: number of tokens to keep.
        cut: end or start, the side at which the prompt is cut.
    """
    index_T = np.arange(len(part_T))
    from_start_T = (part_T == PARTS.index("prompt")) & (cut == "start")
    order = np.lexsort((np.where(from_start_T, index_T, -index_T), part_T))
    return np.sort(order[max(0, len(part_T) - limit) :])


class Tokenizer:
    """A tokenizer of transformers with a limit.

    Attributes:
        model: the tokenizer.
        limit: largest number of tokens of a text.
        role: the role of the model, for errors.
    """

    def __init__(self, model: Any, limit: int, role: str = "encoder") -> None:
        self.model, self.limit, self.role = model, limit, role

    @classmethod
    def load(cls, files: ModelFiles, limit: int, role: str = "encoder") -> Tokenizer:
        """Load the tokenizer of a model.

        Raises:
            DataError: the tokenizer cannot be loaded, or is not a fast tokenizer.
        """
        model = files.load("AutoTokenizer")
        if not model.is_fast:
            raise DataError(f"{files.setting}: {files.name} has no fast tokenizer; {another_model(files)}")
        return cls(model, limit, role)

    def tokens(self, texts: Sequence[Sequence[Piece]], cut: Cut = "end") -> Iterator[Tokens]:
        """Yield the tokens of each text, cut to the limit (see `cut_tokens`).

        Raises:
            DataError: a text has no token.
        """
        for start in range(0, len(texts), TOKENIZER_TEXTS):
            some = texts[start : start + TOKENIZER_TEXTS]
            encoded = self.model(
                ["".join(piece.text for piece in text) for text in some],
                padding=False,
                truncation=False,
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
                verbose=False,
            )
            for row, text in enumerate(some):
                yield self._cut(text, encoded, row, cut)

    def _cut(self, text: Sequence[Piece], encoded: Any, row: int, cut: Cut) -> Tokens:
        ids_T = np.array(encoded["input_ids"][row], dtype=np.int64)
        if not len(ids_T):
            start = "".join(piece.text for piece in text)[:40]
            raise DataError(f"the text {start!r} has no token for the {self.role}; leave its rows out")
        start_T, end_T = np.array(encoded["offset_mapping"][row]).T
        part_of_piece = np.array([PARTS.index(piece.part) for piece in text])
        # A token across a boundary belongs to the piece in which it ends; a token without characters is frame.
        piece_T = np.searchsorted(np.cumsum([len(piece.text) for piece in text]), end_T - 1, side="right")
        piece_T = np.minimum(piece_T, len(text) - 1)
        part_T = np.where(end_T > start_T, part_of_piece[piece_T], PARTS.index("frame")).astype(np.int8)
        part_T[np.array(encoded["special_tokens_mask"][row], dtype=bool)] = SPECIAL
        if len(ids_T) <= self.limit:
            return Tokens(ids_T, part_T, len(ids_T))
        kept = cut_tokens(part_T, self.limit, cut)
        return Tokens(ids_T[kept], part_T[kept], len(ids_T))
