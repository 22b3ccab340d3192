"""Verdicts under several posteriors side by side."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from rich.console import Console

from balbench.reports.analysis import analyse
from balbench.reports.page import write_report
from balbench.reports.posterior_verdicts import posterior_verdicts, verdict
from balbench.reports.savings_table import savings_table
from balbench.reports.terminal import terminal_parts


def _run(run_of):
    """BALD saves labels under one posterior and loses labels under the other: curves of two policies change places."""
    first = run_of(["random", "BAL-PM", "BALD"], setting="posterior=ensemble", splits=["test"])
    second = run_of(["random", "BAL-PM", "BALD"], setting="posterior=linear", splits=["test"])
    second.curves["policy"] = second.curves["policy"].replace({"BAL-PM": "BALD", "BALD": "BAL-PM"})
    for name in ("curves", "timings", "cells"):
        setattr(first, name, pd.concat([getattr(first, name), getattr(second, name)], ignore_index=True))
    first.study = {"name": "demo", "posteriors": {"ensemble": {}, "linear": {}}}
    return first


def test_opposite_outcomes_depend_on_the_posterior(run_of):
    run = _run(run_of)
    (verdicts,) = posterior_verdicts(run, savings_table(run))
    assert {policy: text for policy, _, text in verdicts.rows} == {
        "BAL-PM": "depends on the posterior",
        "BALD": "depends on the posterior",
    }
    assert (verdicts.split, verdicts.setting) == ("test", "")


def test_a_study_with_one_posterior_has_no_verdicts(run):
    assert posterior_verdicts(run, savings_table(run)) == []


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["saved", "saved"], "saved"),
        (["lost", "unclear"], "lost under a only"),
        (["saved", "lost"], "depends on the posterior"),
        (["unclear", "no level"], "unclear"),
        (["no level", "no level"], "no level"),
    ],
)
def test_verdicts(outcomes, expected):
    assert verdict({name: {"outcome": outcome} for name, outcome in zip("ab", outcomes, strict=True)}) == expected


def test_terminal_and_page_show_the_verdicts(run_of, tmp_path):
    analyses = analyse([_run(run_of)])
    console = Console(width=100, file=io.StringIO(), color_system=None)
    for part in terminal_parts(analyses):
        console.print(part)
    assert "depends on the posterior" in console.file.getvalue()
    assert "depends on the posterior" in write_report(analyses, tmp_path).read_text()
