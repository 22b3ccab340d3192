"""Read preference files as votes. An invalid file or row gives an error of one line.

Three layouts are read:
    label        prompt, response_a, response_b, label (1: A preferred, 0: B preferred)
    chosen       prompt, chosen, rejected
    transcripts  chosen, rejected; dialogues that are equal up to the last "\\n\\nAssistant:"
Optional fields: id, prompt_id, annotator. Other fields have an effect only as the field of an `OodRule` or a group key.
"""

from __future__ import annotations

import codecs
import difflib
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from balbench.harness.errors import DataError
from balbench.oracles.annotations import Choice

Layout = Literal["auto", "label", "chosen"]
LABEL_KEYS = ("prompt", "response_a", "response_b", "label")
CHOSEN_KEYS = ("prompt", "chosen", "rejected")
LAST_TURN = "\n\nAssistant:"
GZIP_MAGIC = b"\x1f\x8b"
SHOWN_CHARACTERS = 60  # largest length of a value in an error


@dataclass(frozen=True)
class RowLocation:
    """The source and the line of a row, for errors."""

    source: str
    line: int

    def error(self, problem: str, field: str | None = None) -> DataError:
        """Return the error of a row; `problem` ends with the remedy."""
        return DataError(f"{self.source}, line {self.line}" + (f", field {field!r}" if field else "") + f": {problem}")


@dataclass(frozen=True)
class OodRule:
    """Rows are out of distribution if their `field` contains a match of `pattern`."""

    field: str
    pattern: re.Pattern[str]

    def matches(self, row: Mapping[str, Any], location: RowLocation) -> bool:
        """Return whether a row matches; a null value does not match.

        Raises:
            DataError: the row lacks the field.
        """
        if self.field not in row:
            raise location.error(f"missing; correct dataset.ood_field{_near(self.field, row)}", self.field)
        value = row[self.field]
        return value is not None and self.pattern.search(str(value)) is not None


@dataclass(frozen=True)
class Vote:
    """A valid row of a preference file.

    Attributes:
        prompt: text of the prompt.
        first: text of `response_a` or `chosen`.
        second: text of the other response.
        choice: FIRST or SECOND.
        annotator: the annotator ("" if unknown).
        prompt_id: the file's name for the prompt, if any.
        row_id: the file's name for the row, if any.
        ood: whether the row matches the `OodRule`.
        shuffle: whether the row does not say which response was shown first.
        location: source and line of the row.
        group: the row's group key, None without one (see `balbench.harness.datasets.grouping`).
    """

    prompt: str
    first: str
    second: str
    choice: Choice
    annotator: str
    prompt_id: str | None
    row_id: str | None
    ood: bool
    shuffle: bool
    location: RowLocation
    group: str | None = None


