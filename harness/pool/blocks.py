"""Work in blocks of rows, so that no temporary array is much larger than BLOCK_BYTES."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

Array = np.ndarray
BLOCK_BYTES = 64 * 2**20


def block_rows(bytes_a_row: int, least: int = 1) -> int:
    """Return the number of rows in a block of BLOCK_BYTES, at least `least`."""
    return max(least, BLOCK_BYTES // max(1, bytes_a_row))


def array_blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """Yield the number of the first row and the rows of each block of an array."""
    rows = block_rows(array[:1].nbytes)
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def row_blocks(rows: torch.Tensor, bytes_a_row: int) -> list[torch.Tensor]:
    """Return row numbers in blocks, for work that needs `bytes_a_row` for each row."""
    return list(rows.split(block_rows(bytes_a_row))) if len(rows) else []
