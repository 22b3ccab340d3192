"""Finished cells of other run directories are found by key, and copied byte for byte."""

import hashlib
import io
import json
import re
import shutil

import pytest
from rich.console import Console

from balbench.harness import registry
from balbench.harness.results import RunDirectory, read_run
from balbench.harness.running.known_runs import known_runs, remember
from balbench.harness.running.placement import Placement
from balbench.harness.running.progress import Display
from balbench.harness.running.reuse import COPIED
from balbench.harness.running.scheduler import Scheduler
from balbench.harness.study import cell as cells
from balbench.harness.study.study import check_study
from support.engines import InProcess
from support.studies import TINY, bytes_of, tiny

RESULTS = ("rounds.jsonl", "predictions.f16")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))


def run(path, reuse=True, **changes):
    """Run the tiny study; return the numbers of rounds that ran, and what was printed."""
    study = check_study(tiny(**{"policies": ["random", "bald"], "full_data": False} | changes), "tiny")
    directory, printed = RunDirectory(path), io.StringIO()
    path.mkdir(exist_ok=True)
    directory.adopt(study.header)
    engine, rounds = InProcess(), []
    submit = engine.submit

    def counted(task):
        future = submit(task)
        rounds.extend(future.result().rounds)
        return future

    engine.submit = counted
    with Display(Console(file=printed, width=300)) as display:
        assert not Scheduler(study, directory, Placement(), lambda: engine, display, reuse=reuse).run().failed
    return len(rounds), printed.getvalue()


def test_finished_cells_are_copied_byte_for_byte(tmp_path):
    ran, _ = run(tmp_path / "first")
    assert ran == 16
    ran, printed = run(tmp_path / "second", name="renamed", seeds=3)
    assert ran == 8  # the third seed
    assert printed.splitlines()[0] == f"4 finished cells copied from {tmp_path / 'first'}"
    for path, content in bytes_of(tmp_path / "first", *COPIED).items():
        assert (tmp_path / "second" / path).read_bytes() == content
    for path in (tmp_path / "first").glob("cells/*"):
        manifest = json.loads((tmp_path / "second" / "cells" / path.name / "manifest.json").read_text())
        assert manifest.pop("copied_from") == str(path)
        assert manifest == json.loads((path / "manifest.json").read_text())
    assert set(read_run(tmp_path / "second").cells["state"]) == {"finished"}


def test_a_run_of_copies_alone_can_be_reported_and_names_where_they_were_run(tmp_path):
    run(tmp_path / "first")
    lines, curves = RunDirectory(tmp_path / "first").header["lines"], read_run(tmp_path / "first").curves
    for before, name in (("first", "second"), ("second", "third")):
        assert run(tmp_path / name)[0] == 0
        assert RunDirectory(tmp_path / name).header["lines"] == lines != {}
        run_ = read_run(tmp_path / name)
        assert run_.curves.equals(curves)
        assert run_.held_out().keys() == run_.predictions("", "bald", 1).keys() == {"test", "ood"}
        shutil.rmtree(tmp_path / before)
    for path in (tmp_path / "third").glob("cells/*/manifest.json"):
        assert json.loads(path.read_text())["copied_from"] == str(tmp_path / "first" / "cells" / path.parent.name)


def test_fewer_rounds_are_copied_and_continued(tmp_path):
    run(tmp_path / "short", protocol=TINY["protocol"] | {"rounds": 2})
    ran, printed = run(tmp_path / "long")
    assert ran == 12  # two and the last of the shorter again, for four cells
    assert "4 finished cells copied" in printed
    run(tmp_path / "alone", reuse=False)
    assert bytes_of(tmp_path / "long", *RESULTS) == bytes_of(tmp_path / "alone", *RESULTS)
    ran, _ = run(tmp_path / "shorter", protocol=TINY["protocol"] | {"rounds": 3})
    assert ran == 0


def test_nothing_is_copied_where_that_is_off(tmp_path, monkeypatch):
    run(tmp_path / "first")
    assert run(tmp_path / "second", reuse=False)[0] == 16
    monkeypatch.setenv("BALBENCH_REUSE", "off")
    assert run(tmp_path / "third", reuse=None)[0] == 16
    monkeypatch.delenv("BALBENCH_REUSE")
    assert run(tmp_path / "fourth", reuse=None)[0] == 0


@pytest.mark.parametrize(
    "damage",
    ["unfinished", "torn", "torn predictions", "no predictions", "gone", "no cells", "another code", "no study"],
)
def test_what_is_not_whole_is_not_copied(tmp_path, monkeypatch, damage):
    run(tmp_path / "first")
    for path in (tmp_path / "first").glob("cells/*"):
        if damage == "unfinished":
            (path / "manifest.json").unlink()
        if damage == "torn":
            (path / "rounds.jsonl").write_bytes((path / "rounds.jsonl").read_bytes()[:-9])
        if damage == "torn predictions":
            (path / "predictions.f16").write_bytes((path / "predictions.f16").read_bytes()[:-9])
        if damage == "no predictions":
            (path / "predictions.f16").unlink()
        if damage == "another code":
            monkeypatch.setattr(cells, "development_digest", lambda: "other")
    if damage in ("gone", "no cells"):
        shutil.rmtree(tmp_path / "first" / ("cells" if damage == "no cells" else ""))
    if damage == "no study":
        (tmp_path / "first" / "study.json").unlink()
    assert run(tmp_path / "second")[0] == 16


def test_a_cell_of_a_plug_in_with_another_source_is_not_copied(tmp_path, monkeypatch):
    known, sources = registry.origin, {"source": "a"}

    def origin(kind, name):
        return registry.Origin("a-plug-in", sources["source"]) if name == "bald" else known(kind, name)

    monkeypatch.setattr(registry, "origin", origin)
    run(tmp_path / "first")
    sources["source"] = "b"
    ran, printed = run(tmp_path / "second")
    assert ran == 8  # those of the plug-in
    assert "warning" not in printed


def test_own_rounds_are_not_replaced_by_fewer(tmp_path):
    run(tmp_path / "short", protocol=TINY["protocol"] | {"rounds": 2})
    run(tmp_path / "own", reuse=False)
    for path in (tmp_path / "own").glob("cells/*"):
        (path / "manifest.json").unlink()
        lines = (path / "rounds.jsonl").read_bytes().splitlines(keepends=True)
        (path / "rounds.jsonl").write_bytes(b"".join(lines[:3]))
    ran, printed = run(tmp_path / "own")
    assert ran == 4
    assert "copied" not in printed


def test_moved_and_damaged_entries_are_passed_over(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text("{}")
        remember(tmp_path / name)
        remember(tmp_path / name)
    assert set(known_runs()) == {tmp_path / "a", tmp_path / "b"}
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "cache" / "runs" / "damaged.json").write_text("{")
    (tmp_path / "cache" / "runs" / "list.json").write_text("[]")
    assert list(known_runs()) == [tmp_path / "b"]


def test_a_cache_that_cannot_be_written_stops_no_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "file"))
    remember(tmp_path)
    assert list(known_runs()) == []


def test_a_certified_but_damaged_cell_is_not_copied(tmp_path):
    run(tmp_path / "first")
    directory = next((tmp_path / "first" / "cells").iterdir())
    path = directory / "rounds.jsonl"
    path.write_text(re.sub(r'"log_likelihood":[-.0-9]+', '"log_likelihood":NaN', path.read_text(), count=1))
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))
    ran, printed = run(tmp_path / "second")
    assert ran == 4
    assert "3 finished cells copied" in printed