def votes(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    source: str,
    layout: Layout,
    ood: OodRule | None = None,
    group: str | None = None,
) -> Iterator[Vote]:
    """Read rows as votes.

    Args:
        rows: line numbers and rows.
        source: the name of the rows' source, for errors.
        layout: see the docstring of the module; `auto` depends on the keys of the first row.
        ood: which rows are out of distribution.
        group: the field that holds the group key of a row.

    Raises:
        DataError: a row is invalid, or there are no rows.
    """
    location = None
    for line, row in rows:
        location = RowLocation(source, line)
        if layout == "auto":
            layout = _detect(row, location)
        yield _parse(row, layout, ood, group, location)
    if location is None:
        raise DataError(f"{source}: no rows; give a file with one JSON object a line")


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, row) of a JSON lines file, plain or gzipped.

    Raises:
        DataError: the file or a line cannot be read.
    """
    for line, text in _lines(path):
        location = RowLocation(str(path), line)
        try:
            row = json.loads(text, object_pairs_hook=_object)
        except _RepeatedKey as error:
            raise location.error("the key occurs twice in the row; remove one of the two", str(error)) from None
        except json.JSONDecodeError as error:
            problem = f"not JSON ({error.msg} at column {error.colno}); write one JSON object a line"
            raise location.error(problem) from None
        except (ValueError, RecursionError):  # a number with thousands of digits, or very deep nesting
            raise location.error("JSON that cannot be read; write one JSON object a line") from None
        if not isinstance(row, dict):
            raise location.error(f"a {_kind(row)}, not an object; write one JSON object a line")
        yield line, row


class _RepeatedKey(Exception):
    """A JSON object has a key twice; the json module would silently use the last value."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    line = 0
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP_MAGIC
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                text = (raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw).decode("utf-8")
                if text.strip():
                    yield line, text.rstrip()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; correct the path") from None
    except UnicodeDecodeError:
        raise RowLocation(str(path), line).error("not UTF-8; convert the file to UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path}: broken gzip data after line {line}; download or compress the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None


def _detect(row: Mapping[str, Any], location: RowLocation) -> Literal["label", "chosen"]:
    label = any(key in row for key in LABEL_KEYS[1:])
    chosen = any(key in row for key in CHOSEN_KEYS[1:])
    if label and chosen:
        raise location.error("keys of two layouts; set dataset.layout to label or chosen")
    if label or chosen:
        return "label" if label else "chosen"
    raise location.error(
        f"the keys ({_known(row)}) fit no layout; give prompt, response_a, response_b, label"
        " or prompt, chosen, rejected"
    )


def _parse(
    row: Mapping[str, Any], layout: Layout, ood: OodRule | None, group: str | None, location: RowLocation
) -> Vote:
    if layout == "label":
        prompt, first, second = (_text(row, key, location, LABEL_KEYS) for key in LABEL_KEYS[:3])
        choice = _label(row, location)
    else:
        first, second = (_text(row, key, location, CHOSEN_KEYS) for key in CHOSEN_KEYS[1:])
        choice = Choice.FIRST
        if "prompt" in row:
            prompt = _text(row, "prompt", location, CHOSEN_KEYS)
        else:
            prompt, first, second = _cut_transcripts(first, second, row, location)
    if first == second:
        raise location.error("the two responses are the same text; delete the line")
    return Vote(
        prompt,
        first,
        second,
        choice,
        annotator=_name(row, "annotator", location) or "",
        prompt_id=_name(row, "prompt_id", location),
        row_id=_name(row, "id", location),
        ood=ood is not None and ood.matches(row, location),
        shuffle=layout == "chosen",
        location=location,
        group=None if group is None else _group(row, group, location),
    )


def _group(row: Mapping[str, Any], field: str, location: RowLocation) -> str:
    if field not in row:
        raise location.error(f"missing; correct dataset.group{_near(field, row)}", field)
    key = _name(row, field, location)
    if key is None:
        raise location.error("null; give the row a group key", field)
    return key


def _near(field: str, row: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(field, list(row), n=1, cutoff=0.6)
    meant = f" (did you mean {show(close[0])}?)" if close else ""
    return f"{meant}; the row's fields are: {_known(row)}"


def _label(row: Mapping[str, Any], location: RowLocation) -> Choice:
    label = _value(row, "label", location, LABEL_KEYS)
    if type(label) is not int or label not in (0, 1):
        raise location.error(
            f"{show(label)} is neither 1 (response_a is preferred) nor 0 (response_b is); leave ties out",
            "label",
        )
    return Choice.FIRST if label == 1 else Choice.SECOND


def _cut_transcripts(chosen: str, rejected: str, row: Mapping[str, Any], location: RowLocation) -> tuple[str, str, str]:
    """Split two dialogues into their common start and the last turn of each."""
    cut = chosen.rfind(LAST_TURN)
    if cut < 0:
        near = _misspelt("prompt", row, CHOSEN_KEYS)
        problem = f"missing, and chosen has no {LAST_TURN!r} that ends a prompt; give the key" + near
        raise location.error(problem, "prompt")
    cut += len(LAST_TURN)
    if rejected.rfind(LAST_TURN) + len(LAST_TURN) != cut or rejected[:cut] != chosen[:cut]:
        raise location.error(
            f"chosen and rejected differ before their last {LAST_TURN!r}; delete the line or give the prompt",
            "rejected",
        )
    shared, ends = chosen[:cut].strip(), (chosen[cut:].strip(), rejected[cut:].strip())
    for key, end in zip(CHOSEN_KEYS[1:], ends, strict=True):
        if not end:
            raise location.error(f"nothing follows the last {LAST_TURN!r}; delete the line", key)
    return shared, *ends


def _value(row: Mapping[str, Any], key: str, location: RowLocation, layout: tuple[str, ...] = ()) -> Any:
    if key not in row:
        near = _misspelt(key, row, layout)
        raise location.error("missing" + (near or f"; the row's keys are: {_known(row)}"), key)
    return row[key]


def _text(row: Mapping[str, Any], key: str, location: RowLocation, layout: tuple[str, ...]) -> str:
    value = _value(row, key, location, layout)
    if not isinstance(value, str):
        raise location.error(f"a {_kind(value)} ({show(value)}); give text", key)
    if not value.strip():
        raise location.error("empty; give the text or delete the line", key)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise location.error("half a character (a lone surrogate); write the text as UTF-8", key) from None
    return value


def _name(row: Mapping[str, Any], key: str, location: RowLocation) -> str | None:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise location.error(f"a {_kind(value)} ({show(value)}); give text, an integer or null", key)


def _misspelt(key: str, row: Mapping[str, Any], layout: tuple[str, ...]) -> str:
    # Keys of the layout, such as response_a and response_b, are not misspellings of each other.
    others = [str(other) for other in row if other not in layout]
    close = difflib.get_close_matches(key, others, n=1, cutoff=0.6)
    return f"; rename {close[0]!r} to {key!r}" if close else ""


def _known(row: Mapping[str, Any]) -> str:
    shown = [show(key) for key in list(row)[:10]]
    return ", ".join([*shown, "..."] if len(row) > 10 else shown) or "none"


def show(value: Any) -> str:
    """Return a value for an error message; a long value is shortened."""
    text = ascii(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "list", str: "string", bool: "truth value", int: "number", float: "number"}
    return kinds.get(type(value), "null")
