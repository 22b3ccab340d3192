"""Votes as columns: what reading a file of preferences gives."""

from __future__ import annotations

import hashlib
import re
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from balbench.harness.datasets.json_lines import Place

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray
DIGEST_BYTES = 16


def text_digest(text: bytes) -> bytes:
    """Return DIGEST_BYTES bytes that name a text."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True)
class OodRule:
    """Rows are out of distribution if their `field` contains a match of `pattern`; an empty field does not match."""

    field: str
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class ReadFacts:
    """How a file was read.

    Attributes:
        schema: the name of the schema.
        fields: the columns of the schema.
        rows: number of rows.
        unusable: number of rows that cannot be used, by reason.
    """

    schema: str
    fields: str
    rows: int
    unusable: dict[str, int]

    def unusable_line(self) -> str:
        """Return how many rows cannot be used, with the reasons."""
        count = sum(self.unusable.values())
        by_count = sorted(self.unusable.items(), key=lambda item: (-item[1], item[0]))
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in by_count)
        return f"{count:,} of {self.rows:,} rows cannot be used ({reasons})"


class Places:
    """The file and the number of each row that was read."""

    def __init__(self) -> None:
        self._sources: list[tuple[str, str]] = []
        self._source, self._number = array("i"), array("q")

    def add(self, place: Place) -> None:
        """Append the place of a vote."""
        if not self._sources or self._sources[-1] != (place.source, place.unit):
            self._sources.append((place.source, place.unit))
        self._source.append(len(self._sources) - 1)
        self._number.append(place.number)

    def keep(self, rows: Array) -> None:
        """Keep the places of some votes."""
        self._source = array("i", np.asarray(self._source)[rows].astype("i").tobytes())
        self._number = array("q", np.asarray(self._number)[rows].astype("q").tobytes())

    def __getitem__(self, vote: int) -> Place:
        return Place(*self._sources[self._source[vote]], self._number[vote])


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes as columns. Axes: V votes in the order of the file.

    Attributes:
        texts: texts in groups of three, a prompt and two responses.
        row_V: the group of each vote, ascending.
        digest_V3D: hashes of the three texts of each vote, D bytes each.
        choice_V: int8 `Choice` values.
        ood_V: whether the row matches the `OodRule`.
        test_V: whether the row belongs to the split `test`.
        names: `annotator`, `prompt_id`, `id` and `group` of each vote, "" if unknown; absent without the column.
        numbers: `strength`, `seconds` and `price` of each vote, NaN if unknown; absent without the column.
        shuffle: whether the rows do not say which response was shown first.
        facts: how the file was read.
        places: the place of each vote, for errors.
    """

    texts: pa.LargeStringArray
    row_V: Array
    digest_V3D: Array
    choice_V: Array
    ood_V: Array
    test_V: Array
    names: dict[str, pa.LargeStringArray]
    numbers: dict[str, Array]
    shuffle: bool
    facts: ReadFacts
    places: Places
