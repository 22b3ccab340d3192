"""Texts outside of Python: one Arrow array whose bytes are in a memory-mapped file when they are many."""

from __future__ import annotations

import io
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from balbench.harness.errors import DataError
from balbench.harness.files import cache_directory

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray
MEMORY_BYTES = 1 << 26  # more bytes of text go to a file
BLOCK_ROWS = 4096


class TextWriter:
    """Append texts; `finish` returns them as an Arrow array. The file has no name and ends with the array."""

    def __init__(self) -> None:
        self._file: Any = io.BytesIO()
        self._lengths: list[Array] = []
        self._bytes = 0

    def add(self, texts: Sequence[bytes]) -> None:
        """Append texts in UTF-8.

        Raises:
            DataError: the disk is full, or the cache directory cannot be written.
        """
        block = b"".join(texts)
        self._lengths.append(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
        self._bytes += len(block)
        try:
            if self._bytes > MEMORY_BYTES and isinstance(self._file, io.BytesIO):
                self._to_disk()
            self._file.write(block)
        except OSError as error:
            raise DataError(
                f"{cache_directory()}: no room for {self._bytes:,} bytes of text ({error.strerror or error}); free"
                " space, or set BALBENCH_CACHE to another directory"
            ) from None

    def _to_disk(self) -> None:
        cache_directory().mkdir(parents=True, exist_ok=True)
        memory, self._file = self._file, tempfile.TemporaryFile(dir=cache_directory())  # noqa: SIM115
        self._file.write(memory.getbuffer())

    def finish(self) -> pa.LargeStringArray:
        """Return all texts."""
        import pyarrow as pa

        offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *self._lengths]))])
        self._file.flush()
        if isinstance(self._file, io.BytesIO):
            data = pa.py_buffer(self._file.getvalue())
        else:
            data = pa.py_buffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
        return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets.astype(np.int64)), data)


class TextColumn(Sequence[str]):
    """Some rows of an Arrow array of texts, as a sequence; texts become Python objects only while they are used."""

    def __init__(self, texts: pa.LargeStringArray, rows: Array) -> None:
        self._texts, self._rows = texts, np.asarray(rows, dtype=np.int64)

    @classmethod
    def of(cls, texts: Sequence[str]) -> TextColumn:
        """Return texts as a column."""
        import pyarrow as pa

        return cls(pa.array(texts, pa.large_string()), np.arange(len(texts)))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> TextColumn: ...
    def __getitem__(self, row: int | slice) -> str | TextColumn:
        if isinstance(row, slice):
            return TextColumn(self._texts, self._rows[row])
        return str(self._texts[int(self._rows[row])].as_py())

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            yield from block.to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: Array) -> TextColumn:
        """Return some rows, in the order given."""
        return TextColumn(self._texts, self._rows[rows])

    def blocks(self) -> Iterator[pa.LargeStringArray]:
        """Yield the texts as Arrow arrays of BLOCK_ROWS rows."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield self._texts.take(self._rows[start : start + BLOCK_ROWS])

    def array(self) -> pa.LargeStringArray:
        """Return the texts as an Arrow array of their own."""
        return self._texts.take(self._rows)

    def lengths(self) -> Array:
        """Return the number of characters of each text, shape (rows,)."""
        import pyarrow.compute as pc

        counts = [pc.utf8_length(block).to_numpy(zero_copy_only=False) for block in self.blocks()]
        return np.concatenate([np.zeros(0, np.int64), *counts]).astype(np.int64)
