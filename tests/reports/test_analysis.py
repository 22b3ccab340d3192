"""Several runs have distinct names, and each table is computed once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from balbench.harness.errors import BalbenchError
from balbench.reports import analysis
from balbench.reports.analysis import analyse
from balbench.reports.page import write_report
from balbench.reports.terminal import terminal_parts


def _runs(run_of, *names_and_paths):
    runs = []
    for name, path in names_and_paths:
        run = run_of(["random", "BALD"], seeds=2, rounds=3, metrics=["brier"], splits=["test"])
        run.timings = run.timings.iloc[:0]
        run.name, run.path = name, Path(path)
        runs.append(run)
    return runs


@pytest.mark.parametrize(
    ("names_and_paths", "names"),
    [
        ([("zoo", "runs/a")], ["zoo"]),
        ([("zoo", "runs/a"), ("ukp", "runs/b")], ["zoo", "ukp"]),
        ([("zoo", "runs/a"), ("zoo", "runs/b"), ("ukp", "x")], ["zoo (a)", "zoo (b)", "ukp"]),
        ([("zoo", "one/out"), ("zoo", "two/out")], ["zoo (one/out)", "zoo (two/out)"]),
    ],
)
def test_runs_have_distinct_names(run_of, names_and_paths, names):
    assert [each.name for each in analyse(_runs(run_of, *names_and_paths))] == names


def test_no_run_and_a_directory_given_twice_are_refused(run_of):
    with pytest.raises(BalbenchError, match=r"^runs: there are none"):
        analyse([])
    with pytest.raises(BalbenchError, match=r"^runs: .*a is given twice"):
        analyse(_runs(run_of, ("zoo", "a"), ("zoo", "./a")))


def test_the_terminal_and_the_page_name_the_runs(run_of, tmp_path):
    analyses = analyse(_runs(run_of, ("zoo", "a"), ("zoo", "b")))
    titles = [str(part.title) for part in terminal_parts(analyses)]
    assert titles == ["Label savings against random, test, zoo (a)", "Label savings against random, test, zoo (b)"]
    page = write_report(analyses, tmp_path).read_text()
    assert "zoo (a)</h2>" in page
    assert "zoo (b)</h2>" in page


def test_each_table_is_computed_once(run_of, tmp_path, monkeypatch):
    computed, original = [], analysis.savings_tables
    monkeypatch.setattr(analysis, "savings_tables", lambda run, new, *a: computed.extend(new) or original(run, new, *a))
    analyses = analyse(_runs(run_of, ("zoo", "a")))
    write_report(analyses, tmp_path)
    list(terminal_parts(analyses))
    assert sorted(computed) == ["accuracy", "brier", "log_likelihood"]


def test_a_report_needs_neither_torch_nor_the_scheduler():
    code = (
        "import sys, balbench.reports.page, balbench.reports.terminal, balbench.harness.results;"
        "heavy = {'torch', 'sklearn', 'scipy.stats', 'transformers', 'balbench.harness.running.scheduler'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
