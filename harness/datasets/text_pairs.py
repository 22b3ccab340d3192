"""Gather votes into tables of prompts, responses and pairs: texts without features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from balbench.harness.datasets.reading import Layout, OodRule, Vote, json_rows, show, votes
from balbench.harness.streams import Stream
from balbench.oracles.annotations import Choice

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class TextPairs:
    """Prompts, responses, pairs and votes.

    Axes: N pairs, R responses, P prompts, V votes (votes on the same pair are adjacent, in the order of the file).

    Attributes:
        prompt_P: distinct prompts, in the order of their first appearance.
        response_R: distinct responses to each prompt, in the order of their first appearance.
        prompt_of_response_R: the prompt that each response answers.
        responses_of_pair_N2: the two responses of each pair, in the order shown (first, second).
        pair_id_N: 16 hexadecimal digits that depend on the pair's three texts only, in either order.
        vote_pair_V: the pair of each vote, ascending.
        vote_choice_V: int8 `Choice` values.
        vote_annotator_V: the annotator of each vote ("" if unknown).
        ood_P: whether any row of the prompt matched the `OodRule`.
        group_keys: the group keys that rows give to prompts, as (prompt, key); None if rows have none.
    """

    prompt_P: list[str]
    response_R: list[str]
    prompt_of_response_R: Array
    responses_of_pair_N2: Array
    pair_id_N: Array
    vote_pair_V: Array
    vote_choice_V: Array
    vote_annotator_V: Array
    ood_P: Array
    group_keys: tuple[tuple[int, str], ...] | None = None


def read_pairs(
    path: Path, layout: Layout, order: Stream, ood: OodRule | None = None, group: str | None = None
) -> TextPairs:
    """Read a .jsonl or .jsonl.gz file (see `votes` and `gather`).

    Raises:
        DataError: the file cannot be read, or a row is invalid; one line with the row and the remedy.
    """
    return gather(votes(json_rows(path), str(path), layout, ood, group), order)


def gather(rows: Iterable[Vote], order: Stream) -> TextPairs:
    """Gather votes into pairs; votes on the same prompt and the same two responses belong to one pair.

    Args:
        rows: the votes.
        order: the stream that decides by pair id which response comes first, for rows that do not define the order.
            For other rows the first row about a pair decides.

    Raises:
        DataError: two rows contradict each other in their id or prompt_id.
    """
    tables = _Tables(order)
    for vote in rows:
        tables.add(vote)
    return tables.finish()


def pair_id(prompt: str, response: str, other: str) -> str:
    """Return 16 hexadecimal digits that name a pair, the same for either order of its responses."""
    low, high = sorted((response, other))
    digest = hashlib.sha256()
    for text in (prompt, low, high):
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:16]


class _Tables:
    """Tables that grow by one vote at a time."""

    def __init__(self, order: Stream) -> None:
        self.order = order
        self.prompts: dict[str, int] = {}
        self.ood: list[bool] = []
        self.responses: dict[tuple[int, str], int] = {}
        self.pairs: dict[tuple[int, int], int] = {}  # by the lower and the higher row of the response table
        self.pair_ids: list[str] = []
        self.shown: list[tuple[int, int]] = []
        self.votes: list[tuple[int, Choice, str]] = []
        self.line_of_id: dict[str, int] = {}
        self.name_of_prompt: dict[int, tuple[str, int]] = {}
        self.prompt_of_name: dict[str, tuple[int, int]] = {}
        self.group_keys: dict[tuple[int, str], None] = {}

    def add(self, vote: Vote) -> None:
        """Add a vote."""
        self._check_id(vote)
        prompt = self.prompts.setdefault(vote.prompt, len(self.prompts))
        if prompt == len(self.ood):
            self.ood.append(False)
        self.ood[prompt] |= vote.ood
        if vote.group is not None:
            self.group_keys[prompt, vote.group] = None
        self._check_prompt_id(vote, prompt)
        first, second = (
            self.responses.setdefault((prompt, text), len(self.responses)) for text in (vote.first, vote.second)
        )
        key = (min(first, second), max(first, second))
        pair = self.pairs.setdefault(key, len(self.pairs))
        if pair == len(self.shown):
            self.pair_ids.append(pair_id(vote.prompt, vote.first, vote.second))
            # The texts are drawn in alphabetical order, so that the draw does not depend on the chosen response.
            swap = (vote.first > vote.second) != (self.order.uniform(self.pair_ids[pair]) < 0.5)
            self.shown.append((second, first) if vote.shuffle and swap else (first, second))
        choice = vote.choice if self.shown[pair] == (first, second) else Choice(1 - vote.choice)
        self.votes.append((pair, choice, vote.annotator))

    def _check_id(self, vote: Vote) -> None:
        if vote.row_id is None:
            return
        line = self.line_of_id.setdefault(vote.row_id, vote.location.line)
        if line != vote.location.line:
            problem = f"{show(vote.row_id)} is on line {line} too; make ids unique or leave them out"
            raise vote.location.error(problem, "id")

    def _check_prompt_id(self, vote: Vote, prompt: int) -> None:
        """Check that prompt_id and text correspond: a text with two ids would leak between splits."""
        if vote.prompt_id is None:
            return
        same, line = self.prompt_of_name.setdefault(vote.prompt_id, (prompt, vote.location.line))
        if same != prompt:
            problem = f"{show(vote.prompt_id)} has another prompt on line {line}"
            raise vote.location.error(problem + "; give each prompt its own id or leave prompt_id out", "prompt_id")
        name, line = self.name_of_prompt.setdefault(prompt, (vote.prompt_id, vote.location.line))
        if name != vote.prompt_id:
            problem = f"{show(vote.prompt_id)}, but the same prompt has {show(name)} on line {line}"
            raise vote.location.error(problem + "; give a prompt one id or leave prompt_id out", "prompt_id")

    def finish(self) -> TextPairs:
        """Return the tables as arrays."""
        vote_pair_V = np.array([pair for pair, _, _ in self.votes], dtype=np.int64)
        by_pair_V = np.argsort(vote_pair_V, kind="stable")
        return TextPairs(
            prompt_P=list(self.prompts),
            response_R=[text for _, text in self.responses],
            prompt_of_response_R=np.array([prompt for prompt, _ in self.responses], dtype=np.int64),
            responses_of_pair_N2=np.array(self.shown, dtype=np.int64).reshape(-1, 2),
            pair_id_N=np.array(self.pair_ids, dtype=np.str_),
            vote_pair_V=vote_pair_V[by_pair_V],
            vote_choice_V=np.array([choice for _, choice, _ in self.votes], dtype=np.int8)[by_pair_V],
            vote_annotator_V=np.array([name for _, _, name in self.votes], dtype=np.str_)[by_pair_V],
            ood_P=np.array(self.ood, dtype=bool),
            group_keys=tuple(self.group_keys) or None,
        )
