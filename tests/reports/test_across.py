"""Savings over units: which units and policies count, bounds, the tables, the figures and the section of the page."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from balbench.reports.across import COLUMNS, across
from balbench.reports.across_section import across_section, mean_text, outcome
from balbench.reports.analysis import Analysis, analyse
from balbench.reports.figures import critical_difference, heat_map, performance_profile
from balbench.reports.page import write_report
from balbench.reports.style import looks
from balbench.reports.terminal import terminal_parts

POLICIES = ["random", "BAL-PM", "BALD", "PowerBALD"]


@pytest.fixture(scope="module")
def grid(run_of):
    """A run of four settings: the same curves, with the best policy shifted from setting to setting."""
    run = run_of(POLICIES)
    frames = []
    for number in range(4):
        curves = run_of(POLICIES).curves.assign(setting=f"dataset.zipf={number}")
        chosen = (curves["policy"] != "random") & (curves["metric"] == "log_likelihood")
        curves.loc[chosen, "value"] += 0.003 * number
        frames.append(curves)
    run.curves = pd.concat(frames, ignore_index=True)
    run.study = {"name": "demo", "dataset": {"name": "simulated"}, "grid": {"dataset.zipf": [0, 1, 2, 3]}}
    return run


@pytest.fixture(scope="module")
def compared(grid):
    return across(analyse([grid]), "test", "log_likelihood")


class Given(Analysis):
    """An analysis with given savings tables."""

    tables = None


def given(run, changes):
    """The analysis of a run whose savings are changed by (setting, policy)."""
    analysis = analyse([run])[0]
    tables = {}
    for metric, table in analysis.tables.items():
        table = table.copy()
        for (setting, policy), values in changes.items():
            rows = (table["setting"] == setting) & (table["policy"] == policy)
            for name, value in values.items():
                table.loc[rows, name] = value
        tables[metric] = table
    changed = Given(analysis.run, analysis.name)
    object.__setattr__(changed, "tables", tables)
    return [changed]


def test_each_setting_is_a_unit(compared):
    assert compared.units == [f"dataset.zipf={number}" for number in range(4)]
    assert compared.policies == ["BAL-PM", "BALD", "PowerBALD"]
    assert (compared.reference, compared.without_level, compared.incomplete) == ("random", [], [])
    assert list(compared.table.columns) == COLUMNS
    assert (compared.table[["saved", "unclear", "lost"]].sum(axis=1) == 4).all()


def test_means_are_those_of_the_log_ratio_of_labels(compared, grid):
    table = analyse([grid])[0].tables["log_likelihood"].query("split == 'test' and policy == 'BAL-PM'")
    row = compared.table.set_index("policy").loc["BAL-PM"]
    assert 1 - row["mean"] == pytest.approx(np.exp(np.log(1 - table["savings"]).mean()))
    assert row["mean_low"] < row["mean"] < row["mean_high"] < 1


def test_the_reference_has_a_rank_and_savings_of_zero(compared):
    assert compared.ranks.index.tolist() == ["random", *compared.policies]
    assert compared.ranks["BAL-PM"] < compared.ranks["random"]
    assert compared.ranks.sum() == pytest.approx(10)


def test_runs_are_units_too(run_of):
    runs = [replace(run_of(POLICIES), name=name, path=Path(name), fingerprint=name) for name in "abc"]
    compared = across(analyse(runs), "ood", "accuracy")
    assert compared.units == ["a", "b", "c"]
    assert across(analyse(runs[:2]), "ood", "accuracy") is None
    other = replace(runs[2], reference="BALD")
    assert across(analyse([*runs[:2], other]), "ood", "accuracy") is None


def test_units_without_a_level_and_policies_that_lack_units_are_left_out(grid):
    changes = {
        ("dataset.zipf=0", policy): {"outcome": "no level", "savings": np.nan, "bound": np.nan} for policy in POLICIES
    }
    changes |= {("dataset.zipf=2", "BALD"): {"outcome": "no results", "savings": np.nan, "bound": np.nan}}
    compared = across(given(grid, changes), "test", "log_likelihood")
    assert compared.units == ["dataset.zipf=1", "dataset.zipf=2", "dataset.zipf=3"]
    assert compared.without_level == ["dataset.zipf=0"]
    assert (compared.policies, compared.incomplete) == (["BAL-PM", "PowerBALD"], ["BALD"])
    assert compared.all_savings.shape == (4, 3)
    assert compared.all_savings.loc["dataset.zipf=0"].isna().all()


def test_bounds_mark_means_and_rank_last(grid):
    bound = {"savings": np.nan, "bound": -0.4, "kind": "at_most"}
    compared = across(given(grid, {("dataset.zipf=1", "BAL-PM"): bound}), "test", "log_likelihood")
    row = compared.table.set_index("policy").loc["BAL-PM"]
    assert (row["at_most"], row["at_least"]) == (1, 0)
    assert mean_text(row).startswith("<= ")
    assert compared.extreme_UP[1, 0] == -np.inf
    at_least = {"savings": np.nan, "bound": 0.9, "kind": "at_least"}
    compared = across(given(grid, {("dataset.zipf=1", "BAL-PM"): at_least}), "test", "log_likelihood")
    assert mean_text(compared.table.iloc[0]).startswith(">= ")


def test_few_units_claim_nothing(compared):
    assert outcome(compared) == (
        "With 4 units and 3 policies compared with random, no adjusted p-value can be below 0.38, so no policy is "
        "claimed to save labels over all units."
    )


def test_claims_follow_the_adjusted_p_values(compared):
    many = replace(compared, units=[f"unit {number}" for number in range(9)])
    table = compared.table.assign(p_adjusted=[0.01, 0.02, 0.2], mean=[0.3, -0.2, 0.4], at_most=0, at_least=0)
    words = outcome(replace(many, table=table))
    assert words.startswith("Over 9 units, compared with random, fewer labels: BAL-PM (savings of 30%")
    assert "; more labels: BALD (savings of -20%" in words
    assert "PowerBALD" not in words
    unclear = outcome(replace(many, table=table.assign(p_adjusted=0.2)))
    assert unclear == "Over 9 units, compared with random, no policy needs clearly fewer or more labels."


def texts(figure):
    return [
        text.get_text() for axes in figure.axes for text in axes.findobj(match=lambda item: hasattr(item, "get_text"))
    ]


def test_the_heat_map_has_every_unit_and_policy(compared):
    drawn = texts(heat_map.draw(compared))
    for name in [*compared.units, *compared.policies, "label savings"]:
        assert name in drawn
    assert f"{round(100 * compared.all_savings.iloc[0, 0])}" in drawn


def test_the_diagram_has_ranks_and_the_profile_has_policies(compared):
    drawn = texts(critical_difference.draw(compared))
    for policy, rank in compared.ranks.items():
        assert f"{policy} ({rank:.2f})" in drawn
    figure = performance_profile.draw(compared, looks(POLICIES, "random"))
    assert {text.get_text() for text in figure.axes[0].get_legend().get_texts()} == set(compared.policies)


def test_names_are_inside_the_figures(compared):
    long = [f"{policy} with a label of many words" for policy in compared.policies]
    units = [f"{unit}, dataset.near_ties=2, dataset.data_seed=1" for unit in compared.units]
    renamed = replace(
        compared,
        policies=long,
        ranks=compared.ranks.set_axis(["random", *long]),
        table=compared.table.assign(policy=long),
        all_savings=compared.all_savings.set_axis(long, axis=1).set_axis(units),
        all_bounds=compared.all_bounds.set_axis(long, axis=1).set_axis(units),
    )
    policy_looks = looks(long, "random")
    for figure in (
        heat_map.draw(renamed),
        critical_difference.draw(renamed),
        performance_profile.draw(renamed, policy_looks),
    ):
        box = figure.get_tightbbox(figure.canvas.get_renderer())
        width, height = figure.get_size_inches()
        assert box.x0 > -0.01
        assert box.y0 > -0.01
        assert box.x1 < width + 0.01
        assert box.y1 < height + 0.01


@pytest.mark.slow
def test_the_report_has_a_section_with_files(grid, tmp_path):
    page = write_report(analyse([grid]), tmp_path).read_text()
    content = json.loads((tmp_path / "report.json").read_text())
    assert '<h2 id="across">Across 4 units</h2>' in page
    assert {(record["split"], record["metric"]) for record in content["across"]} == {
        (split, metric) for split in ("test", "ood") for metric in ("log_likelihood", "accuracy", "brier")
    }
    table = pd.read_csv(tmp_path / "across" / "across.csv")
    assert len(table) == 6 * 3
    for split in ("test", "ood"):
        for name in ("heat-map", "critical-difference", "performance-profile"):
            for ending in ("png", "pdf", "svg", "csv"):
                assert f"across/{split}-{name}.{ending}" in content["files"]
                assert (tmp_path / "across" / f"{split}-{name}.{ending}").is_file()


def test_a_report_of_one_setting_has_no_section(run, tmp_path):
    section = across_section(analyse([run]), tmp_path, looks(run.policies, run.reference))
    assert (str(section.html), section.records, section.files) == ("", [], [])
    assert not list(tmp_path.iterdir())


def test_the_terminal_ends_with_the_means_over_all_units(grid, run_of):
    console = Console(width=100, record=True, file=io.StringIO())
    parts = list(terminal_parts(analyse([grid])))
    for part in parts[-2:]:
        console.print(part)
    text = console.export_text()
    assert "Label savings over 4 units, test" in text
    assert "Label savings over 4 units, OOD" in text
    table = across(analyse([grid]), "test", "log_likelihood").table
    for row in table.to_dict("records"):
        (line,) = [line for line in text.split("OOD")[0].splitlines() if line.split()[:1] == [row["policy"]]]
        assert mean_text(row) in line
        assert f"{row['saved']}, {row['unclear']}, {row['lost']}" in line
    assert outcome(across(analyse([grid]), "test", "log_likelihood"))[:40] in text
    assert not [
        part for part in terminal_parts(analyse([run_of(POLICIES)])) if "units" in str(getattr(part, "title", ""))
    ]
