"""Read rows as votes, a batch of columns at a time. An error is one line with the place and the remedy."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

from balbench.harness.datasets.containers import Batch
from balbench.harness.datasets.fields import FieldMap, has, near, values
from balbench.harness.datasets.json_lines import Place
from balbench.harness.datasets.labels import MOST_VALUES, LabelMap, canonical, meanings, number
from balbench.harness.datasets.messages import Unusable, kind, show, texts_of
from balbench.harness.datasets.schemas import recognise
from balbench.harness.datasets.text_column import TextWriter
from balbench.harness.datasets.votes import DIGEST_BYTES, OodRule, Places, ReadFacts, Votes, text_digest
from balbench.harness.errors import DataError
from balbench.oracles.annotations import Choice

Array = np.ndarray
NAMES, NUMBERS = ("annotator", "prompt_id", "id"), ("strength", "seconds", "price")
# Labels that are known when a row is read; no label of a file equals one of them.
KNOWN = {"\0first": Choice.FIRST, "\0second": Choice.SECOND, "\0tie": Choice.TIE}
CHOICE_NAME = {choice: name for name, choice in KNOWN.items()}
UnusableRows = Literal["refuse", "skip"]


def read_votes(
    batches: Iterable[Batch],
    source: str,
    fields: FieldMap | None = None,
    ood: OodRule | None = None,
    group: str | None = None,
    unusable: UnusableRows = "refuse",
) -> Votes:
    """Read all rows; rows that cannot be used are counted by reason.

    Args:
        batches: the rows.
        source: the name of the rows' source, for errors.
        fields: the columns of the rows, or some of them; by default those of a known schema.
        ood: which rows are out of distribution.
        group: the column that holds the group key of a row.
        unusable: what to do about rows that cannot be used.

    Raises:
        DataError: the columns or the labels are not clear, rows cannot be used and may not be skipped, or there are no
            rows.
    """
    reader = _Reader(fields, ood, group)
    for batch in batches:
        reader.add(batch)
    return reader.finish(source, unusable)


class _Reader:
    """Votes that grow by a batch at a time."""

    def __init__(self, study: FieldMap | None, ood: OodRule | None, group: str | None) -> None:
        self.study, self.ood, self.group = study, ood, group
        self.schema, self.fields = "", FieldMap()
        self.texts, self.digests = TextWriter(), bytearray()
        self.label, self.code_of = array("i"), dict[str, int]()
        self.is_ood, self.is_test = bytearray(), bytearray()
        self.names: dict[str, TextWriter] = {}
        self.numbers: dict[str, array[float]] = {}
        self.places = Places()
        self.rows, self.unusable = 0, Counter[str]()
        self.first_unusable: tuple[int, DataError] | None = None  # votes before it, and its error

    def add(self, batch: Batch) -> None:
        """Add the votes of a batch."""
        if not self.schema:
            self._open(batch)
        columns = _Columns(batch, self.fields, self.ood, self.group)
        encoded: list[bytes] = []
        rows: list[int] = []
        for row in range(len(batch)):
            try:
                for texts in columns.texts(row):
                    encoded += texts
                    rows.append(row)
            except Unusable as error:
                self._count(error, batch.place(row), len(self.label) + len(rows))
        self._append(columns, encoded, rows)
        self.rows += len(batch)
        if isinstance(self.fields.label, str) and len(self.code_of) > MOST_VALUES:
            self._meanings(batch.source)

    def _open(self, batch: Batch) -> None:
        """Recognise the schema from the first batch, and start the columns of the votes."""
        self.schema, self.fields = recognise(batch, self.study)
        for setting, path in (("dataset.ood_field", self.ood and self.ood.field), ("dataset.group", self.group)):
            if path and not has(batch, path):
                raise batch.place(0).error(f"missing; correct {setting}{near(path, batch.names)}", path)
        given = self.fields.given
        self.names = {
            name: TextWriter() for name in (*NAMES, "group") if name in given or (name == "group" and self.group)
        }
        label = self.fields.label
        has_margin = isinstance(label, LabelMap) and (label.higher is not None or label.middle is not None)
        self.numbers = {name: array("d") for name in NUMBERS if name in given or (name == "strength" and has_margin)}

    def _append(self, columns: _Columns, encoded: list[bytes], rows: list[int]) -> None:
        self.texts.add(encoded)
        self.digests += b"".join(text_digest(text) for text in encoded)
        self.label.extend(self.code_of.setdefault(columns.label[row], len(self.code_of)) for row in rows)
        self.is_ood += bytes(columns.is_ood(row) for row in rows)
        self.is_test += bytes([columns.batch.is_test]) * len(rows)
        for name, writer in self.names.items():
            writer.add([columns.name(name, row).encode("utf-8", "backslashreplace") for row in rows])
        for name, read in self.numbers.items():
            numbers = columns.numbers(name)
            read.extend(numbers[row] for row in rows)
        for row in rows:
            self.places.add(columns.batch.place(row))

    def _count(self, error: Unusable, place: Place, votes: int) -> None:
        self.unusable[error.reason] += 1
        if self.first_unusable is None or votes < self.first_unusable[0]:
            self.first_unusable = votes, place.error(error.problem, error.field)

    def finish(self, source: str, unusable: UnusableRows) -> Votes:
        """Return the votes (errors as in `read_votes`)."""
        if not self.rows:
            raise DataError(f"{source}: no rows; give a file with one comparison a row")
        keep_V, choice_V = self._choices(source)
        facts = ReadFacts(self.schema, str(self.fields), self.rows, dict(self.unusable))
        if self.first_unusable is not None and (unusable == "refuse" or not len(keep_V)):
            several = sum(self.unusable.values()) > 1
            more = f"; {facts.unusable_line()}" if several else ""
            skip = f"; dataset.unusable=skip leaves {'them' if several else 'the row'} out" if len(keep_V) else ""
            raise DataError(f"{self.first_unusable[1]}{more}{skip}")
        self.places.keep(keep_V)
        digest_VD = np.frombuffer(bytes(self.digests), dtype=np.uint8).reshape(-1, 3, DIGEST_BYTES)
        return Votes(
            texts=self.texts.finish(),
            row_V=keep_V,
            digest_V3D=digest_VD[keep_V],
            choice_V=choice_V,
            ood_V=np.frombuffer(bytes(self.is_ood), dtype=bool)[keep_V],
            test_V=np.frombuffer(bytes(self.is_test), dtype=bool)[keep_V],
            names={name: writer.finish().take(keep_V) for name, writer in self.names.items()},
            numbers=self._numbers(keep_V),
            shuffle=not self.fields.has_label,
            facts=facts,
            places=self.places,
        )

    def _numbers(self, keep_V: Array) -> dict[str, Array]:
        numbers = {name: np.array(read, dtype=np.float64)[keep_V] for name, read in self.numbers.items()}
        if "strength" in numbers and "strength" not in self.fields.given:
            decided = numbers["strength"][numbers["strength"] > 0]
            if not len(decided) or decided.min() == decided.max():  # such as labels 1 and 2: no strength was recorded
                del numbers["strength"]
        return numbers

    def _choices(self, source: str) -> tuple[Array, Array]:
        """Return the votes whose labels have a meaning, and their choices; count the others."""
        meaning = [self._meanings(source)[text] for text in self.code_of]
        code_V = np.array(self.label, dtype=np.int64)
        known_C = np.array([choice is not None for choice in meaning], dtype=bool)
        column = self.fields.label.column if isinstance(self.fields.label, LabelMap) else None
        texts = list(self.code_of)
        for vote in np.flatnonzero(~known_C[code_V]).tolist() if len(code_V) else ():
            problem = f"{show(texts[code_V[vote]])} is no value of the label map; add the value or delete the row"
            self._count(Unusable("with a label outside the map", problem, column), self.places[vote], vote)
        keep_V = np.flatnonzero(known_C[code_V]) if len(code_V) else np.zeros(0, np.int64)
        choice_C = np.array([-1 if choice is None else choice for choice in meaning], dtype=np.int8)
        return keep_V, choice_C[code_V[keep_V]]

    def _meanings(self, source: str) -> dict[str, Choice | None]:
        label = self.fields.label
        column, given = (label, None) if isinstance(label, str) else ((label and label.column) or "label", label)
        unknown = [text for text in self.code_of if text not in KNOWN]
        try:
            return {**KNOWN, **meanings(unknown, column, given)}
        except DataError as error:
            raise DataError(f"{source}, field {column!r}: {error}") from None


class _Columns:
    """The columns of a batch, by their part in a preference."""

    def __init__(self, batch: Batch, fields: FieldMap, ood: OodRule | None, group: str | None) -> None:
        self.batch, self.fields, self.ood = batch, fields, ood
        paths = fields.given
        first, second = ("response_a", "response_b") if fields.has_label else ("chosen", "rejected")
        self._shown = (str(paths.get("prompt", "prompt")), str(paths[first]), str(paths[second]))
        self._prompt = values(batch, fields.prompt)
        self._first, self._second = values(batch, paths[first]), values(batch, paths[second])
        self._named = {name: values(batch, paths[name]) for name in NAMES if name in paths}
        if group is not None:
            self._named["group"] = values(batch, group)
        self._path = {**paths, "group": group}
        self._ood = values(batch, ood.field) if ood is not None else []
        self.label, self._margin = _labels(batch, fields)

    def texts(self, row: int) -> list[list[bytes]]:
        """Return the prompt and two responses of each pair of a row, encoded.

        Raises:
            Unusable: a text or the label cannot be used.
        """
        second = self._second[row]
        is_listwise = isinstance(second, list) and bool(second) and isinstance(second[0], str)
        others = second if is_listwise else [second]
        texts = [self._encoded(self._prompt[row], self._first[row], other) for other in others]
        if not self.label[row]:
            column = self.fields.label
            name = column if isinstance(column, str) else (column and column.column) or "label"
            raise Unusable("without a label", "empty; give the label or delete the row", name)
        return texts

    def _encoded(self, prompt: Any, first: Any, second: Any) -> list[bytes]:
        if prompt is None and self.fields.prompt is not None:
            raise Unusable("with a missing text", "missing; give the text or delete the row", self._shown[0])
        texts = texts_of(prompt, first, second, self._shown)
        if texts[1] == texts[2]:
            raise Unusable("with equal responses", "the two responses are the same text; delete the row")
        try:
            return [text.encode() for text in texts]
        except UnicodeEncodeError as error:
            field = self._shown[texts.index(error.object)]
            problem = "half a character (a lone surrogate); write the text as UTF-8"
            raise Unusable("with half a character", problem, field) from None

    def name(self, part: str, row: int) -> str:
        """Return a name, "" if unknown.

        Raises:
            DataError: the value cannot be a name.
        """
        value = self._named[part][row]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        if part == "group" and (missing or value == ""):
            raise self.batch.place(row).error("null; give the row a group key", str(self._path[part]))
        if missing:
            return ""
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)
        drop = "" if part == "group" else f", or set dataset.fields to {{{part}: false}} to leave the column out"
        raise self.batch.place(row).error(
            f"a {kind(value)} ({show(value)}); give text, an integer or null{drop}", str(self._path[part])
        )

    def numbers(self, part: str) -> list[float]:
        """Return the numbers of a column, NaN if unknown."""
        path = self.fields.given.get(part)
        if path is None:
            return self._margin
        if isinstance(path, tuple):
            pairs = zip(*(_numbers(values(self.batch, one)) for one in path), strict=True)
            return [abs(first - second) for first, second in pairs]
        return _numbers(values(self.batch, path))

    def is_ood(self, row: int) -> bool:
        """Whether a row is out of distribution."""
        if self.ood is None or self._ood[row] is None:
            return False
        return self.ood.pattern.search(str(self._ood[row])) is not None


class _Labels(NamedTuple):
    label: list[str]
    margin: list[float]


def _labels(batch: Batch, fields: FieldMap) -> _Labels:
    """Return the label of each row as text ("" if it is empty), and its distance from the middle."""
    label = fields.label
    nothing = [math.nan] * len(batch)
    if label is None:
        return _Labels(["\0first"] * len(batch), nothing)
    if isinstance(label, LabelMap) and label.higher is not None:
        return _higher(*(_numbers(values(batch, path)) for path in label.higher))
    read = values(batch, label if isinstance(label, str) else label.column)
    texts = [canonical(value) or "" for value in read]
    if "tie" in fields.given:
        ties = [canonical(value) in ("true", "1") for value in values(batch, str(fields.tie))]
        texts = ["\0tie" if tie else text for text, tie in zip(texts, ties, strict=True)]
    if isinstance(label, str) or label.middle is None:
        return _Labels(texts, nothing)
    named, rows = label.values, zip(texts, _numbers(read), strict=True)
    return _Labels(texts, [math.nan if text in named else label.margin(value)[1] for text, value in rows])


def _higher(first: list[float], second: list[float]) -> _Labels:
    margins = [one - other for one, other in zip(first, second, strict=True)]
    signs = [0 if margin == 0 else 1 if margin > 0 else -1 for margin in margins]
    name = {0: "\0tie", 1: "\0first", -1: "\0second"}
    return _Labels(
        ["" if math.isnan(margin) else name[sign] for margin, sign in zip(margins, signs, strict=True)],
        [abs(margin) for margin in margins],
    )


def _numbers(column: list[Any]) -> list[float]:
    return [math.nan if (read := number(value)) is None else read for value in column]
