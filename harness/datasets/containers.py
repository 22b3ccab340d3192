"""Rows of data files in batches: JSON lines and arrays, CSV, TSV, parquet, Arrow, `save_to_disk`, folders of shards.

JSON is read by `json_lines`, everything else by Hugging Face `datasets`. The JSON reader of `datasets` would read texts
that look like dates as dates, refuse a column that first appears after ten megabytes, and name no line.
"""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balbench.harness.datasets.compression import SUFFIXES, plain_file
from balbench.harness.datasets.json_lines import Place, array_rows, file_errors, is_array, json_rows
from balbench.harness.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 2000
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
SPLIT = re.compile(r"(?<![a-z])(train|training|dev|eval|validation|valid|val|test)(?![a-z])", re.IGNORECASE)


class Batch:
    """Some successive rows of a file.

    Attributes:
        names: the columns.
        source: the file, for errors.
        unit: what the numbers count, "line" or "row".
        numbers: the number of each row in its file, from 1.
        is_test: whether the rows belong to the split `test`.
    """

    is_test = False

    def __init__(
        self, columns: Mapping[str, Callable[[], list[Any]]], source: str, unit: str, numbers: Sequence[int]
    ) -> None:
        self._columns = columns
        self.names, self.source, self.unit, self.numbers = list(columns), source, unit, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str) -> list[Any]:
        """Return the values of a column; None where a row has no value."""
        return self._columns[name]()

    def place(self, row: int) -> Place:
        """Return the place of a row of this batch."""
        return Place(self.source, self.unit, self.numbers[row])


def batches(parts: Iterable[Path], is_test: bool = False) -> Iterator[Batch]:
    """Yield the rows of data files, and of directories that `save_to_disk` wrote, one after another.

    Raises:
        DataError: a file cannot be read.
    """
    for part in parts:
        for batch in _saved(part) if part.is_dir() else _file(part):
            batch.is_test = is_test
            yield batch


def data_parts(path: Path, split: str | None = None) -> list[Path]:
    """Return the data files and the `save_to_disk` directories of a path, in order.

    Args:
        path: a file, a directory that `save_to_disk` wrote, or a directory with data files.
        split: the split to read, where a directory has several; "all" for all.

    Raises:
        DataError: there are no data files, or there are several splits and none is chosen.
    """
    if not path.is_dir():
        return [path]
    if (path / "state.json").is_file():
        return [path]
    if (path / "dataset_dict.json").is_file():
        parts = sorted(folder for folder in path.iterdir() if (folder / "state.json").is_file())
        return _of_split({part: part.name for part in parts}, path, split)
    parts = data_files(path)
    return _of_split({part: _split_of(part.relative_to(path)) for part in parts}, path, split)


def data_files(path: Path, patterns: Sequence[str] = ("**/*",)) -> list[Path]:
    """Return the data files of a directory that match a pattern, sorted.

    Raises:
        DataError: there are none.
    """
    found = {file for pattern in patterns for file in path.glob(pattern)}
    parts = [file for file in sorted(found) if _is_data(file.relative_to(path)) and file.is_file()]
    if not parts:
        named = "" if tuple(patterns) == ("**/*",) else f" that match {' or '.join(patterns)}"
        raise DataError(f"{path}: the directory has no data files{named} ({', '.join(FORMATS)}, compressed or not)")
    return parts


def _is_data(file: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.parts)
    return not hidden and file.name not in DESCRIPTIONS and _suffix(file) in FORMATS


def _suffix(file: Path) -> str:
    return (file.with_suffix("") if file.suffix in SUFFIXES else file).suffix.lower()


def _split_of(file: Path) -> str:
    found = SPLIT.findall(str(file))
    return found[-1].lower() if found else ""


def _of_split(split_of: dict[Path, str], path: Path, split: str | None) -> list[Path]:
    splits = sorted(set(split_of.values()))
    if split is None and len(splits) > 1:
        names = ", ".join(name or "(none)" for name in splits)
        raise DataError(f"{path}: has the splits {names}; set dataset.split to one of them, or to all")
    if split not in (None, "all", *splits):
        raise DataError(
            f"{path}: has no split {split!r}; set dataset.split to {' or '.join(filter(None, splits)) or 'all'}"
        )
    return [part for part, name in split_of.items() if split in (None, "all", name)]


