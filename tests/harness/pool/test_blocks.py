"""Blocks cover all rows in order and stay small."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from balbench.harness.pool.blocks import BLOCK_BYTES, array_blocks, block_rows, row_blocks


@given(st.integers(0, 4 * BLOCK_BYTES), st.integers(1, 1000))
def test_a_block_has_its_size_and_at_least_the_least_rows(bytes_a_row, least):
    rows = block_rows(bytes_a_row, least)
    assert rows >= least
    assert rows == least or rows * bytes_a_row <= BLOCK_BYTES


@given(st.integers(0, 50), st.integers(1, BLOCK_BYTES // 3))
def test_rows_are_covered_in_order(count, bytes_a_row):
    rows = torch.arange(count) * 2
    blocks = row_blocks(rows, bytes_a_row)
    assert torch.equal(torch.cat([*blocks, rows[:0]]), rows)
    assert all(0 < len(block) * bytes_a_row <= BLOCK_BYTES for block in blocks)


def test_an_array_is_covered_in_order(monkeypatch):
    monkeypatch.setattr("balbench.harness.pool.blocks.BLOCK_BYTES", 3 * 2 * 8)
    array = np.arange(14.0).reshape(7, 2)
    blocks = list(array_blocks(array))
    assert [start for start, _ in blocks] == [0, 3, 6]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), array)
    assert list(array_blocks(array[:0])) == []
