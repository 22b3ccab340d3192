"""Savings as text: numbers, bounds and intervals, sorted, escaped, and narrow enough for a terminal."""

from __future__ import annotations

import io
import math
import re

import pandas as pd
import pytest
from rich.console import Console

from balbench.reports.curves import Curves
from balbench.reports.figures.learning_curves import make_panel
from balbench.reports.savings import Outcome
from balbench.reports.savings_table import savings_table, sorted_by_savings
from balbench.reports.statement import statement, tally
from balbench.reports.tables import caption, display_rows, savings_csv, savings_html
from balbench.reports.terminal import terminal_table
from balbench.reports.wording import axis_name, interval_words, number_text, percent, savings_text


def _row(**changes):
    row = {"seeds": 5, "is_reference": False, "no_level": ""}
    row |= {"outcome": Outcome.UNCLEAR, "savings": 0.314, "kind": "exact", "bound": math.nan}
    row |= {"low": 0.12, "low_kind": "exact", "low_bound": math.nan}
    row |= {"high": 0.45, "high_kind": "exact", "high_bound": math.nan}
    return row | changes


def _end(name, kind, bound):
    return {name: math.nan, f"{name}_kind": kind, f"{name}_bound": bound}


@pytest.mark.parametrize(
    ("changes", "text", "words"),
    [
        ({}, "31% [12, 45]", "95% interval 12 to 45%"),
        ({"savings": -0.001, "low": -0.004, "high": 0.3}, "0% [0, 30]", "95% interval 0 to 30%"),
        (
            {"kind": "at_most", "bound": -9} | _end("low", "at_most", -9) | _end("high", "at_most", -9),
            "at most -900% [at most -900]",
            "95% interval at most -900%",
        ),
        (
            {"kind": "at_least", "bound": 0.314, "high_kind": "at_least", "high_bound": 0.45},
            "at least 31% [12, >= 45]",
            "95% interval 12 to at least 45%",
        ),
        (
            {"kind": "at_most", "bound": -1.5} | _end("low", "at_most", -2),
            "at most -150% [<= -200, 45]",
            "95% interval at most -200 to 45%",
        ),
        ({"low_kind": "", "high_kind": ""}, "31% (no interval)", ""),
        ({"seeds": 0, "outcome": Outcome.NO_RESULTS}, "no results yet", "95% interval 12 to 45%"),
        ({"no_level": "not above chance"}, "no level", "95% interval 12 to 45%"),
    ],
)
def test_savings_as_text(changes, text, words):
    row = _row(**changes)
    assert savings_text(row) == text
    assert interval_words(row) == words


@pytest.mark.parametrize("metric", ["log_likelihood", "brier"])
def test_where_the_reference_learnt_nothing_no_savings_are_stated(run, metric):
    """Random ends below its start, so BAL-PM is above random's final level."""
    random = (run.curves["policy"] == "random") & (run.curves["metric"] == metric)
    worse = 0.01 * run.curves["round"] * (-1 if metric == "log_likelihood" else 1)
    first = run.curves[random].groupby(["seed", "split"])["value"].transform("first")
    run.curves.loc[random, "value"] = first + worse[random]
    rows = savings_table(run, metric).query("split == 'test'")
    assert {row.savings for row in display_rows(rows)} == {"no level", "reference"}
    assert "no label savings are stated, because random did not learn beyond chance" in statement(rows)
    panel = make_panel(run, Curves(run.curves[run.curves["metric"] == metric]), rows, "", "test", metric)
    assert panel.best is None
    assert panel.note == "no label savings are stated: random did not learn beyond chance"


def test_a_policy_compared_on_fewer_rounds_says_so(run):
    run.curves = run.curves[(run.curves["policy"] != "BALD") | (run.curves["round"] < 7)]
    table = savings_table(run).query("split == 'test'")
    assert [row.seeds for row in display_rows(table) if row.policy == "BALD"] == ["5, 7 rounds"]
    labels = int(table.query("policy == 'BALD'")["budget"].iloc[0])
    assert f"BALD (so far 7 rounds: compared at random's level after {labels} labels)" in statement(table)
    assert "BAL-PM (so far" not in statement(table)
    assert "random's final log-likelihood" in statement(table)
    sentence = "Policies with fewer rounds so far: compared at random's level after as many rounds."
    assert sentence in caption(table)
    assert sentence not in caption(table[table["policy"] != "BALD"])
    alone = statement(table[table["policy"].isin(["BALD", "random"])])
    assert "random's level after as many labels" in alone
    assert "final log-likelihood" not in alone


def test_numbers_as_text():
    assert [percent(x) for x in (0.314, -0.3, -0.0, -0.004, -13.2)] == ["31", "-30", "0", "0", "-1320"]
    assert number_text(12345.6) == "12,346"
    assert number_text(math.nan) == number_text(math.inf) == "-"
    assert number_text(0.02, 3, signed=True) == "+0.020"