def _file(path: Path) -> Iterator[Batch]:
    form = FORMATS.get(_suffix(path)) or _sniffed(path)
    if form == "json":
        array = is_array(path)
        rows = array_rows(path) if array else json_rows(path)
        yield from row_batches(rows, str(path), "row" if array else "line")
    else:
        with _read_errors(path, form), plain_file(path) as plain:
            yield from _tables(form, plain, str(path))


def _sniffed(path: Path) -> str:
    """Return the format of a file whose name does not say it."""
    with file_errors(path), path.open("rb") as file:
        start = file.read(6)
    return "parquet" if start.startswith(b"PAR1") else "arrow" if start == b"ARROW1" else "json"


def row_batches(rows: Iterator[tuple[int, dict[str, Any]]], source: str, unit: str) -> Iterator[Batch]:
    """Yield numbered rows as batches of columns."""
    while block := list(islice(rows, BATCH_ROWS)):
        names = dict.fromkeys(name for _, row in block for name in row)
        columns = {name: partial(_values, block, name) for name in names}
        yield Batch(columns, source, unit, [number for number, _ in block])


def _values(block: list[tuple[int, dict[str, Any]]], name: str) -> list[Any]:
    return [row.get(name) for _, row in block]


def _tables(form: str, path: Path, source: str) -> Iterator[Batch]:
    """Yield the rows of a file that `datasets` reads as a stream of Arrow tables."""
    import datasets

    options: dict[str, Any] = {}
    if form in ("csv", "tsv"):
        form, separator = "csv", "\t" if form == "tsv" else ","
        # All columns are texts, and no text ("NA", "null") stands for a missing value.
        names = _header(path, separator)
        features = datasets.Features({name: datasets.Value("string") for name in names})
        options = {"sep": separator, "features": features, "keep_default_na": False, "na_values": []}
    with tempfile.TemporaryDirectory() as locks, _silent(datasets):
        files = [str(path).replace("[", "[[]")]  # names of files are patterns
        stream = datasets.load_dataset(
            form, data_files=files, split="train", streaming=True, cache_dir=locks, **options
        )
        yield from _numbered(stream.with_format("arrow").iter(BATCH_ROWS), source)


def _header(path: Path, separator: str) -> list[str]:
    """Return the names of the columns as pandas reads them.

    Raises:
        ValueError: the first row has more cells than the header; pandas would take some for an index.
    """
    import pandas as pd

    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [len(row) for row in islice(csv.reader(file, delimiter=separator), 2)]
    if len(cells) == 2 and cells[1] > cells[0]:
        raise ValueError(f"the header has {cells[0]} names, but the first row has {cells[1]} cells")
    return [str(name) for name in pd.read_csv(path, sep=separator, nrows=0).columns]


def _saved(path: Path) -> Iterator[Batch]:
    """Yield the rows of a directory that `save_to_disk` wrote; its Arrow files are memory-mapped."""
    with _read_errors(path, "directory of save_to_disk"):
        import datasets

        with _silent(datasets):
            data = datasets.load_from_disk(str(path), keep_in_memory=False)
            yield from _numbered(data.with_format("arrow").iter(BATCH_ROWS), str(path))


def _numbered(tables: Iterator[pa.Table], source: str) -> Iterator[Batch]:
    start = 1
    for table in tables:
        columns = {name: table.column(name).to_pylist for name in table.column_names}
        yield Batch(columns, source, "row", range(start, start + len(table)))
        start += len(table)


@contextmanager
def _silent(datasets: Any) -> Iterator[None]:
    """Keep `datasets` from printing progress bars and messages, and from counting uses over the network."""
    shown, level = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    counts = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _read_errors(path: Path, form: str) -> Iterator[None]:
    """Turn any error of a reader into a DataError of one line."""
    try:
        with file_errors(path) if path.is_file() else nullcontext():
            yield
    except DataError:
        raise
    except Exception as error:  # pandas, pyarrow and datasets have many kinds of errors
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        raise DataError(f"{path}: cannot be read as {form} ({reason}); correct or convert the file") from None
