"""Data sets that are sent to a worker."""

import json
import os

import pytest

from balbench.harness.errors import RunDirectoryError
from balbench.harness.running.dask_data import data_files, keep, receive, with_digest


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data set of two files, one of them empty."""
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "data"
    place.mkdir()
    (place / "a.npy").write_bytes(b"0123456789")
    (place / "b.npy").touch()
    (place / "data.json").write_text(json.dumps({"files": ["a.npy", "b.npy"]}))
    return with_digest(data_files(place))


def send(data, token, chunk=4):
    for name, size in data.files:
        content = (data.path / name).read_bytes()
        for offset in range(0, max(size, 1), chunk):
            receive(data, token, name, offset, content[offset : offset + chunk])


def left(data):
    return sorted(path.name for path in data.cache.parent.iterdir())


def test_a_data_set_is_found_where_it_is_and_in_the_cache(data):
    assert data.find(trust_path=True) == data.path
    assert data.find(trust_path=False) is None
    send(data, "x")
    assert data.find(trust_path=False) is None  # not whole until it is kept
    keep(data, "x")
    assert data.find(trust_path=False) == data.cache
    assert [(data.cache / name).read_bytes() for name, _ in data.files] == [
        (data.path / name).read_bytes() for name, _ in data.files
    ]
    assert left(data) == [data.cache.name]


def test_another_data_set_at_the_same_path_is_not_taken_for_it(data):
    (data.path / "data.json").write_text(json.dumps({"files": ["a.npy", "b.npy"], "pairs": 1}))
    assert data.find(trust_path=True) is None


def test_a_file_that_is_missing_or_short(data):
    (data.path / "a.npy").write_bytes(b"012345678")
    assert data.find(trust_path=True) is None
    (data.path / "a.npy").unlink()
    assert data.find(trust_path=True) is None


def test_equal_facts_but_other_bytes_have_another_place(data):
    (data.path / "a.npy").write_bytes(b"9876543210")
    assert with_digest(data_files(data.path)).cache != data.cache


def test_two_workers_of_a_machine_receive_at_once(data):
    send(data, "x")
    send(data, "y")
    keep(data, "x")
    keep(data, "y")
    assert data.find(trust_path=False) == data.cache
    assert left(data) == [data.cache.name]


def test_a_damaged_copy_is_replaced(data):
    data.cache.mkdir(parents=True)
    (data.cache / "a.npy").write_bytes(b"0")
    send(data, "x")
    keep(data, "x")
    assert data.find(trust_path=False) == data.cache


def test_a_transfer_that_was_given_up_is_cleared_away_after_a_day(data):
    send(data, "old")
    send(data, "new")
    send(data, "x")
    (old,) = data.cache.parent.glob("*.old.tmp")
    os.utime(old, (0, 0))
    keep(data, "x")
    assert left(data) == sorted([data.cache.name, f".{data.cache.name}.new.tmp"])


def test_a_chunk_that_is_missing(data):
    receive(data, "x", "a.npy", 0, b"0123")
    with pytest.raises(RuntimeError, match="a chunk is missing before byte 8"):
        receive(data, "x", "a.npy", 8, b"89")


def test_a_cache_that_cannot_be_written(data, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        receive(data, "x", "a.npy", 0, b"0123")