def test_axes_are_named_with_their_units():
    assert axis_name("test", "log_likelihood") == "test log-likelihood (nats)"
    assert axis_name("ood", "brier") == "OOD Brier score (lower is better)"
    assert axis_name("pool", "unique_prompts") == "pool unique prompts"


def test_rows_are_sorted_by_savings_and_the_reference_is_last(run_of):
    table = savings_table(run_of()).query("split == 'test'")
    policies = list(sorted_by_savings(table)["policy"])
    assert policies[:2] == ["BAL-PM", "BAL-PM as coded"]
    assert policies[-2:] == ["BALD", "random"]
    savings = sorted_by_savings(table)["savings"].dropna().iloc[:-1]
    assert savings.is_monotonic_decreasing


def test_a_policy_without_results_comes_after_those_with(run):
    run.curves = run.curves[run.curves["policy"] != "BAL-PM"]
    table = savings_table(run).query("split == 'test'")
    assert [row.policy for row in display_rows(table)][-2:] == ["BAL-PM", "random"]
    assert display_rows(table)[-2].savings == "no results yet"


def test_the_terminal_table_fits_into_100_columns(run_of):
    run = run_of(["random", "BALD", "a policy whose label goes on and on and on", "BAL-PM"])
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(terminal_table(savings_table(run), "", "test"))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert "random's final log-likelihood" in text


def test_labels_are_not_read_as_markup(run_of):
    run = run_of(["random", "[bold]x[/bold]", "<b>y</b>"], seeds=2, rounds=4)
    table = savings_table(run)
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(terminal_table(table, "", "test"))
    assert "[bold]x[/bold]" in console.file.getvalue()
    html = savings_html(table, "", "test")
    assert "<b>" not in html
    assert "&lt;b&gt;y&lt;/b&gt;" in html


def test_the_csv_gives_back_the_table(run, tmp_path):
    table = savings_table(run)
    path = savings_csv(table, tmp_path / "deep" / "savings.csv")
    back = pd.read_csv(path, keep_default_na=False, na_values={"savings": [""], "low": [""]})
    assert list(back.columns) == list(table.columns)
    pd.testing.assert_series_equal(back["savings"], table["savings"], rtol=1e-5)
    longest = back["savings"].map(lambda share: len(f"{abs(share)!r}".replace("0.", "")))
    assert longest.max() <= 6


def test_the_outcome_names_winners_and_losers(run):
    text = statement(savings_table(run).query("split == 'test'"))
    assert text.startswith(
        "On test: these policies reached random's final log-likelihood with fewer labels than random: BAL-PM with "
    )
    assert "Clearly more labels than random: BALD (savings of -" in text


def test_the_outcome_says_that_no_policy_saved(run_of):
    text = statement(savings_table(run_of(["random", "BALD"])).query("split == 'ood'"))
    assert text.startswith(
        "On OOD: no policy reached random's final log-likelihood with clearly fewer labels than random."
    )


def test_the_outcome_claims_nothing_without_an_interval(run_of):
    text = statement(savings_table(run_of(["random", "BAL-PM"], seeds=2)).query("split == 'test'"))
    assert text.startswith(
        "On test: there are fewer than 3 seeds, so there are no intervals and every difference may be chance"
    )
    assert "BAL-PM" in text
    assert "saved" not in text


def test_the_tally_counts_settings(run_of):
    runs = [run_of(["random", "BAL-PM", "BALD"], setting=f"k={k}") for k in (1, 2)]
    table = pd.concat([savings_table(run) for run in runs])
    assert tally(table, "test") == (
        "On test: BAL-PM needed fewer labels in 2 of 2 settings and more in 0; "
        "BALD needed fewer labels in 0 of 2 settings and more in 2."
    )


def test_the_outcome_of_many_policies_names_the_first_of_each_kind_and_counts_the_rest(run_of):
    names = ["random", "BAL-PM", "BALD", *[f"policy {number}" for number in range(30)]]
    table = savings_table(run_of(names))
    rows = table[table["split"] == "test"]
    text = statement(rows)
    assert "BAL-PM with 47% fewer (95% interval " in text
    assert " more" in text
    listed = sum(f"{name} " in text for name in names[3:])
    more = sum(int(count) for count in re.findall(r"(\d+) more", text))
    assert more > 10
    assert listed + more == 30


@pytest.mark.parametrize(("pairs_low", "is_named"), [(-0.4, True), (0.05, False)])
def test_savings_that_may_be_absent_on_other_pairs_are_named(pairs_low, is_named):
    common = {
        "setting": "",
        "split": "test",
        "metric": "log_likelihood",
        "rounds": 9,
        "budget_gain": 1,
        "p_value": 0.01,
    }
    pairs = {"pairs_low": pairs_low, "pairs_low_kind": "exact", "pairs_high": math.nan, "pairs_high_kind": "at_least"}
    rows = [
        _row(policy="bald", outcome=Outcome.SAVED) | common | pairs,
        _row(policy="random", is_reference=True, outcome=Outcome.REFERENCE) | common | pairs,
    ]
    text = statement(pd.DataFrame(rows))
    assert ("On other held-out pairs the difference may be absent: bald." in text) == is_named
