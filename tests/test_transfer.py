"""`balbench.transfer`: successor models learn from the labels that policies bought."""

import json
import shutil

import pytest

import balbench
from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import cache_directory
from balbench.harness.running import engines
from support.command import run_here
from support.engines import InProcess
from support.studies import bytes_of, tiny

STUDY = tiny(policies=["random", "bald"])
SUCCESSOR = {"name": "bayesian_linear"}


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache of these tests, and an engine that starts no processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BALBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(engines, "make_engine", lambda *arguments: InProcess())
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return balbench.run_study(STUDY, tmp_path_factory.mktemp("transfer") / "run", progress=False)


def test_the_same_posterior_repeats_the_run(source, tmp_path):
    """A successor like the model that chose the labels has the same labels, streams and fits."""
    again = balbench.transfer(source, STUDY["posterior"], tmp_path / "again", progress=False)
    columns = ["policy", "seed", "round", "labels", "split", "metric"]
    held_out = source.curves["split"].isin(["eval", "test", "ood"])
    before = source.curves[held_out].set_index(columns)["value"]
    after = again.curves.set_index(columns)["value"]
    assert after[before.index].equals(before)
    assert again.full_data.equals(source.full_data)


def test_a_transfer_is_reported_like_a_run(source):
    run = balbench.transfer(source.path, SUCCESSOR, progress=False)
    assert run.path == source.path.with_name("run-bayesian_linear")
    assert set(run.cells["state"]) == {"finished"}
    assert run.policies == source.policies
    assert run.lines.equals(source.lines)
    assert set(run.savings().index.get_level_values("policy")) == {"random", "bald"}
    page = run.report().read_text()
    assert "<h1>Label savings: tiny: labels bought with ensemble, learnt by bayesian_linear</h1>" in page
    assert "bought_with ensemble" in page


def test_a_transfer_resumes_and_extends(source, tmp_path):
    whole = balbench.transfer(source, SUCCESSOR, tmp_path / "whole", progress=False)
    part = tmp_path / "part"
    own = tmp_path / "run"
    shutil.copytree(source.path, own)
    unfinished = next(own.glob("cells/bald-seed1-*/manifest.json"))
    content = unfinished.read_bytes()
    unfinished.unlink()
    assert len(balbench.transfer(own, SUCCESSOR, part, progress=False).cells) == len(whole.cells) - 1
    unfinished.write_bytes(content)
    for path in part.glob("cells/bald-seed0-*"):
        (path / "manifest.json").unlink()
        lines = (path / "rounds.jsonl").read_bytes().splitlines(keepends=True)
        (path / "rounds.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:9])
    resumed = balbench.transfer(own, SUCCESSOR, part, progress=False)
    assert len(resumed.cells) == len(whole.cells)
    assert bytes_of(part, "rounds.jsonl") == bytes_of(tmp_path / "whole", "rounds.jsonl")


def test_finished_cells_of_another_transfer_are_copied(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BALBENCH_REUSE", "on")
    balbench.transfer(source, "laplace", tmp_path / "first", progress=False)
    balbench.transfer(source, "laplace", tmp_path / "second")
    assert f"6 finished cells copied from {tmp_path / 'first'}" in capsys.readouterr().err


def test_a_recording_that_changed_replaces_the_earlier_cells(source, tmp_path, capsys):
    own = tmp_path / "run"
    shutil.copytree(source.path, own)
    balbench.transfer(own, SUCCESSOR, tmp_path / "out", progress=False)
    balbench.run_study(STUDY, own, overrides={"protocol.rounds": 5}, progress=False)
    run = balbench.transfer(own, SUCCESSOR, tmp_path / "out")
    assert len(run.cells) == len(source.cells)
    assert not run.cells.duplicated(["policy", "seed"]).any()
    assert "2 earlier cells stay on disk and leave the reports" in capsys.readouterr().err


def test_a_pool_that_changed_is_refused_in_one_line(source, tmp_path):
    own = tmp_path / "run"
    shutil.copytree(source.path, own)
    for path in own.glob("data/*/data.json"):
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(facts | {"pair_ids": "other", "cache": "gone"}))
    with pytest.raises(balbench.BalbenchError, match="built again with other pairs") as error:
        balbench.transfer(own, "epinet", tmp_path / "out", progress=False)
    assert str(error.value).endswith("; run the study again in a new directory")
    assert "\n" not in str(error.value)
    shutil.rmtree(own / "data")
    with pytest.raises(RunDirectoryError, match="has no facts about the data set; run the study again"):
        balbench.transfer(own, "epinet", tmp_path / "other", progress=False)


def test_the_run_itself_is_no_place_for_its_transfer(source):
    with pytest.raises(balbench.BalbenchError, match="is the run itself; give another directory") as error:
        balbench.transfer(source, "epinet", source.path, progress=False)
    assert error.value.setting == "out"


def test_data_are_rebuilt_if_the_cache_has_lost_them(source, tmp_path):
    shutil.rmtree(cache_directory() / "data")
    run = balbench.transfer(source, "epinet", tmp_path / "out", reuse=False, progress=False)
    assert set(run.cells["state"]) == {"finished"}


def test_the_command_prints_the_savings_of_successors(source, tmp_path, monkeypatch, capsys):
    arguments = ["transfer", source.path, "--out", tmp_path / "out", "--posterior"]
    code, out, err = run_here(monkeypatch, capsys, *arguments, "{name: bayesian_linear}")
    assert code == 0, err
    assert "Label savings against random, test" in out
    assert (tmp_path / "out" / "report" / "report.html").is_file()
    code, _, err = run_here(monkeypatch, capsys, *arguments, "{name: ensemble, memers: 3}")
    assert (code, err) == (2, "balbench: --posterior.memers: unknown key; did you mean 'members'?\n")
    code, _, err = run_here(monkeypatch, capsys, *arguments, "{name: ")
    assert code == 2
    assert err.startswith("balbench: --posterior: the value is not valid YAML: ")
