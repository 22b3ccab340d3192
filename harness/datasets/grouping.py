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

from balbench.harness.datasets.text_pairs import TextPairs

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
    texts = [normalise(prompt) for prompt in pairs.prompt_P]
    first = {text: row for row, text in reversed(list(enumerate(texts)))}
    links = [(row, first[text]) for row, text in enumerate(texts) if first[text] != row]
    equal = len(links)
    if pairs.group_keys is None:
        links += _continuations(first, _Responses(pairs, texts))
    else:
        members: dict[str, int] = {}
        links += [(prompt, members.setdefault(key, prompt)) for prompt, key in pairs.group_keys]
    continued = len(links) - equal if pairs.group_keys is None else 0
    return PromptGroups(_components(links, len(texts)), equal, continued)


class _Responses:
    """Normalised responses to each normalised prompt; only short prompts are included."""

    def __init__(self, pairs: TextPairs, texts: Sequence[str]) -> None:
        short = {row for row, text in enumerate(texts) if len(text) < OPENING_CHARACTERS}
        self._of: dict[str, list[str]] = {}
        for response, prompt in zip(pairs.response_R, pairs.prompt_of_response_R.tolist(), strict=True):
            if prompt in short:
                self._of.setdefault(texts[prompt], []).append(normalise(response))

    def continues(self, opening: str, rest: str) -> bool:
        """Whether the rest of a text starts with a response to the opening."""
        return any(starts_with(rest, response) for response in self._of.get(opening, []))


def _continuations(first: dict[str, int], responses: _Responses) -> Iterator[tuple[int, int]]:
    """Yield the row of each prompt that has an opening, and the row of its longest opening."""
    openings: list[str] = []  # each is the start of the next
    for text in sorted(first):
        while openings and not text.startswith(openings[-1]):
            openings.pop()
        opening = next((other for other in reversed(openings) if _begins(other, text, responses)), None)
        if opening is not None:
            yield first[text], first[opening]
        openings.append(text)


def _begins(opening: str, text: str, responses: _Responses) -> bool:
    if not starts_with(text, opening):
        return False
    return len(opening) >= OPENING_CHARACTERS or responses.continues(opening, text[len(opening) :].lstrip())


def _components(links: Sequence[tuple[int, int]], count: int) -> Array:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row_L, column_L = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(row_L), dtype=np.int8), (row_L, column_L)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)
