"""The commands `baseline` and `gate`, as a user runs them."""

from __future__ import annotations

import json
import sys

import pytest
import yaml

import balbench
from balbench.benchmarks import main as program
from support.gates import Failing, Turned, quiet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    run = balbench.run_study(quiet(), folder / "run", progress=False, jobs=1)
    balbench.baseline(run, folder / "baseline.json")
    balbench.register("policies", "turned", Turned)
    worse = quiet(policies=["random", {"name": "turned"}])
    (folder / "study.yaml").write_text(yaml.safe_dump(quiet()))
    (folder / "worse.yaml").write_text(yaml.safe_dump(worse))
    (folder / "other.yaml").write_text(yaml.safe_dump(quiet(posterior={"name": "bayesian_linear", "samples": 7})))
    return folder


@pytest.fixture
def balbench_command(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["balbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            program.main()
        return end.value.code, *capsys.readouterr()

    return run


def test_a_baseline_is_small_and_names_its_policies(balbench_command, folder):
    code, out, _ = balbench_command("baseline", "run", "--out", "again.json", "--policy", "bald")
    assert code == 0
    assert "random, 5 seeds, bald, 5 seeds" in out
    assert (folder / "again.json").stat().st_size < 20_000
    assert json.loads((folder / "again.json").read_text())["versions"]["policy bald"] == 1


def test_the_same_run_passes(balbench_command):
    code, out, _ = balbench_command("gate", "baseline.json", "run", "--junit", "j.xml", "--markdown", "m.md")
    assert code == 0
    assert "bald: pass: the curves are the same, and so are the picks." in out


def test_a_study_runs_only_the_tested_policies(balbench_command, folder):
    code, out, _ = balbench_command("gate", "baseline.json", "study.yaml", "--out", "candidate", "--jobs", 1)
    assert code == 0
    assert "so are the picks" in out
    assert {path.name.split("-seed")[0] for path in (folder / "candidate" / "cells").iterdir()} == {"bald"}


def test_a_turned_sign_is_refused(balbench_command, folder):
    code, out, _ = balbench_command(
        *["gate", "baseline.json", "worse.yaml", "--policy", "turned=bald", "--jobs", 1],
        *["--junit", "j.xml", "--markdown", "m.md", "--figure", "figure"],
    )
    assert code == 1
    assert "turned (was bald): regressed: savings " in out
    assert "Changed: name: bald -> turned" in out
    assert "<failure" in (folder / "j.xml").read_text()
    assert "regressed" in (folder / "m.md").read_text()
    assert (folder / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.json", "run"], "nothing.json: cannot be read"),
        (["baseline.json", "nothing"], "no study 'nothing'"),
        (["baseline.json", "other.yaml"], "posterior.prior_precision: 0.05 -> nothing"),
        (["baseline.json", "worse.yaml"], "--policy: quiet has no policy 'bald' in the settings of the baseline"),
        (["baseline.json", "worse.yaml", "--policy", "turned=bold"], "policy 'bold': quiet has no such policy"),
        (["baseline.json", "run", "--margin", "7"], "--margin 7.0: must be above 0 and below 1"),
        (["baseline.json", "run", "--metric", "ece"], "--metric 'ece': must be one of log_likelihood"),
        (["baseline.json", "study.yaml", "--out", "study.yaml"], "--out study.yaml: is a file, not a directory"),
    ],
)
def test_bad_input_is_one_line_and_never_a_pass(balbench_command, arguments, message):
    code, out, error = balbench_command("gate", *arguments)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert "pass" not in out


def test_a_policy_that_fails_is_no_verdict(balbench_command, folder):
    balbench.register("policies", "failing", Failing)
    (folder / "failing.yaml").write_text(yaml.safe_dump(quiet(policies=["random", "failing"])))
    code, out, error = balbench_command(
        "gate", "baseline.json", "failing.yaml", "--policy", "failing=bald", "--jobs", 1
    )
    assert code == 2
    assert "5 of 5 cells are not finished (failing, seed 0, failed: ValueError: no scores" in error.splitlines()[-1]
    assert out == ""


def test_results_of_other_code_do_not_count(balbench_command, folder):
    balbench_command("gate", "baseline.json", "study.yaml", "--out", "stale", "--jobs", 1)
    for path in (folder / "stale").glob("cells/*/cell.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "other"}))
    code, _, error = balbench_command("gate", "baseline.json", "study.yaml", "--out", "stale")
    assert code == 2
    assert "--out stale: has results of other code of bald; give a new directory" in error


def test_an_unfinished_run_has_no_baseline(balbench_command, folder):
    cell = next((folder / "candidate" / "cells").iterdir())
    (cell / "manifest.json").unlink()
    code, _, error = balbench_command("baseline", "candidate", "--policy", "bald")
    assert code == 2
    assert "1 of 5 cells are not finished (bald, seed" in error


def test_two_runs_and_two_policies_are_compared(balbench_command, folder):
    code, out, _ = balbench_command("compare", "run", "--policy", "random", "--policy", "bald", "--figure", "compared")
    assert code == 0
    assert "random -> bald: " in out
    assert "Changed: name: random -> bald" in out
    assert (folder / "compared.png").stat().st_size > 1000
    balbench.run_study(quiet(), folder / "longer", overrides={"posterior.samples": 30}, progress=False, jobs=1)
    code, out, _ = balbench_command("compare", "run", "longer", "--policy", "bald")
    assert code == 0
    assert "bald: " in out
    assert "  posterior.samples: 20 -> 30" in out
    assert balbench_command("compare", "run")[0] == 0  # the run has two policies
    code, _, error = balbench_command("compare", "run", "--policy", "bald")
    assert (code, error.count("\n")) == (2, 1)
    assert "--policy: name two of random, bald, or give two runs" in error
