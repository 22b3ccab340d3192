"""`run_study(until_width=...)` adds blocks of seeds to a study, and resumes where it was."""

import pytest

import balbench
from balbench.reports.stopping import Widest
from support.command import run_here
from support.engines import InProcess
from support.studies import bytes_of, tiny, write_study

STUDY = tiny(
    policies=["random", "variance"], full_data=False, seeds=1, protocol={"initial": 10, "batch": 10, "rounds": 2}
)


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    """An engine that starts no processes."""
    monkeypatch.setattr("balbench.harness.running.engines.make_engine", lambda *arguments: InProcess())


@pytest.fixture
def widths(monkeypatch):
    """Lets each look see the next width of a list."""
    values = []
    monkeypatch.setattr("balbench.reports.stopping.widest", lambda table: Widest(values.pop(0), "variance", ""))
    return values


def seeds_of(run, policy):
    return sorted(run.cells.query("policy == @policy")["seed"])


def test_seeds_are_added_until_the_intervals_are_narrow_twice_in_a_row(tmp_path, widths, capsys):
    widths += [0.5, 0.1, 0.3, 0.2, 0.15]
    run = balbench.run_study(STUDY, tmp_path / "run", until_width=0.2)
    assert seeds_of(run, "variance") == seeds_of(run, "random") == list(range(21))
    lines = [line for line in capsys.readouterr().err.splitlines() if ": the widest" in line]
    assert lines[0] == "1 seed: the widest 95% interval on test, of variance, is 0.5 wide; more seeds run"
    assert lines[-1] == (
        "21 seeds: the widest 95% interval on test, of variance, is 0.15 wide; all are narrow enough at two looks in a "
        "row, so no seeds are added"
    )
    assert len(lines) == 5


def test_at_the_largest_number_of_seeds_none_are_added_and_a_second_run_changes_nothing(tmp_path, capsys):
    results = []
    for _ in range(2):
        run = balbench.run_study(STUDY, tmp_path / "run", until_width=0.2, max_seeds=3)
        assert seeds_of(run, "variance") == [0, 1, 2]
        line = "3 seeds: the widest 95% interval on test, of variance, is not bounded; this is the largest number of"
        assert line in capsys.readouterr().err
        results.append(bytes_of(tmp_path / "run"))
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore:overflow")
def test_failed_cells_end_the_looks(tmp_path, capsys):
    study = STUDY | {"policies": ["random", {"name": "bal_pm", "digamma_divisor": 1e-308}]}
    with pytest.warns(balbench.api.CellsFailedWarning):
        balbench.run_study(study, tmp_path / "run", until_width=0.2)
    assert "cells failed, so no seeds are added" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "setting", "message"),
    [
        ({"until_width": 0.0}, "until_width", "until_width 0: must be finite and greater than 0; 0.2 is"),
        ({"until_width": 0.2, "max_seeds": 0}, "max_seeds", "max_seeds 0: must be at least the number of seeds, 1"),
        ({"max_seeds": 9}, "max_seeds", "max_seeds 9: has no effect without `until_width`; give both"),
        ({"study": STUDY | {"policies": ["random"]}, "until_width": 0.2}, "until_width", "until_width: no policy is"),
    ],
)
def test_faults_name_arguments(tmp_path, arguments, setting, message):
    with pytest.raises(balbench.BalbenchError) as error:
        balbench.run_study(**{"study": STUDY, "out": tmp_path / "run", "progress": False} | arguments)
    assert str(error.value).startswith(message)
    assert error.value.setting == setting
    assert not (tmp_path / "run").exists()


def test_the_command_line_names_its_flags(tmp_path, monkeypatch, capsys):
    code, _, err = run_here(monkeypatch, capsys, "run", write_study(tmp_path), "--max-seeds", 9)
    assert (code, err) == (2, "balbench: --max-seeds 9: has no effect without --until-width; give both\n")


def test_a_transfer_is_refused(tmp_path):
    balbench.run_study(STUDY, tmp_path / "run", progress=False)
    with pytest.raises(balbench.BalbenchError, match="until_width: a transfer has the seeds of its run"):
        balbench.transfer(tmp_path / "run", "laplace", tmp_path / "out", until_width=0.2, progress=False)
