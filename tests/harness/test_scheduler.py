"""The scheduler: cells in worker processes, and what happens when they die or fail."""

import copy
import io
from functools import partial

import pytest
from rich.console import Console

from benchmarks.running import describe
from harness import registry
from harness.data_directory import check_budgets
from harness.engine import make_engine
from harness.errors import DataError, StudyError
from harness.placement import Placement
from harness.progress import CellState, Display, duration
from harness.results import RunDirectory, read_run
from harness.scheduler import Scheduler
from harness.study import check_study
from support.faults import one_line
from support.policies import Broken, Mortal
from support.studies import TINY, bytes_of


def schedule(path, jobs=2, fleet=None, **changes):
    """Run a tiny study; return its outcome and what was said."""
    study = check_study(copy.deepcopy(TINY) | changes, "tiny")
    directory, said = RunDirectory(path), io.StringIO()
    path.mkdir(exist_ok=True)
    directory.adopt(study.file.model_dump(mode="json"), [describe(cell) for cell in study.cells])
    placement = Placement(jobs, "cpu", fleet)
    with Display(Console(file=said, width=200)) as display:
        engine = partial(make_engine, placement, path, display.say)
        outcome = Scheduler(study, directory, placement, engine, display).run()
    return outcome, said.getvalue()


def test_bytes_do_not_depend_on_jobs(tmp_path):
    for jobs in (1, 3):
        outcome, _ = schedule(tmp_path / f"{jobs}", jobs)
        assert not outcome.failed
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "3")
    assert set(read_run(tmp_path / "1").cells["state"]) == {"finished"}


@pytest.fixture(autouse=True)
def misbehaving_policies(monkeypatch):
    known = {"test_mortal": Mortal, "test_broken": Broken}
    monkeypatch.setitem(registry._registered, "policies", known)


def test_a_worker_that_dies_is_named_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_TEST_DIE", str(tmp_path / "died"))
    outcome, said = schedule(tmp_path / "run", policies=["random", {"name": "test_mortal"}])
    assert not outcome.failed
    assert "the worker of test_mortal, seed 0 died; going on from round" in said
    assert set(read_run(tmp_path / "run").cells["state"]) == {"finished"}


def test_a_cell_whose_worker_always_dies_fails_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_TEST_DIE", "always")
    outcome, _said = schedule(tmp_path / "run", policies=["random", {"name": "test_mortal"}], seeds=[3])
    assert list(outcome.failed) == ["test_mortal, seed 3"]
    assert "its worker died 3 times, last in round 0" in outcome.failed["test_mortal, seed 3"]
    states = read_run(tmp_path / "run").cells.set_index("policy")["state"]
    assert states.to_dict() == {"random": "finished", "test_mortal": "failed", "full data": "finished"}


def test_a_cell_that_raises_fails_alone_with_its_reason(tmp_path):
    outcome, _ = schedule(tmp_path / "run", policies=["random", {"name": "test_broken"}], seeds=[3])
    assert outcome.failed == {"test_broken, seed 3": "RuntimeError: this policy is broken"}
    run = read_run(tmp_path / "run")
    assert run.cells.set_index("policy")["reason"]["test_broken"] == "RuntimeError: this policy is broken"


def test_a_posterior_that_diverges_fails_its_cell(tmp_path):
    posterior = TINY["posterior"] | {"learning_rate": 1e30, "activation": "relu", "warmup": 0}
    outcome, _ = schedule(tmp_path / "run", policies=["random"], seeds=[0], posterior=posterior, full_data=False)
    assert "the evaluation loss is not a number" in outcome.failed["random, seed 0"]


@pytest.mark.parametrize(
    ("protocol", "part"),
    [
        ({"initial": 301, "batch": 1, "rounds": 1}, "301 labels, but the pool has 300 pairs"),
        ({"initial": 100, "batch": 100, "rounds": 4}, "lower rounds to 3"),
        ({"initial": 100, "batch": 150, "rounds": 4}, "lower rounds to 3"),
        ({"initial": 300, "batch": 1, "rounds": 2}, "lower rounds to 1"),
    ],
)
def test_a_pool_that_is_too_small(protocol, part):
    cell = check_study(copy.deepcopy(TINY) | {"protocol": protocol}, "tiny").cells[0]
    with pytest.raises(StudyError, match=part):
        check_budgets([cell], 300)


@pytest.mark.parametrize(
    "protocol", [{"initial": 100, "batch": 150, "rounds": 3}, {"initial": 300, "batch": 1, "rounds": 1}]
)
def test_a_pool_that_is_just_large_enough(protocol):
    check_budgets(list(check_study(copy.deepcopy(TINY) | {"protocol": protocol}, "tiny").cells), 300)


def test_a_damaged_data_set_is_built_again_when_its_manifest_is_gone(tmp_path):
    schedule(tmp_path / "run", policies=["random"])
    before = bytes_of(tmp_path / "run")
    for path in (tmp_path / "run" / "data").rglob("data.json"):
        path.unlink()
    for path in (tmp_path / "run" / "cells").rglob("manifest.json"):
        path.unlink()
    schedule(tmp_path / "run", policies=["random"])
    assert bytes_of(tmp_path / "run") == before


def test_data_that_cannot_be_built_stop_the_run(tmp_path):
    with pytest.raises((DataError, StudyError), match="dataset"):
        schedule(tmp_path / "run", dataset={"name": "jsonl", "path": "nowhere.jsonl"})


def test_data_that_lack_what_a_policy_needs_stop_the_run_before_the_first_round(tmp_path):
    policies = ["random", {"name": "llm_perplexity_low", "score": "token_entropy", "label": "LLM"}]
    one_line(lambda: schedule(tmp_path / "run", policies=policies), "policy LLM: the data set has no token entropy")
    assert not list((tmp_path / "run").rglob("rounds.jsonl"))
    outcome, _ = schedule(tmp_path / "other", policies=["random", "llm_perplexity_low"])
    assert not outcome.failed


def test_plain_lines_now_and_then_where_there_is_no_terminal(monkeypatch):
    said, states = (
        io.StringIO(),
        [CellState("random", "finished", 3, 3, 60, 60), CellState("bald", "running", 1, 3, 10, 60)],
    )
    with Display(Console(file=said, width=100)) as display:
        display.cells(states)  # too soon to say anything
        display.data("simulate", 4, 4)  # done before there was anything to say
        monkeypatch.setattr("harness.progress.PLAIN_SECONDS", 0.0)
        display.cells(states)
        display.data("encode", 5, 10)
        display.data("encode", 10, 10)
    wanted = ["1 of 2 cells, 4 of 6 rounds, time left unknown yet", "encode: 5 of 10", "encode: 10 of 10"]
    assert said.getvalue().splitlines() == wanted


def test_a_live_table_in_a_terminal():
    said = io.StringIO()
    with Display(Console(file=said, width=100, force_terminal=True)) as display:
        display.cells([CellState("random", "finished", 3, 3, 60, 60), CellState("bald", "failed", 1, 3, 10, 60)])
        display._live.refresh()
        display.data("encoding texts", 250, 1000)
        display._live.refresh()
    assert "encoding texts: 250 of 1,000" in said.getvalue()
    assert "1 of 2 cells, 4 of 6 rounds, 1 failed" in said.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
