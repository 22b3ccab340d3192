"""A streamed table answers as the array in memory does, holds little, and says what is wrong with its file."""

import pickle
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from balbench.harness.errors import DataError
from balbench.harness.pool import blocks
from balbench.harness.pool import feature_table as streamed
from balbench.harness.pool.feature_table import StreamedTable, can_stream, resident, table_blocks

CPU = torch.device("cpu")
R, D = 700, 6


@pytest.fixture(params=[np.float16, np.float32], ids=["float16", "float32"])
def path(request, tmp_path):
    features = np.random.default_rng(0).normal(size=(R, D)).astype(request.param)
    np.save(tmp_path / "features.npy", features)
    return tmp_path / "features.npy"


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64 * 4 * D)
    monkeypatch.setattr(streamed, "LEAST_ROWS", 1)


def table_of(path) -> StreamedTable:
    return StreamedTable.of(np.load(path, mmap_mode="c"), CPU)


def features_of(path) -> torch.Tensor:
    return torch.from_numpy(np.load(path).astype(np.float32))


def same(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return actual.dtype == torch.float32 and actual.shape == expected.shape and torch.equal(actual, expected)


def test_it_describes_itself_as_a_tensor_does(path):
    table, expected = table_of(path), features_of(path)
    assert (table.shape, len(table), table.dtype, table.device) == (
        expected.shape,
        len(expected),
        expected.dtype,
        expected.device,
    )


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(3, 200),
        slice(690, 900),
        slice(-5, None),
        slice(7, 7),
        slice(9, 3),
        slice(2, 300, 3),
        slice(None, None, -1),
    ],
    ids=str,
)
def test_slices(path, rows):
    expected = features_of(path).numpy()[rows]
    assert same(table_of(path)[rows], torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("gap", [0, 4 * 4 * D, 10**6], ids=["none", "a few rows", "all"])
@pytest.mark.parametrize(
    "rows", [[], [5], [699, 0, 5, 5, 6, 7, 300], list(range(700)), [3] * 200, list(range(0, 700, 3))], ids=len
)
def test_rows_by_number_in_any_order_and_repeated(path, rows, gap, monkeypatch):
    monkeypatch.setattr(streamed, "GAP_BYTES", gap)
    index = torch.tensor(rows, dtype=torch.int64)
    assert same(table_of(path)[index], features_of(path)[index])
    shuffled = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]
    assert same(table_of(path).index_select(0, shuffled), features_of(path)[shuffled])


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 699, 700, 5000])
def test_blocks_are_those_asked_for_unless_they_are_too_large(path, rows):
    actual, expected = list(table_of(path).split(rows)), features_of(path)
    assert same(torch.cat(actual), expected)  # all are kept, and none was written over
    assert {len(block) for block in actual[:-1]} <= {min(rows, 64)}
    assert [len(block) for block in actual] == [len(block) for block in table_blocks(expected, rows)]
    assert [len(block) for block in actual] == [len(block) for block in table_blocks(table_of(path), rows)]


def test_the_next_block_is_read_while_the_caller_works(path, monkeypatch):
    read, reads = threading.Event(), []
    fill = StreamedTable._fill

    def noted(self, file, start, rows_bD):
        fill(self, file, start, rows_bD)
        reads.append(start)
        read.set()

    monkeypatch.setattr(StreamedTable, "_fill", noted)
    for number, _ in enumerate(table_of(path).split(64)):
        if number == 0:
            while len(reads) < 2:
                assert read.wait(60)
                read.clear()
            assert reads == [0, 64]  # one block ahead, no more
    assert reads == list(range(0, 700, 64))


def test_files_and_threads_end_with_a_pass_that_is_given_up(path):
    threads = threading.active_count()
    for block in table_of(path).split(10):
        assert len(block) == 10
        break
    assert threading.active_count() == threads


def test_threads_share_a_table_and_it_can_be_pickled(path):
    table, expected = pickle.loads(pickle.dumps(table_of(path))), features_of(path)
    with ThreadPoolExecutor(4) as threads:
        actual = threads.map(lambda rows: torch.cat(list(table.split(rows))), range(20, 40))
        assert all(same(whole, expected) for whole in actual)
    assert len(pickle.dumps(table)) < 1000


def test_a_read_may_return_less_than_was_asked_for(path, monkeypatch):
    class Slow(streamed.FileIO):
        def readinto(self, view):
            return super().readinto(view[:100])

    monkeypatch.setattr(streamed, "FileIO", Slow)
    assert same(torch.cat(list(table_of(path).split(64))), features_of(path))


@pytest.mark.parametrize(
    "rows", [torch.tensor([0, 700]), torch.tensor([-1]), torch.tensor([[0]]), torch.zeros(700, dtype=torch.bool)]
)
def test_rows_that_are_not_there(path, rows):
    with pytest.raises(IndexError):
        table_of(path)[rows]


def ask_in_all_ways(table):
    yield lambda: table[:5]
    yield lambda: table[torch.tensor([3])]
    yield lambda: list(table.split(10))


def test_a_file_that_has_changed_or_gone_is_named(path):
    table, size = table_of(path), path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)
    for ask in ask_in_all_ways(table):
        with pytest.raises(DataError, match=rf"features.npy: .*it has {size - 1:,} bytes, not {size:,}.*prepare"):
            ask()
    path.unlink()
    for ask in ask_in_all_ways(table):
        with pytest.raises(DataError, match=r"features.npy: .*No such file.*prepare the data set again"):
            ask()


def test_a_file_that_is_cut_while_it_is_read_is_named(path):
    blocks_left = table_of(path).split(10)
    next(blocks_left)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"features.npy: .*ends within row 3[45]\d"):
        list(blocks_left)


def test_what_can_be_streamed(tmp_path):
    def mapped(array):
        np.save(tmp_path / "array.npy", array)
        return np.load(tmp_path / "array.npy", mmap_mode="c")

    whole = mapped(np.ones((4, 3), np.float16))
    assert can_stream(whole)
    assert not can_stream(whole[1:])
    assert not can_stream(whole[:, :2])
    assert not can_stream(np.ones((4, 3), np.float32))
    with tempfile.TemporaryFile() as nameless:
        assert not can_stream(np.memmap(nameless, np.float32, "w+", shape=(4, 3)))
    assert not can_stream(mapped(np.ones((4, 3), np.float64)))
    assert not can_stream(mapped(np.asfortranarray(np.ones((4, 3), np.float32))))
    assert not can_stream(mapped(np.ones(4, np.float32)))


def test_resident_features_are_float32_in_full(path):
    for features in (np.load(path), np.load(path, mmap_mode="c"), np.asfortranarray(np.load(path))):
        assert same(resident(features, CPU), features_of(path))
