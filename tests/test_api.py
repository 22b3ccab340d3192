"""The Python API, as scripts and notebooks use it."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import balbench
from balbench.api import CellsFailedWarning, shipped_studies
from balbench.reports.analysis import analyse
from balbench.reports.power import power_table
from balbench.reports.savings_table import savings_table
from balbench.reports.specification import specification
from support.studies import tiny, write_study

SOURCE = Path(__file__).parents[1] / "src"
SMALL = tiny(policies=["random", "variance"], full_data=False)


def python(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return balbench.run_study(SMALL, tmp_path_factory.mktemp("api") / "run", seeds=3, reference_seeds=3, progress=False)


def test_import_is_light_and_every_public_name_exists(tmp_path):
    heavy = ["torch", "numpy", "pandas", "datasets", "pyarrow", "pydantic", "matplotlib", "rich", "typer", "yaml"]
    code = f"import sys, balbench; print([name for name in {heavy} if name in sys.modules]); print(dir(balbench))"
    light, names = python("-c", code, cwd=tmp_path).stdout.splitlines()
    assert light == "[]"
    for name in balbench.__all__:
        assert repr(name) in names
        assert getattr(balbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'run_studies'"):
        balbench.run_studies  # noqa: B018


def test_a_run_has_savings_a_plot_and_a_report(run):
    savings = run.savings()
    assert savings.loc[("test", "random"), "outcome"] == "reference"
    assert set(savings.index.get_level_values("split")) == {"test", "ood"}
    assert "..." not in savings.to_string(max_cols=0, line_width=80)
    assert run.plot("ood", metric="accuracy").axes
    page = run.report()
    assert page == run.path / "report" / "report.html"
    assert page.is_file()
    assert "6 of 6 cells finished" in repr(run)
    assert "<table" in run._repr_html_()
    assert not len(run.failed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.savings_at_levels("varance"), "policy: 'varance' has no learning curves; did you mean"),
        (
            lambda run: run.savings_at_levels("variance", split="tset"),
            "split: 'tset' has no learning curves; did you mean",
        ),
        (lambda run: run.savings_at_levels("variance", metric="ece"), "no savings for the metric 'ece'"),
        (lambda run: run.savings_at_levels("variance", setting="x"), "setting: 'x' has no learning curves"),
        (lambda run: run.labels_to(0.6, split="tset"), "split: 'tset' has no learning curves"),
        (lambda run: run.labels_to(0.6, metric="acuracy"), "metric: 'acuracy' has no learning curves; did you mean"),
        (lambda run: run.labels_to(float("nan")), "target: must be a finite number, not nan"),
        (lambda run: run.held_out("x"), "setting: no 'x'"),
        (lambda run: run.predictions("", "blad", 0), r"the run has no cell \('', 'blad', 0\); `cells` lists"),
    ],
)
def test_a_run_names_what_it_does_not_have(run, call, message):
    with pytest.raises(balbench.BalbenchError, match=f"^{message}"):
        call(run)


def test_a_run_stays_valid_when_the_working_directory_changes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.path.parent)
    relative = balbench.read_run("run")
    monkeypatch.chdir(tmp_path)
    assert relative.path == run.path
    assert relative.report().is_relative_to(run.path)
    assert not list(tmp_path.iterdir())


def test_a_grid_is_part_of_the_index_of_savings(tmp_path):
    study = SMALL | {"grid": {"posterior.members": [2, 3]}, "policies": ["random", "variance"]}
    run = balbench.run_study(study, tmp_path, seeds=1, reference_seeds=1, progress=False)
    assert run.savings().index.names == ["setting", "split", "policy"]
    assert run.plot(setting="posterior.members=3").axes
    with pytest.raises(balbench.BalbenchError, match=r"did you mean 'posterior\.members=3'"):
        run.plot(setting="posterior.member=3")


def test_unknown_curves_are_named_with_the_known_ones(run):
    with pytest.raises(balbench.BalbenchError, match=r"^metric: 'acuracy' has no learning curves; .*'accuracy'\?"):
        run.plot(metric="acuracy")
    with pytest.raises(balbench.BalbenchError, match="no savings for the metric"):
        run.savings("loss")


@pytest.mark.parametrize("overrides", [{"policies.1": "variance"}, ["policies.1=variance"]])
def test_a_mapping_and_a_file_with_overrides_give_the_same_cells(tmp_path, overrides):
    path = write_study(tmp_path, **SMALL | {"policies": ["random", "bald"]})
    expected = [cell.key for cell in balbench.load_study(SMALL, seeds=3, reference_seeds=3).cells]
    for source in (path, str(path)):
        cells = balbench.load_study(source, overrides=overrides, seeds=[0, 1, 2], reference_seeds=[2, 1, 0]).cells
        assert [cell.key for cell in cells] == expected


def test_read_run_takes_text_and_paths(run):
    assert balbench.read_run(str(run.path)).fingerprint == balbench.read_run(run.path).fingerprint == run.fingerprint


@pytest.mark.parametrize(
    ("arguments", "setting", "message"),
    [
        ({"study": "quickstrat"}, None, "did you mean 'quickstart'"),
        ({"study": SMALL | {"polices": []}}, None, "study: polices: unknown key; did you mean 'policies'"),
        ({"seeds": 0}, "seeds", "seeds 0: must be at least 1"),
        ({"reference_seeds": 1}, None, "reference_seeds: must be at least the number of seeds, 2, not 1"),
        ({"overrides": {"name.x": 1}}, "override", "override name.x: 'name' is a text"),
        ({"overrides": "posterior.members=3"}, "override", "must be a list of texts, or a mapping"),
        ({"overrides": ["posterior.members"]}, "override", "must have the form key=value"),
    ],
)
def test_errors_name_settings(tmp_path, arguments, setting, message):
    with pytest.raises(balbench.BalbenchError) as error:
        balbench.run_study(**{"study": SMALL, "out": tmp_path, "progress": False} | arguments)
    assert message in str(error.value)
    assert "--" not in str(error.value)
    assert error.value.setting == setting


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: balbench.claims(5), "run: must be a run or its directory, not 5; give"),
        (lambda run: balbench.claims(run, 5), "file: must be a path, not 5"),
        (lambda run: balbench.read_run(None), "path: must be a path, not None"),
        (lambda run: balbench.read_run(b"run"), "path: must be a path, not b'run'"),
        (lambda run: balbench.run_study(5), "study: must be a path, not 5"),
        (lambda run: balbench.run_study(SMALL, 5), "out: must be a path, not 5"),
        (lambda run: balbench.load_study(SMALL, overrides=[5]), "override 5: must be a text"),
        (lambda run: balbench.transfer(None, "laplace"), "run: must be a path, not None"),
        (lambda run: balbench.register(5, "name", int), "kind 5: known: datasets"),
        (lambda run: balbench.register("policies", 5, int), "name 5: must be a text"),
        (lambda run: run.report(5), "out: must be a path, not 5"),
        (lambda run: run.plot(5), "split: 5 has no learning curves"),
        (lambda run: run.held_out([]), r"setting: no \[\]; known: ''"),
        (lambda run: run.predictions("", [], 0), "the run has no cell"),
        (lambda run: power_table(run, effect="x"), "effect 'x': must be a number"),
        (lambda run: power_table("run"), "run: must be a run, not 'run'; give balbench.read_run"),
        (lambda run: savings_table(None), "run: must be a run, not None"),
        (lambda run: analyse(["run"]), "run: must be a run, not 'run'"),
        (lambda run: specification(run, "unknown"), "setting: 'unknown' has no learning curves; choose one of: ''"),
        (lambda run: specification(run, split="train"), "split: 'train' has no learning curves; choose one of: 'test'"),
        (lambda run: specification(5), "run: must be a run, not 5"),
    ],
)
def test_arguments_of_another_type_are_refused_in_one_line(run, call, message):
    with pytest.raises(balbench.BalbenchError, match=f"^{message}") as error:
        call(run)
    assert "\n" not in str(error.value)


def test_shipped_studies_load_by_name():
    assert "quickstart" in shipped_studies()
    study = balbench.load_study("quickstart", seeds=2, reference_seeds=3)
    assert study.file.seeds == [0, 1]
    assert study.file.reference_seeds == [0, 1, 2]


def test_failed_cells_are_in_the_run_and_cause_a_warning(tmp_path):
    study = SMALL | {"policies": ["random", {"name": "bal_pm", "digamma_divisor": 1e-308}]}
    with pytest.warns(CellsFailedWarning, match="1 of 2 cells failed"):
        run = balbench.run_study(study, tmp_path, seeds=1, reference_seeds=1, progress=False)
    assert list(run.failed["policy"]) == ["bal_pm"]
    assert "scores are not finite" in run.failed["reason"].iloc[0]
    assert "1 failed" in repr(run)


def test_an_interrupt_keeps_complete_rounds_and_propagates(tmp_path, monkeypatch, capsys):
    def interrupted(scheduler):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("balbench.harness.running.scheduler.Scheduler.run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            balbench.run_study(SMALL, tmp_path, seeds=1, reference_seeds=1)
    assert "stopped: 0 of 8 rounds are kept" in capsys.readouterr().err
    run = balbench.read_run(tmp_path)
    assert len(run.cells) == 2
    assert "0 of 8 rounds" in run._repr_html_()
    assert not len(run.savings())
    with pytest.raises(balbench.BalbenchError, match="the run has no results yet"):
        run.plot()


def test_a_study_runs_in_another_thread(tmp_path):
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(balbench.run_study(SMALL, tmp_path, seeds=1, reference_seeds=1, progress=False))
    )
    thread.start()
    thread.join()
    assert len(runs[0].cells) == 2


@pytest.mark.slow
def test_a_script_needs_no_main_guard(tmp_path):
    (tmp_path / "script.py").write_text(f"""
import balbench
run = balbench.run_study({SMALL!r}, "out", seeds=2, jobs=2, progress=False)
print(run)
""")
    done = python("script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 of 4 cells finished") == 1
    assert done.stderr == ""


def test_a_swallowed_interrupt_stops_the_run(tmp_path, monkeypatch):
    """Some libraries catch every exception, for example while they are imported."""

    def swallow(cells, directory):
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    monkeypatch.setattr("balbench.harness.running.scheduler.add_lines", swallow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            balbench.run_study(SMALL, tmp_path / "run", seeds=1, reference_seeds=1, progress=False)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
