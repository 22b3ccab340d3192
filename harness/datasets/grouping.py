"""Groups of prompts: turns of a dialogue, and texts that differ only in white space or Unicode form.

Two prompts belong together if

- their texts are equal after normalisation (Unicode NFKC, runs of white space as one space, ends stripped; upper and
  lower case stay different);
- or one prompt is the opening of the other: the longer text starts with the whole shorter text, which ends at the end
  of a word, and the shorter text has at least OPENING_CHARACTERS characters or the longer text continues with one of
  the recorded responses to the shorter text. Without the last condition a short opening such as "Human: hi" would
  join dialogues that have nothing else in common;
- or the rows give them the same group key (`dataset.group`). If rows have keys, openings are not compared;
- or both belong together with a third prompt.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from balbench.harness.datasets.text_column import TextColumn, TextWriter
from balbench.harness.datasets.text_pairs import TextPairs, codes
from balbench.harness.datasets.votes import text_digest

Array = np.ndarray
OPENING_CHARACTERS = 40  # least length of an opening that counts even if no recorded response follows


@dataclass(frozen=True, eq=False)
class PromptGroups:
    """Groups of P prompts.

    Attributes:
        group_P: the number of each prompt's group, from 0.
        equal: prompts that equal an earlier prompt after normalisation.
        continued: prompts that continue another prompt.
    """

    group_P: Array
    equal: int = 0
    continued: int = 0

    @cached_property
    def size_G(self) -> Array:
        """The number of prompts in each group."""
        return np.bincount(self.group_P)

    def __str__(self) -> str:
        joined = int(self.size_G[self.size_G > 1].sum())
        if not joined:
            return f"{len(self.group_P):,} prompts, no two of which belong together"
        groups = int((self.size_G > 1).sum())
        return (
            f"{joined:,} of {len(self.group_P):,} prompts belong together, in {groups:,} group{'s' * (groups > 1)} that"
            f" no split divides ({self.continued:,} continue another prompt, {self.equal:,} equal another except for"
            f" white space or Unicode form; the largest group has {self.size_G.max():,})"
        )


def normalise(text: str) -> str:
    """Return a text in Unicode form NFKC, with each run of white space replaced by one space."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def starts_with(text: str, opening: str) -> bool:
    """Return whether a text starts with an opening that is not empty and does not end within a word of the text."""
    end = len(opening)
    within_a_word = text[end - 1 : end].isalnum() and text[end : end + 1].isalnum()
    return bool(opening) and text.startswith(opening) and not within_a_word


def group_prompts(pairs: TextPairs) -> PromptGroups:
    """Group the prompts of a data set (the docstring of the module has the rule).

    The prompts are sorted, so that the openings of a text come directly before it: n prompts take O(n log n)
    comparisons.
    """
    texts, first_P = _normalised(pairs)
    rows = np.arange(len(first_P))
    links = np.stack([rows, first_P], axis=1)[first_P != rows].tolist()
    equal = len(links)
    if pairs.group_keys is None:
        links += _continuations(texts, _sorted_rows(texts, first_P), _Responses(pairs, first_P))
    else:
        members: dict[str, int] = {}
        links += [(prompt, members.setdefault(key, prompt)) for prompt, key in pairs.group_keys]
    continued = len(links) - equal if pairs.group_keys is None else 0
    return PromptGroups(_components(links, len(first_P)), equal, continued)


def _normalised(pairs: TextPairs) -> tuple[TextColumn, Array]:
    """Return the normalised prompts, and for each the row of the first prompt with the same text."""
    writer, digests = TextWriter(), bytearray()
    for block in pairs.prompt_P.blocks():
        texts = [normalise(text).encode() for text in block.to_pylist()]
        writer.add(texts)
        digests += b"".join(text_digest(text) for text in texts)
    code_P, first_U = codes(np.frombuffer(digests, dtype=np.uint8).reshape(len(pairs.prompt_P), -1))
    return TextColumn(writer.finish(), np.arange(len(code_P))), first_U[code_P]


def _sorted_rows(texts: TextColumn, first_P: Array) -> Array:
    """Return the rows of distinct texts, in the order of the texts."""
    import pyarrow.compute as pc

    rows = np.unique(first_P)
    return rows[pc.sort_indices(texts.take(rows).array()).to_numpy()]


class _Responses:
    """The responses to each normalised prompt."""

    def __init__(self, pairs: TextPairs, first_P: Array) -> None:
        prompt_R = first_P[pairs.prompt_of_response_R]
        self._responses, self._by_prompt = pairs.response_R, np.argsort(prompt_R, kind="stable")
        self._prompt = prompt_R[self._by_prompt]

    def continues(self, prompt: int, rest: str) -> bool:
        """Whether the rest of a text starts with a response to the prompt."""
        low, high = np.searchsorted(self._prompt, [prompt, prompt + 1])
        return any(starts_with(rest, normalise(text)) for text in self._responses.take(self._by_prompt[low:high]))


def _continuations(texts: TextColumn, rows: Array, responses: _Responses) -> Iterator[tuple[int, int]]:
    """Yield the row of each prompt that has an opening, and the row of its longest opening."""
    openings: list[tuple[int, str]] = []  # each is the start of the next
    for row, text in zip(rows.tolist(), texts.take(rows), strict=True):
        while openings and not text.startswith(openings[-1][1]):
            openings.pop()
        opening = next((other for other, start in reversed(openings) if _begins(other, start, text, responses)), None)
        if opening is not None:
            yield row, opening
        openings.append((row, text))


def _begins(row: int, opening: str, text: str, responses: _Responses) -> bool:
    if not starts_with(text, opening):
        return False
    return len(opening) >= OPENING_CHARACTERS or responses.continues(row, text[len(opening) :].lstrip())


def _components(links: Sequence[Sequence[int]], count: int) -> Array:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row_L, column_L = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(row_L), dtype=np.int8), (row_L, column_L)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)
