"""`balbench cache` lists the data sets of this machine and removes some."""

import io
import json
import os
import time

import pytest
from rich.console import Console

from balbench.benchmarks.cache import cache_table, remove_data, size
from balbench.harness.errors import StudyError


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Three data sets, used now, two and four days ago; the last is not complete."""
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path))
    for number, key in enumerate(("aa1", "aa2", "bb")):
        directory = tmp_path / "data" / key
        directory.mkdir(parents=True)
        (directory / "pool.npy").write_bytes(b"x" * 2_000_000)
        facts = {"kind": "Simulated", "pairs": {"pool": 1234}, "dimension": 64, "files": ["pool.npy"]}
        used = time.time() - 2 * 86400 * number
        if key != "bb":
            (directory / "data.json").write_text(json.dumps(facts))
            os.utime(directory / "data.json", (used, used))
        os.utime(directory, (used, used))
    return tmp_path / "data"


def keys(data):
    return sorted(path.name for path in data.iterdir())


def test_data_sets_are_listed_with_their_size(data):
    console = Console(file=io.StringIO(), width=160)
    console.print(cache_table())
    lines = console.file.getvalue().splitlines()
    rows = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    assert [[cell.strip() for cell in row][:5] for row in rows] == [
        ["aa1", "Simulated", "1,234", "64", "2.0 MB"],
        ["aa2", "Simulated", "1,234", "64", "2.0 MB"],
        ["bb", "?", "", "", "2.0 MB"],
    ]
    assert lines[-1].startswith(f"{data.parent}: 6.0 MB")


def test_data_sets_are_removed_by_key_or_age(data, capsys):
    remove_data(["aa1"], None)
    assert keys(data) == ["aa2", "bb"]
    remove_data([], 3)
    assert keys(data) == ["aa2"]
    remove_data(["aa"], 0)
    assert keys(data) == []
    assert capsys.readouterr().out.splitlines() == ["removed 1 data set, 2.0 MB"] * 3


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ((["aa"], None), "remove aa: several keys begin with these letters; give more"),
        ((["cc"], None), "remove cc: no data set has this key; `balbench cache` lists the keys"),
        (([""], None), "remove : no data set has this key"),
        (([], -1), "older_than -1: must be 0 days or more"),
        (([], float("nan")), "older_than nan: must be 0 days or more"),
    ],
)
def test_a_wrong_key_or_age_removes_nothing(data, chosen, message):
    with pytest.raises(StudyError, match=message) as error:
        remove_data(*chosen)
    assert message.startswith(error.value.setting)
    assert len(keys(data)) == 3


def test_sizes_are_short():
    assert [size(number) for number in (0, 1_200, 3_400_000, 2_000_000_000)] == ["0 kB", "1 kB", "3.4 MB", "2.0 GB"]
