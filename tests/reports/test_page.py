"""The page is complete, self-contained and escaped, names unfinished cells, and is redrawn only when results change."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from balbench.harness.errors import BalbenchError, RunDirectoryError
from balbench.reports.analysis import analyse
from balbench.reports.files import slug, write_bytes
from balbench.reports.page import write_report


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags += [(tag, name, value or "") for name, value in attrs if name in ("src", "href", "id")]


def write(runs, out, **settings):
    return write_report(analyse(runs), out, **settings)


@pytest.fixture
def small(run_of):
    """A run that is quick to draw."""
    return run_of(["random", "BAL-PM", "BALD"], metrics=["log_likelihood", "brier"], splits=["test", "ood"])


@pytest.fixture
def tiny(run_of):
    """A run with a single figure."""
    run = run_of(["random", "BALD"], seeds=2, rounds=3, metrics=["brier"], splits=["test"])
    run.timings = run.timings.iloc[:0]
    return run


def test_the_page_needs_no_other_file_and_its_links_lead_to_files(small, tmp_path):
    page = write([small], tmp_path / "out")
    text = page.read_text()
    links = _Links(text)
    sources = [value for _, name, value in links.tags if name == "src"]
    assert len(sources) == 7
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "<script" not in text
    assert not re.search(r"@import|url\(", text)
    assert "http://" not in text
    assert "https://" not in text
    ids = {value for _, name, value in links.tags if name == "id"}
    targets = [value for _, name, value in links.tags if name == "href"]
    assert len(targets) >= 5 * 4 + 2
    for target in targets:
        assert target[1:] in ids if target.startswith("#") else (page.parent / unquote(target)).is_file()


def test_the_page_states_the_outcome_the_variants_and_the_seeds(small, tmp_path):
    text = write([small], tmp_path).read_text()
    assert "On test: these policies reached random&#39;s final log-likelihood with fewer labels" in text
    assert "Clearly more labels than random: BALD" in text
    assert "published" in text
    assert "beta 0.01, k 13" in text
    assert "All 15 cells are finished." in text
    assert "f1" in text


def test_the_page_describes_the_data_with_their_warnings(run_of, tmp_path):
    frames = [run_of(["random", "BALD"], rounds=4, splits=["test"], setting=name) for name in ("a", "b", "c")]
    run = frames[0]
    run.curves = pd.concat([each.curves for each in frames])
    run.datasets = {"a": "k1", "b": "k2", "c": "k1"}
    facts = {"pairs": {"pool": 5000, "eval": 60, "ood": 70}, "responses": 9000, "prompts": 800, "dimension": 384}
    run.facts = {
        "a": facts | {"facts": {"rows": {"most_votes": 3}}, "warnings": ["12 of 90 pairs <same>; check them"]},
        "b": facts | {"facts": {}, "warnings": []},
    }
    text = write([run], tmp_path).read_text()
    sizes = "Pool: 5,000 pairs of 9,000 responses to 800 prompts, with features of 384 numbers. Pairs of the other"
    assert text.count(f"{sizes} splits: eval 60, OOD 70.") == 2
    assert "<strong>a; c.</strong>" in text
    assert "<tr><td>rows</td><td>most votes 3</td></tr>" in text
    assert "<p>12 of 90 pairs &lt;same&gt;; check them</p>" in text
    run.datasets = {}
    assert "<h4>Data</h4>" not in write([run], tmp_path, force=True).read_text()


def test_labels_and_reasons_are_escaped(run_of, tmp_path):
    run = run_of(["random", "<b>bold</b> & co"], seeds=1, rounds=3, splits=["test"], metrics=["accuracy"])
    run.name = "<i>study</i>"
    run.cells.loc[0, ["state", "reason"]] = ["failed", "<script>alert(1)</script>"]
    text = write([run], tmp_path).read_text()
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in text
    assert "&lt;script&gt;alert(1)" in text
    for raw in ("<b>", "<i>", "<script"):
        assert raw not in text


def test_unfinished_cells_are_reported_as_such(small, tmp_path):
    small.cells.loc[0, ["state", "rounds_done"]] = ["running", 3]
    small.cells.loc[7, ["state", "reason"]] = ["failed", "loss is not finite"]
    text = write([small], tmp_path).read_text()
    assert "Partial results: 2 of 15 cells are not finished (1 running, 1 failed)." in text
    assert "loss is not finite" in text
    assert "3 of 14" in text


def test_a_run_without_results_gives_a_page(tiny, tmp_path):
    for name in ("curves", "lines", "full_data", "timings"):
        setattr(tiny, name, getattr(tiny, name).iloc[:0])
    tiny.cells["state"] = "waiting"
    text = write([tiny], tmp_path).read_text()
    assert "No results yet." in text
    assert "(4 waiting)" in text


def test_several_runs_and_settings_have_their_own_sections(run_of, tmp_path):
    few = {"seeds": 2, "rounds": 3, "metrics": ["accuracy"], "splits": ["test"]}
    grid = run_of(["random", "BALD"], **few, setting="k=5")
    other = run_of(["random", "BALD"], **few, setting="k=7, beta=<0.1>")
    for name in ("curves", "lines", "full_data", "timings", "cells"):
        setattr(grid, name, pd.concat([getattr(grid, name), getattr(other, name)]))
    second = run_of(["random", "BALD"], **few)
    second.path = Path("other/demo")
    page = write([grid, second], tmp_path)
    text = page.read_text()
    ids = {value for _, name, value in _Links(text).tags if name == "id"}
    assert {"run1", "run1s1", "run1s2", "run2"} <= ids
    assert "k=7, beta=&lt;0.1&gt;" in text
    pictures = [
        name for name in json.loads((tmp_path / "report.json").read_text())["files"] if name.endswith("accuracy.png")
    ]
    assert len(set(pictures)) == 3


def test_a_report_that_is_current_is_not_redrawn(tiny, tmp_path):
    page = write([tiny], tmp_path)
    page.write_text("kept")
    assert write([tiny], tmp_path) == page
    assert page.read_text() == "kept"
    write([tiny], tmp_path, force=True)
    assert page.read_text() != "kept"


def test_new_results_or_a_missing_file_are_redrawn(tiny, tmp_path):
    page = write([tiny], tmp_path)
    manifest = tmp_path / "report.json"
    for spoil in (
        lambda: setattr(tiny, "fingerprint", "f2"),
        lambda: next(tmp_path.rglob("test-brier.pdf")).unlink(),
        lambda: manifest.write_text("{"),
        lambda: manifest.write_text("[]"),
        manifest.unlink,
    ):
        page.write_text("stale")
        spoil()
        write([tiny], tmp_path)
        assert page.read_text() != "stale"


def test_two_reports_of_the_same_run_are_the_same_bytes(tiny, tmp_path):
    for name in ("one", "two"):
        write([tiny], tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 2 + 1 + 4 + 4  # page, JSON, table, curves, savings at every level
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_no_runs_and_an_invalid_folder_are_errors_of_one_line(tiny, tmp_path):
    with pytest.raises(BalbenchError, match="at least one run"):
        write([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"cannot write the report to .*file"):
        write([tiny], tmp_path / "file")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_bytes(tmp_path / "a.txt", b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_different_labels_have_different_file_names():
    labels = ["a b", "a-b", "a/b", "ä", "", "..", "x" * 100, "x" * 101, "k=5"]
    names = [slug(label) for label in labels]
    assert len(set(names)) == len(labels)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name) for name in names)
    assert slug("k5.1") == "k5.1"
