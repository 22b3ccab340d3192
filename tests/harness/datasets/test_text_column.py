"""Texts outside of Python."""

import numpy as np
import pytest

from balbench.harness.datasets import text_column
from balbench.harness.datasets.text_column import TextColumn, TextWriter
from support.faults import one_line

TEXTS = ["", "a", "né", "\U0001f600 x", "a"] * 2000


@pytest.mark.parametrize("limit", [0, 1000, 1 << 30])
def test_texts_come_back_from_memory_and_from_a_file(limit, monkeypatch, tmp_path):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text_column, "MEMORY_BYTES", limit)
    writer = TextWriter()
    for start in range(0, len(TEXTS), 700):
        writer.add([text.encode() for text in TEXTS[start : start + 700]])
    rows = np.random.default_rng(0).integers(len(TEXTS), size=9000)
    column = TextColumn(writer.finish(), rows)
    expected = [TEXTS[row] for row in rows]
    assert list(column) == expected
    assert column == expected
    assert column != [*expected[:-1], "other"]
    assert column[5] == expected[5]
    assert list(column[10:30:3]) == expected[10:30:3]
    assert column.lengths().tolist() == [len(text) for text in expected]
    assert list(column.take(np.array([3, 1]))) == [expected[3], expected[1]]
    assert (tmp_path / "cache").exists() == (limit < 1 << 30)
    assert not list(tmp_path.glob("cache/*"))


def test_no_texts():
    assert list(TextColumn(TextWriter().finish(), np.zeros(0, int))) == []


def test_a_cache_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(text_column, "MEMORY_BYTES", 0)
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    one_line(lambda: TextWriter().add([b"text"]), "no room for 4 bytes of text", "BALBENCH_CACHE")
