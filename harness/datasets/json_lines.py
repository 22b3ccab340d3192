"""Read JSON lines and JSON arrays, strictly: an error names the line, and no value is changed or lost."""

from __future__ import annotations

import codecs
import json
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from balbench.harness.datasets.compression import open_plain
from balbench.harness.datasets.messages import kind
from balbench.harness.errors import DataError

BLOCK_CHARACTERS = 1 << 20
Row = tuple[int, dict[str, Any]]


class Place(NamedTuple):
    """A row of a file, for errors.

    Attributes:
        source: the file.
        unit: "line" or "row".
        number: the number of the row, from 1.
    """

    source: str
    unit: str
    number: int

    def error(self, problem: str, field: str | None = None) -> DataError:
        """Return the error of the row; `problem` ends with the remedy."""
        return DataError(
            f"{self.source}, {self.unit} {self.number}" + (f", field {field!r}" if field else "") + f": {problem}"
        )


def is_array(path: Path) -> bool:
    """Return whether a file's first character that is not white space is "["; it may be compressed.

    Raises:
        DataError: the file cannot be read.
    """
    with file_errors(path) as _, open_plain(path) as file:
        start = file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()
    return start.startswith(b"[")


def json_rows(path: Path) -> Iterator[Row]:
    """Yield (line number, row) of a JSON lines file, plain or compressed.

    Raises:
        DataError: the file or a line cannot be read.
    """
    for line, text in _lines(path):
        place = Place(str(path), "line", line)
        row = _parsed(text, place)
        if not isinstance(row, dict):
            raise place.error(f"a {kind(row)}, not an object; write one JSON object a line")
        yield line, row


def array_rows(path: Path) -> Iterator[Row]:
    """Yield (row number, row) of a JSON array of objects, plain or compressed (errors as in `json_rows`)."""
    with file_errors(path), open_plain(path) as file:
        for number, row in enumerate(_items(_Characters(path, file)), start=1):
            if not isinstance(row, dict):
                raise Place(str(path), "row", number).error(f"a {kind(row)}, not an object; write an array of objects")
            yield number, row


class _Characters:
    """The text of a file that is read in blocks, and a position in it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.ended = "", False

    def more(self) -> None:
        """Append the next block."""
        raw = self._file.read(BLOCK_CHARACTERS)
        self.text, self.ended = self.text + self._decoder.decode(raw, final=not raw), not raw

    def next(self) -> str:
        """Drop white space; return the next character, "" at the end."""
        while not (left := self.text.lstrip(" \t\r\n")) and not self.ended:
            self.more()
        self.text = left
        return left[:1]

    def skip(self, mark: str) -> str:
        """Drop white space and a mark, if it is next; return the character after it, "" at the end."""
        if self.next() == mark:
            self.text = self.text[1:]
        return self.next()


def _items(characters: _Characters) -> Iterator[Any]:
    """Yield the items of an array one after another, so that the whole file is never in memory."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    number = 1
    characters.skip("[")
    while characters.skip(",") != "]":
        place = Place(str(characters.path), "row", number)
        try:
            item, end = decoder.raw_decode(characters.text)
            if end == len(characters.text) and not characters.ended:
                raise json.JSONDecodeError("the item may go on", characters.text, end)
        except _RepeatedKey as error:
            raise _repeated(place, error) from None
        except json.JSONDecodeError as error:
            if characters.ended:
                raise place.error(f"not JSON ({error.msg}); write an array of objects") from None
            characters.more()
            continue
        except (ValueError, RecursionError):
            raise place.error("JSON that cannot be read; write an array of objects") from None
        yield item
        characters.text = characters.text[end:]
        number += 1
    if characters.skip("]"):
        raise DataError(f"{characters.path}: text after the array; write one array of objects, or one object a line")


class _RepeatedKey(Exception):
    """A JSON object has a key twice; the json module would silently use the last value."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return row


def _repeated(place: Place, error: _RepeatedKey) -> DataError:
    return place.error("the key occurs twice in the row; remove one of the two", str(error))


def _parsed(text: str, place: Place) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _RepeatedKey as error:
        raise _repeated(place, error) from None
    except json.JSONDecodeError as error:
        problem = f"not JSON ({error.msg} at column {error.colno}); write one JSON object a line"
        raise place.error(problem) from None
    except (ValueError, RecursionError):  # a number with thousands of digits, or very deep nesting
        raise place.error("JSON that cannot be read; write one JSON object a line") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    reached = file_errors(path)
    with reached, open_plain(path) as stream:
        for line, raw in enumerate(stream, start=1):
            reached.line = line
            text = (raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw).decode("utf-8")
            if text.strip():
                yield line, text.rstrip()


class file_errors:
    """Context manager that turns errors of reading a file into a DataError of one line.

    Attributes:
        line: the line that was read last, 0 if lines are not counted.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 0

    def __enter__(self) -> file_errors:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{self.path}: no such file; correct the path") from None
        if isinstance(error, UnicodeDecodeError):
            place = f"{self.path}, line {self.line}" if self.line else str(self.path)
            raise DataError(f"{place}: not UTF-8; convert the file to UTF-8") from None
        if isinstance(error, EOFError | zlib.error | lzma.LZMAError) or _is_broken(error):
            after = f" after line {self.line}" if self.line else ""
            remedy = "download or compress the file again"
            raise DataError(f"{self.path}: broken compressed data{after}; {remedy}") from None
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise DataError(f"{self.path}: cannot be read ({reason}); check its permissions") from None


def _is_broken(error: BaseException | None) -> bool:
    """Whether a decompressor raised an OSError of its own, which has no number."""
    return isinstance(error, OSError) and error.errno is None
