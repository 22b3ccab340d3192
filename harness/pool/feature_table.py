"""Tables of features in memory or on disk. Tables on disk are read in blocks or by rows when they are used."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from io import FileIO
from os import fstat
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard

import numpy as np
import torch

from balbench.harness.errors import DataError
from balbench.harness.pool.blocks import block_rows

Array = np.ndarray
LEAST_ROWS = 256  # smallest number of rows of a block, for rows of any width
GAP_BYTES = 4096  # rows with smaller gaps are read together
DTYPES = {np.dtype(np.float16): torch.float16, np.dtype(np.float32): torch.float32}


class FeatureTable(Protocol):
    """A table of features (R, D): a tensor, or a `StreamedTable`."""

    @property
    def shape(self) -> torch.Size:
        """(R, D)."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of blocks and rows."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type of blocks and rows: float32."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | torch.Tensor, /) -> torch.Tensor: ...

    def split(self, rows: int, /) -> Iterable[torch.Tensor]:
        """Yield all rows in order, in blocks of at most `rows`."""
        ...

    def index_select(self, dim: int, index: torch.Tensor, /) -> torch.Tensor:
        """Return rows by number (`dim` is 0)."""
        ...


class StreamedTable:
    """A read-only table of float32 features on a device, read from a .npy file of float16 or float32.

    The file is opened for each read and read into buffers, not mapped. Resident memory is therefore a few blocks for
    a file of any size, processes and threads can share a table, and a pickled table is small. Blocks are new tensors,
    which callers may keep.

    On CUDA, `split` reads into two pinned buffers and copies them on a separate stream while the caller computes.
    This path has not been run on a GPU yet.

    Attributes:
        shape: (R, D).
        device: the device of blocks and rows.
        dtype: the type of blocks and rows.
    """

    dtype = torch.float32

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, int], stored: np.dtype[Any], device: torch.device
    ) -> None:
        """Describe a table of R x D numbers, stored by rows after the first `offset` bytes of a file.

        Raises:
            DataError: the file is missing or has another size.
        """
        self.shape, self.device = torch.Size(shape), device
        self._path, self._offset, self._stored = path, offset, stored
        self._row_bytes = shape[1] * stored.itemsize
        with closing(self._open()):
            pass

    @classmethod
    def of(cls, mapped: np.memmap, device: torch.device) -> StreamedTable:
        """Return the table of an array that numpy has mapped from a .npy file (see `can_stream`)."""
        rows, columns = mapped.shape
        return cls(Path(str(mapped.filename)), mapped.offset, (rows, columns), mapped.dtype, device)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """Read consecutive rows, or the rows of a vector of row numbers in its order (n, D).

        Raises:
            IndexError: a row number is out of range.
            DataError: the file is missing or has another size.
        """
        if isinstance(rows, torch.Tensor):
            return self.index_select(0, rows)
        start, stop, step = rows.indices(len(self))
        if step != 1:
            return self.index_select(0, torch.arange(start, stop, step))
        block_bD = torch.empty((max(0, stop - start), self.shape[1]), dtype=torch.float32)
        most = _rows_at_once(self.shape[1])
        with closing(self._open()) as file:
            for done in range(0, len(block_bD), most):
                self._read_block(file, start + done, block_bD[done : done + most])
        return block_bD.to(self.device)

    def index_select(self, dim: int, index: torch.Tensor) -> torch.Tensor:
        """Return rows by number; numbers can repeat (errors as in `__getitem__`)."""
        index_n = index.cpu().numpy()
        if dim != 0 or index_n.ndim != 1 or index_n.dtype.kind != "i":
            raise IndexError(f"give a vector of row numbers, not {tuple(index.shape)} of {index.dtype} along {dim}")
        if len(index_n) and not (index_n.min() >= 0 and index_n.max() < len(self)):
            raise IndexError(f"rows {index_n.min()} to {index_n.max()} of a table of {len(self)}")
        order_n = np.argsort(index_n, kind="stable")
        rows_nD = torch.empty((len(index_n), self.shape[1]), dtype=torch.float32)
        most = block_rows(max(4 * self.shape[1], GAP_BYTES))
        with closing(self._open()) as file:
            for start in range(0, len(order_n), most):
                chunk = order_n[start : start + most]
                rows_nD[torch.from_numpy(chunk)] = self._read_rows(file, index_n[chunk])
        return rows_nD.to(self.device)

    def split(self, rows: int) -> Iterator[torch.Tensor]:
        """Yield all rows in order, in blocks of `rows` (fewer if a block would be larger than `BLOCK_BYTES`).

        The next block is read while the caller works on the current block.

        Raises:
            DataError: the file is missing or has another size.
        """
        rows = min(rows, _rows_at_once(self.shape[1]))
        reader = _PinnedReader(self, rows) if self.device.type == "cuda" else _Reader(self, rows)
        with closing(reader), ThreadPoolExecutor(1, "features") as thread:
            pending = thread.submit(reader.read, 0)
            for start in range(rows, len(self), rows):
                block, pending = pending.result(), thread.submit(reader.read, start)
                yield block.ready()
            yield pending.result().ready()

    def _open(self) -> FileIO:
        """Open the file and check that it has the described size."""
        try:
            file = FileIO(self._path)
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from None
        size, expected = fstat(file.fileno()).st_size, self._offset + len(self) * self._row_bytes
        if size != expected:
            file.close()
            raise self._gone(f"it has {size:,} bytes, not {expected:,}")
        return file

    def _gone(self, why: str) -> DataError:
        return DataError(f"{self._path}: the features cannot be read ({why}); prepare the data set again")

    def _fill(self, file: FileIO, start: int, rows_bD: torch.Tensor) -> None:
        """Fill rows of the stored type from the file."""
        view = rows_bD.view(torch.uint8).flatten().numpy().data
        try:
            file.seek(self._offset + start * self._row_bytes)
            while view:
                size = file.readinto(view)
                if not size:
                    raise self._gone(f"it ends within row {start + (rows_bD.nbytes - len(view)) // self._row_bytes}")
                view = view[size:]
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from None

    def _buffer(self, rows: int, pinned: bool = False) -> torch.Tensor:
        """Allocate a buffer for rows of the stored type."""
        return torch.empty((rows, self.shape[1]), dtype=DTYPES[self._stored], pin_memory=pinned)

    def _read_block(
        self, file: FileIO, start: int, out_bD: torch.Tensor, buffer_bD: torch.Tensor | None = None
    ) -> None:
        """Fill a float32 block on the CPU."""
        if self._stored == np.float32:
            self._fill(file, start, out_bD)
        else:
            stored_bD = self._buffer(len(out_bD)) if buffer_bD is None else buffer_bD[: len(out_bD)]
            self._fill(file, start, stored_bD)
            out_bD.copy_(stored_bD)

    def _read_rows(self, file: FileIO, rows_n: Array) -> torch.Tensor:
        """Read ascending rows. Near rows are read together with the rows between them, which are then dropped."""
        apart = np.diff(rows_n)
        far = apart > max(1, GAP_BYTES // self._row_bytes)
        position_n = np.concatenate([[0], np.cumsum(np.where(far, 1, apart))])
        buffer_bD = self._buffer(int(position_n[-1]) + 1)
        first = np.concatenate([[0], np.flatnonzero(far) + 1])
        last = np.concatenate([first[1:], [len(rows_n)]]) - 1
        for start, low, high in np.stack([rows_n[first], position_n[first], position_n[last]], axis=1).tolist():
            self._fill(file, start, buffer_bD[low : high + 1])
        return buffer_bD.index_select(0, torch.from_numpy(position_n)).float()


class _Block(NamedTuple):
    """A block that has been read; on CUDA with the event after which its copy is complete."""

    features_bD: torch.Tensor
    copied: Any = None

    def ready(self) -> torch.Tensor:
        """Return the block, which kernels that the caller launches afterwards can use safely."""
        if self.copied is not None:
            current = torch.cuda.current_stream(self.features_bD.device)
            current.wait_event(self.copied)
            self.features_bD.record_stream(current)  # it was allocated on the copying stream
        return self.features_bD


class _Reader:
    """Reads the blocks of one pass."""

    def __init__(self, table: StreamedTable, rows: int) -> None:
        self._table, self._rows = table, rows
        self._file = table._open()
        self._buffer_bD = None if table._stored == np.float32 else table._buffer(min(rows, len(table)))

    def read(self, start: int) -> _Block:
        """Read the block that starts at a row."""
        rows = min(self._rows, len(self._table) - start)
        block_bD = torch.empty((rows, self._table.shape[1]), dtype=torch.float32)
        self._table._read_block(self._file, start, block_bD, self._buffer_bD)
        return _Block(block_bD)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _PinnedReader(_Reader):
    """Reads through two pinned buffers in turn: one is filled while the other is copied to the device."""

    def __init__(self, table: StreamedTable, rows: int) -> None:
        super().__init__(table, rows)
        self._stream = torch.cuda.Stream(table.device)
        self._pinned = [(table._buffer(min(rows, len(table)), pinned=True), torch.cuda.Event()) for _ in range(2)]

    def read(self, start: int) -> _Block:
        """Read the block that starts at a row, and start to copy it."""
        buffer_bD, copied = self._pinned[start // self._rows % 2]
        copied.synchronize()  # wait until the last copy from the buffer is done
        stored_bD = buffer_bD[: len(self._table) - start]
        self._table._fill(self._file, start, stored_bD)
        with torch.cuda.stream(self._stream):
            block_bD = stored_bD.to(self._table.device, non_blocking=True).float()
            copied.record(self._stream)
            ready = torch.cuda.Event()
            ready.record(self._stream)
        return _Block(block_bD, ready)

    def close(self) -> None:
        """Wait for the last copies, because the pinned buffers must exist until then, and close the file."""
        for _, copied in self._pinned:
            copied.synchronize()
        super().close()


def _rows_at_once(columns: int) -> int:
    """Return the largest number of rows of float32 features in a block; at most three blocks are in memory."""
    return block_rows(4 * columns, LEAST_ROWS)


def table_blocks(features_RD: FeatureTable, rows: int) -> Iterable[torch.Tensor]:
    """Return a table in blocks of at most `rows`, the same blocks for streamed and for resident tables.

    The rounding of a matrix product may depend on the number of rows, so only equal blocks give equal bytes.
    """
    return features_RD.split(min(rows, _rows_at_once(features_RD.shape[1])))


def can_stream(features_RD: Array) -> TypeGuard[np.memmap]:
    """Return whether an array is a whole .npy file on disk, stored by rows as float16 or float32."""
    return (
        isinstance(features_RD, np.memmap)
        and isinstance(features_RD.base, mmap.mmap)  # excludes parts of a mapped array
        and features_RD.filename is not None
        and features_RD.flags.c_contiguous
        and features_RD.ndim == 2
        and features_RD.dtype in DTYPES
        and math.prod(features_RD.shape) > 0
    )


def resident(features_RD: Array, device: torch.device) -> torch.Tensor:
    """Return the whole table as float32 on a device, converted in blocks so that no second table is in memory."""
    if features_RD.dtype == np.float32:
        return torch.from_numpy(np.asarray(features_RD)).to(device)
    table_RD = torch.empty(features_RD.shape, dtype=torch.float32, device=device)
    rows = _rows_at_once(table_RD.shape[1])
    for start in range(0, len(table_RD), rows):
        table_RD[start : start + rows] = torch.from_numpy(np.array(features_RD[start : start + rows]))
    return table_RD
