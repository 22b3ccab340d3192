"""Every container of the same rows gives the same pairs."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest

from balbench.harness.datasets.containers import BATCH_ROWS, batches, data_parts
from balbench.harness.datasets.preference_file import PreferenceFile
from support.faults import one_line

ROWS = [
    {
        "prompt": f"{n // 2}",
        "response_a": f'NA, "{n}"\nnull',
        "response_b": f"é {n}",
        "label": n % 2,
        "annotator": n % 3,
    }
    for n in range(40)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def csv(separator=",") -> bytes:
    return pd.DataFrame(ROWS).to_csv(index=False, sep=separator).encode()


def parquet(path, rows=ROWS):
    pd.DataFrame(rows).to_parquet(path)


def saved(path, rows=ROWS):
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(path)


def saved_splits(path):
    import datasets

    parts = {"train": datasets.Dataset.from_list(ROWS[:30]), "test": datasets.Dataset.from_list(ROWS[30:])}
    datasets.DatasetDict(parts).save_to_disk(path)


def shards(path):
    (path / "data").mkdir(parents=True)
    (path / "README.md").write_text("not data")
    (path / "dataset_infos.json").write_text("{}")
    parquet(path / "data" / "part-0.parquet", ROWS[:20])
    (path / "data" / "part-1.jsonl.xz").write_bytes(lzma.compress(LINES[LINES.index(b'{"prompt": "10"') :]))


def arrow_stream(path):
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


CONTAINERS = {
    "v.jsonl": lambda path: path.write_bytes(LINES),
    "blank.jsonl": lambda path: path.write_bytes(LINES.replace(b"\n", b"\r\n\r\n")),
    "v.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "no_suffix": lambda path: path.write_text(" \n[" + ",".join(json.dumps(row) for row in ROWS) + "]\n"),
    "v.csv": lambda path: path.write_bytes(csv()),
    "v [1].csv.gz": lambda path: path.write_bytes(gzip.compress(csv())),
    "v.tsv": lambda path: path.write_bytes(csv("\t")),
    "v.parquet": parquet,
    "v.parquet.zst": lambda path: (parquet(path), path.write_bytes(zstd(path.read_bytes()))),
    "parquet_without_suffix": parquet,
    "v.feather": lambda path: pyarrow.feather.write_feather(pd.DataFrame(ROWS), str(path), compression="uncompressed"),
    "v.arrow": arrow_stream,
    "v.jsonl.bz2": lambda path: path.write_bytes(bz2.compress(LINES)),
    "v.jsonl.zst": lambda path: path.write_bytes(zstd(LINES)),
    "xz.jsonl": lambda path: path.write_bytes(lzma.compress(LINES)),
    "saved": saved,
    "shards": shards,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))


def content(path, **settings):
    pairs = PreferenceFile(path=str(path), **settings).read()
    arrays = (pairs.responses_of_pair_N2, pairs.vote_choice_V, pairs.vote_annotator_V, pairs.pair_id_N)
    return [list(pairs.prompt_P), list(pairs.response_R), *(array.tolist() for array in arrays)]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_gives_the_rows(tmp_path, name):
    CONTAINERS[name](tmp_path / name)
    (tmp_path / "expected.jsonl").write_bytes(LINES)
    assert content(tmp_path / name) == content(tmp_path / "expected.jsonl")
    assert not list((tmp_path / "cache").glob("*"))  # no copies remain


def test_a_split_of_a_directory_is_chosen(tmp_path):
    saved_splits(tmp_path / "saved")
    for part, rows in (("train-0.jsonl", ROWS[:30]), ("test-0.jsonl", ROWS[30:])):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / part).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for folder in ("saved", "files"):
        path = tmp_path / folder
        one_line(lambda path=path: data_parts(path), path, "has the splits test, train; set dataset.split to one")
        one_line(lambda path=path: data_parts(path, "dev"), "has no split 'dev'; set dataset.split to test or train")
        assert len(content(path, split="train")[-1]) == 30
        assert len(content(path, split="all")[-1]) == 40


def test_the_key_of_a_directory_depends_on_the_contents_of_its_files(tmp_path, monkeypatch):
    shards(tmp_path / "shards")
    data = PreferenceFile(path=str(tmp_path / "shards"))
    sources = data.sources()[0]
    assert sources.setting == "dataset.path"
    (tmp_path / "shards" / "README.md").write_text("changed")
    assert data.sources()[0] == sources
    parquet(tmp_path / "shards" / "data" / "part-0.parquet", ROWS[1:20])
    assert data.sources()[0].digest != sources.digest


BAD = {
    "v.csv": (
        b"prompt,response_a\na,b,c,d\n",
        ["csv (the header has 2 names, but the first row has 4 cells)"],
    ),
    "wide.csv": (b"prompt,chosen\na,b\na,b,c\n", ["cannot be read as csv (", "line 3"]),
    "empty.csv": (b"", ["cannot be read as csv (No columns"]),
    "latin.csv": (b"prompt,chosen\n\xe9,a\n", ["not UTF-8; convert the file to UTF-8"]),
    "v.parquet": (b"PAR1 no", ["cannot be read as parquet ("]),
    "v.arrow": (b"ARROW1 no", ["cannot be read as arrow ("]),
    "v.json": (b"[{}, 3]", ["row 2: a number, not an object"]),
    "cut.json": (b'[{"prompt": "a"}, {"pro', ["row 2: not JSON"]),
    "open.json": (b'[{"prompt": "a"}', ["row 2: not JSON"]),
    "more.json": (b'[{"prompt": "a"}] [', ["text after the array"]),
    "twice.json": (b'[{"a": 1, "a": 2}]', ["row 1, field 'a': the key occurs twice"]),
    "header.csv": (b"prompt,chosen,rejected\n", ["no rows"]),
    "cut.jsonl": (zstd(LINES)[:-9], ["cut.jsonl"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_file_is_one_line(tmp_path, name):
    data, parts = BAD[name]
    (tmp_path / name).write_bytes(data)
    one_line(lambda: content(tmp_path / name), tmp_path / name, *parts)


def test_a_directory_without_data_is_one_line(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("x")
    one_line(lambda: content(tmp_path / "data"), "has no data files (.csv, .tsv, .parquet")
    (tmp_path / "data" / "state.json").write_text("{}")
    one_line(lambda: content(tmp_path / "data"), "cannot be read as directory of save_to_disk (")


def test_rows_are_numbered_across_batches(tmp_path):
    pd.DataFrame({"n": np.arange(2 * BATCH_ROWS + 5)}).to_parquet(tmp_path / "n.parquet")
    parts = list(batches([tmp_path / "n.parquet"]))
    assert [len(part) for part in parts] == [BATCH_ROWS, BATCH_ROWS, 5]
    assert [value for part in parts for value in part.column("n")] == list(range(2 * BATCH_ROWS + 5))
    assert str(parts[2].place(4).error("x")) == f"{tmp_path / 'n.parquet'}, row {2 * BATCH_ROWS + 5}: x"


def test_json_does_not_need_the_library_datasets(tmp_path):
    (tmp_path / "v.jsonl").write_bytes(LINES)
    code = (
        "import sys; from pathlib import Path; from balbench.harness.datasets.containers import batches;"
        f"print(len(next(batches([Path({str(tmp_path / 'v.jsonl')!r})]))), 'datasets' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["40", "False"]


@pytest.mark.parametrize("name", ["v.csv", "v.parquet", "v.arrow", "saved", "v.jsonl"])
def test_no_container_needs_the_network(tmp_path, name, monkeypatch):
    CONTAINERS[name](tmp_path / name)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *where, **_: asked.append(where) or [])
    monkeypatch.setattr("socket.socket.connect", lambda _, where: asked.append(where))
    assert len(content(tmp_path / name)[-1]) == 40
    assert not asked
