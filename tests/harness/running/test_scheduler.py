"""The scheduler: cells in worker processes, and what happens when they die or fail."""

import io
import itertools
import shutil
from concurrent.futures import Future
from functools import partial

import pytest
from rich.console import Console

from balbench.harness import registry
from balbench.harness.datasets.dataset import Dataset
from balbench.harness.datasets.simulated import Simulated
from balbench.harness.errors import DataError, StudyError
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.results import RunDirectory, read_run
from balbench.harness.running.data_directory import check_budgets
from balbench.harness.running.engine import WorkerDied
from balbench.harness.running.engines import make_engine
from balbench.harness.running.placement import Placement
from balbench.harness.running.progress import Display
from balbench.harness.running.scheduler import Scheduler
from balbench.harness.study.study import check_study
from support import posteriors
from support.engines import InProcess
from support.faults import one_line
from support.policies import Broken, Leaving, Mortal, Unwritable
from support.posteriors import Crowded, Greedy, Touchy
from support.studies import TINY, bytes_of, tiny


def schedule(path, jobs=2, fleet=None, engine=None, prepared=None, **changes):
    """Run a tiny study, on processes or an engine of the test's own; return its outcome and what was printed."""
    study = check_study(tiny(**changes), "tiny")
    directory, printed = RunDirectory(path), io.StringIO()
    path.mkdir(exist_ok=True)
    directory.adopt(study.header)
    placement = Placement(jobs, "cpu", fleet, grace=0.0)
    with Display(Console(file=printed, width=200)) as display:
        make = (lambda: engine) if engine else partial(make_engine, placement, path, display.say)
        scheduler = Scheduler(study, directory, placement, make, display)
        if prepared:
            prepared(scheduler)
        outcome = scheduler.run()
    return outcome, printed.getvalue()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The bytes of an undisturbed run."""
    path = tmp_path_factory.mktemp("quiet") / "run"
    assert not schedule(path, engine=InProcess(1))[0].failed
    assert set(read_run(path).cells["state"]) == {"finished"}
    return bytes_of(path)


@pytest.mark.slow
def test_bytes_do_not_depend_on_processes_or_fleets(quiet, tmp_path):
    for jobs, fleet in ((1, None), (3, 1), (2, 3), (1, 8)):
        path = tmp_path / f"{jobs}-{fleet}"
        outcome, printed = schedule(path, jobs, fleet)
        assert not outcome.failed
        assert bytes_of(path) == quiet
    assert "10 cells as 2 fleets of 2 to 8 on 1 process (cpu)" in printed


@pytest.mark.parametrize("seconds", [0.0, 0.05, 99.0])
def test_bytes_do_not_depend_on_how_long_a_task_is(quiet, tmp_path, seconds):
    engine = InProcess(3, seconds=seconds)
    schedule(tmp_path / "run", fleet=4, engine=engine)
    assert bytes_of(tmp_path / "run") == quiet
    assert engine.closed
    if seconds == 0.0:
        assert len(engine.tasks) == 4 + 4 + 1  # the rounds of both fleets, and the full data
    if seconds == 99.0:
        assert len(engine.tasks) == 3


def test_a_run_continues_each_cell_after_its_last_round(quiet, tmp_path):
    path = tmp_path / "run"
    schedule(path, engine=InProcess())
    for number, cell in enumerate(sorted((path / "cells").iterdir())):
        lines = (cell / "rounds.jsonl").read_bytes().splitlines(keepends=True)
        (cell / "rounds.jsonl").write_bytes(b"".join(lines[: number % 5]) + b'{"torn'[: number % 2 * 6])
        (cell / "manifest.json").unlink()
    outcome, _ = schedule(path, fleet=8)
    assert not outcome.failed
    assert bytes_of(path) == quiet


def test_more_rounds_continue_a_finished_run(quiet, tmp_path):
    path, protocol = tmp_path / "run", TINY["protocol"]
    schedule(path, engine=InProcess(), protocol=protocol | {"rounds": 2})
    short = read_run(path)
    engine = InProcess(seconds=0.0)
    schedule(path, fleet=8, engine=engine)
    assert bytes_of(path) == quiet
    assert len(engine.tasks) == 3  # of four rounds, the last of the shorter run again and two more
    study = check_study(tiny(protocol=protocol | {"rounds": 2}), "tiny")
    schedule(path, engine=None, protocol=study.file.protocol.model_dump())  # nothing to run, hence no engine
    assert bytes_of(path) == quiet
    assert read_run(path, study.header).curves.equals(short.curves)


def test_a_grid_over_rounds_runs_each_cell_once(quiet, tmp_path):
    schedule(tmp_path / "run", engine=InProcess(), grid={"protocol.rounds": [2, 4]})
    names = ("rounds.jsonl", "predictions.f16")
    assert bytes_of(tmp_path / "run", *names) == {name: each for name, each in quiet.items() if name.endswith(names)}
    run = read_run(tmp_path / "run")
    assert run.curves.groupby("setting")["round"].max().to_dict() == {"protocol.rounds=2": 1, "protocol.rounds=4": 3}


def test_a_plug_in_that_changed_under_its_version_is_named(tmp_path, monkeypatch):
    policies = ["random", "bald"]

    def said_with(source):
        known = registry.origin
        origin = registry.Origin("a-plug-in", source)
        with monkeypatch.context() as patch:
            patch.setattr(registry, "origin", lambda kind, name: origin if name == "bald" else known(kind, name))
            return schedule(tmp_path / "run", engine=InProcess(), policies=policies)[1]

    assert "warning" not in said_with("a") + said_with("a")
    assert (
        "warning: policies bald: the source of this plug-in changed, but not its version; 2 cells in "
        f"{tmp_path / 'run'} have results of the earlier source; raise `version` to run them again"
    ) in " ".join(said_with("b").split())


def test_two_cells_with_the_same_key_are_both_run(tmp_path):
    """A policy whose own posterior is that of another setting of the study: same results under two labels."""
    linear = {"name": "bayesian_linear"}
    changes = {
        "policies": ["random", "bald", {"name": "bald", "label": "own", "posterior": linear}],
        "grid": {"posterior": [TINY["posterior"], linear]},
        "seeds": [0],
    }
    schedule(tmp_path / "run", engine=InProcess(), **changes)
    expected = bytes_of(tmp_path / "run")
    for name in ("bald-seed0", "own-seed0"):  # the first of the twins, then the other
        schedule(tmp_path / name, engine=InProcess(), **changes)
        for cell in (tmp_path / name / "cells").glob(f"{name}-*"):
            shutil.rmtree(cell)
        schedule(tmp_path / name, engine=InProcess(), **changes)
        assert bytes_of(tmp_path / name) == expected


@pytest.fixture(autouse=True)
def misbehaving_parts(monkeypatch):
    policies = {"test_mortal": Mortal, "test_broken": Broken, "test_unwritable": Unwritable, "test_leaving": Leaving}
    monkeypatch.setitem(registry._registered, "policies", policies)
    bad = {"test_crowded": Crowded, "test_touchy": Touchy, "test_greedy": Greedy, "test_leaving": posteriors.Leaving}
    monkeypatch.setitem(registry._registered, "posteriors", bad)


def test_a_worker_that_dies_is_named_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_TEST_DIE", str(tmp_path / "died"))
    outcome, printed = schedule(tmp_path / "run", policies=["random", {"name": "test_mortal"}], seeds=1)
    assert not outcome.failed
    assert "the worker of test_mortal, seed 0 died; continuing from round" in printed
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


@pytest.mark.parametrize("fleet", [1, 8])
def test_a_policy_that_ends_python_fails_alone(tmp_path, fleet):
    policies = ["random", {"name": "test_leaving"}]
    outcome, _ = schedule(tmp_path / "run", 1, fleet, policies=policies, seeds=[3])
    assert outcome.failed == {"test_leaving, seed 3": "SystemExit: 3"}
    assert read_run(tmp_path / "run").cells["state"].tolist() == ["finished", "failed", "finished"]


def test_a_posterior_that_ends_python_fails_its_cells(tmp_path):
    bad = {"name": "random", "label": "bad", "posterior": TINY["posterior"] | {"name": "test_leaving"}}
    outcome, _ = schedule(tmp_path / "run", 1, 8, policies=["random", bad], full_data=False)
    assert outcome.failed == {"bad, seed 0": "SystemExit: 3", "bad, seed 1": "SystemExit: 3"}


@pytest.mark.slow
def test_a_fleet_with_a_deadly_cell_is_split_until_it_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_TEST_DIE", "always")
    policies = ["random", "bald", {"name": "test_mortal"}]
    outcome, printed = schedule(tmp_path / "run", 1, 6, policies=policies, full_data=False)
    assert list(outcome.failed) == ["test_mortal, seed 0", "test_mortal, seed 1"]
    assert "the worker of random, seed 0 and 5 other cells died; continuing from round 0" in printed
    states = read_run(tmp_path / "run").cells.set_index("policy")["state"]
    assert states["random"].tolist() == states["bald"].tolist() == ["finished", "finished"]


def test_a_cell_whose_record_cannot_be_written_fails_alone(tmp_path):
    policies = ["random", {"name": "test_unwritable"}]
    outcome, _ = schedule(tmp_path / "run", fleet=4, engine=InProcess(seconds=99.0), policies=policies, full_data=False)
    assert list(outcome.failed) == ["test_unwritable, seed 0", "test_unwritable, seed 1"]
    assert "JSON" in outcome.failed["test_unwritable, seed 0"]
    cells = read_run(tmp_path / "run").cells.set_index("policy")
    assert cells["rounds_done"]["test_unwritable"].tolist() == [1, 1]  # what came before is kept
    assert cells["state"]["random"].tolist() == ["finished", "finished"]


def test_cells_that_diverge_fail_alone_whatever_their_fleet(tmp_path):
    actual = []
    for fleet in (1, 8):
        path, posterior = tmp_path / f"{fleet}", TINY["posterior"] | {"name": "test_touchy"}
        outcome, _ = schedule(path, fleet=fleet, engine=InProcess(), posterior=posterior, full_data=False)
        actual.append((set(outcome.failed), bytes_of(path)))
        assert set(outcome.failed.values()) == {"DivergedError: no number"}
        assert 0 < len(outcome.failed) < 8
    assert actual[0] == actual[1]


def test_on_a_gpu_a_fleet_is_what_fits(quiet, tmp_path, monkeypatch):
    monkeypatch.setattr(Ensemble, "training_bytes", lambda self, dimension: 10**6 * dimension, raising=False)
    engine = InProcess(1, seconds=99.0, free=30_000_000)  # for three cells of dimension 8
    _, printed = schedule(tmp_path / "run", engine=engine)
    assert "10 cells as 4 fleets of 2 to 3 on 1 process (here)" in printed
    assert bytes_of(tmp_path / "run") == quiet


@pytest.mark.parametrize("name", ["test_crowded", "test_greedy"])
def test_a_fleet_that_does_not_fit_is_halved(tmp_path, name):
    posterior = TINY["posterior"] | {"name": name}
    for fleet in (1, 8):
        engine = InProcess(1)
        outcome, printed = schedule(tmp_path / f"{fleet}", fleet=fleet, engine=engine, posterior=posterior)
        assert not outcome.failed
    assert printed.splitlines()[2:] == [
        "out of memory on cuda:3 with 8 cells; continuing with 4 and 4",
        "out of memory on cuda:3 with 4 cells; continuing with 2 and 2",
        "out of memory on cuda:3 with 4 cells; continuing with 2 and 2",
    ]
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "8")


def test_a_cell_that_does_not_fit_alone_fails(tmp_path):
    posterior = TINY["posterior"] | {"name": "test_crowded", "most": 0}
    outcome, _ = schedule(tmp_path / "run", fleet=8, engine=InProcess(), policies=["random"], posterior=posterior)
    assert len(outcome.failed) == 4
    assert set(outcome.failed.values()) == {
        "out of memory on cuda:3 with this cell alone; lower posterior.members or posterior.hidden, let fewer "
        "processes run (`jobs`, `fleets_per_device`), or set `features` to streamed"
    }


def test_workers_that_die_now_and_then_only_cost_time(quiet, tmp_path):
    numbers = itertools.count()

    def die(task):
        if next(numbers) % 3 < 2:  # never three times between two rounds of a fleet
            raise WorkerDied

    engine = InProcess(1, die)
    outcome, _ = schedule(tmp_path / "run", fleet=8, engine=engine)
    assert not outcome.failed
    assert bytes_of(tmp_path / "run") == quiet
    assert engine.tasks[0].seconds > 0
    assert all(task.seconds == 0 for task in engine.tasks[1:12])  # a round at a time, so that nothing is lost twice


def test_an_error_that_names_no_cell_is_pinned_on_one(tmp_path):
    def fail(task):
        if any(cell.title == "bald, seed 1" for cell in task.cells):
            raise RuntimeError("an oracle broke")

    outcome, _ = schedule(tmp_path / "run", fleet=8, engine=InProcess(before=fail))
    assert outcome.failed == {"bald, seed 1": "RuntimeError: an oracle broke"}
    assert (read_run(tmp_path / "run").cells["state"] == "finished").sum() == 9


def test_stopping_submits_nothing_more_and_keeps_what_comes_back(quiet, tmp_path):
    scheduler = []

    def stop(task):
        if len(engine.tasks) == 3:
            assert not scheduler[0].stopping
            scheduler[0].stop()

    engine = InProcess(1, stop, seconds=0.0)
    outcome, _ = schedule(tmp_path / "run", fleet=8, engine=engine, prepared=scheduler.append)
    assert outcome.stopped
    assert len(engine.tasks) == 3
    assert engine.closed
    assert read_run(tmp_path / "run").cells["rounds_done"].tolist() == [3] * 8 + [0] * 2
    assert not schedule(tmp_path / "run", engine=InProcess())[0].stopped
    assert bytes_of(tmp_path / "run") == quiet


def test_a_task_that_outlasts_the_grace_is_left(tmp_path):
    class Endless(InProcess):
        def submit(self, task):
            scheduler[0].stop()
            return Future()

    scheduler, engine = [], Endless()
    outcome, _ = schedule(tmp_path / "run", engine=engine, prepared=scheduler.append)
    assert outcome.stopped
    assert engine.closed


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
    cell = check_study(tiny(protocol=protocol), "tiny").cells[0]
    with pytest.raises(StudyError, match=part):
        check_budgets([cell], 300)


@pytest.mark.parametrize(
    "protocol", [{"initial": 100, "batch": 150, "rounds": 3}, {"initial": 300, "batch": 1, "rounds": 1}]
)
def test_a_pool_that_is_just_large_enough(protocol):
    check_budgets(list(check_study(tiny(protocol=protocol), "tiny").cells), 300)


def test_a_damaged_data_set_is_built_again_when_its_manifest_is_gone(tmp_path):
    schedule(tmp_path / "run", policies=["random"])
    before = bytes_of(tmp_path / "run")
    for path in (tmp_path / "run" / "data").rglob("data.json"):
        path.unlink()
    for path in (tmp_path / "run" / "cells").rglob("manifest.json"):
        path.unlink()
    schedule(tmp_path / "run", policies=["random"])
    assert bytes_of(tmp_path / "run") == before


def test_deleted_facts_of_a_finished_run_are_written_again(tmp_path):
    schedule(tmp_path / "run", policies=["random"])
    before = bytes_of(tmp_path / "run", "held_out.safetensors", "rounds.jsonl")
    next((tmp_path / "run").glob("data/*/held_out.safetensors")).unlink()
    schedule(tmp_path / "run", engine=(engine := InProcess()), policies=["random"])
    assert engine.tasks == []
    assert bytes_of(tmp_path / "run", "held_out.safetensors", "rounds.jsonl") == before


def test_data_that_cannot_be_built_stop_the_run(tmp_path):
    with pytest.raises((DataError, StudyError), match="dataset"):
        schedule(tmp_path / "run", dataset={"name": "jsonl", "path": "nowhere.jsonl"})


def test_data_that_lack_what_a_policy_needs_stop_the_run_before_the_first_round(tmp_path, monkeypatch):
    monkeypatch.setattr(Simulated, "contents", Dataset.contents)  # data that say nothing of themselves
    policies = ["random", {"name": "llm_perplexity_low", "score": "token_entropy", "label": "LLM"}]
    one_line(lambda: schedule(tmp_path / "run", policies=policies), "policy LLM: the data set has no token entropy")
    assert not list((tmp_path / "run").rglob("rounds.jsonl"))
    outcome, _ = schedule(tmp_path / "other", policies=["random", "llm_perplexity_low"])
    assert not outcome.failed


@pytest.mark.parametrize(
    ("jobs", "small_work", "seconds", "most_running", "first"),
    [
        (None, 5_000, (99.0, 99.0), 1, 1),
        (None, 0, (99.0, 99.0), 3, 3),
        (None, 5_000, (99.0, 0.0), 3, 1),
        (None, 5_000, (0.0, 99.0), 3, 3),
        (3, 5_000, (99.0, 99.0), 3, 3),
    ],
    ids=["small", "large", "small but slow", "no result for long", "asked for"],
)
def test_a_small_study_starts_with_one_process(tmp_path, monkeypatch, jobs, small_work, seconds, most_running, first):
    names = ("SMALL_WORK", "FIRST_RESULT_SECONDS", "SMALL_SECONDS")
    for name, value in zip(names, (small_work, *seconds), strict=True):
        monkeypatch.setattr(f"balbench.harness.running.scheduler.{name}", value)
    engine, most, schedulers = InProcess(3), [], []
    engine.location = "cpu"
    engine.before = lambda task: most.append(len(schedulers[0]._running) + 1)
    changes = {"policies": ["random", "variance", "bald"], "full_data": False}
    changes["protocol"] = {"initial": 10, "batch": 10, "rounds": 1}
    outcome, printed = schedule(tmp_path / "run", jobs, 1, engine, schedulers.append, **changes)
    assert not outcome.failed
    assert max(most) == most_running
    assert f"on {first} process" in printed
