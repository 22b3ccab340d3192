"""The savings as tables: for the terminal, as CSV, and as HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from balbench.reports.crossings import Kind
from balbench.reports.files import write_bytes
from balbench.reports.statistics import FEWEST_SEEDS
from balbench.reports.wording import (
    METRIC_NAMES,
    NOTHING,
    interval_text,
    number_text,
    percent,
    point_text,
    savings_text,
    split_name,
)

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class DisplayRow:
    """One policy as readers see it: every field is text, ready to print."""

    policy: str
    savings: str
    interval: str
    shared: str
    labels: str
    not_reached: str
    final_level: str
    difference: str
    melo2024: str
    seeds: str
    verdict: str
    is_reference: bool


def verdict(row: Any) -> str:
    """Judge a row of `savings_table`: reference, none, no level, no interval, saved, lost, or unclear.

    There is no level to reach where the reference ended no better than it began. A policy saved if its whole 95%
    interval lies above zero. It lost if its whole interval lies at or below zero, bounds included, and it does not
    save labels at the shared level either.
    """
    if row["is_reference"]:
        return "reference"
    if not row["seeds"]:
        return "none"
    if not row["reference_gain"] > 0:
        return "no level"
    if not row["low_kind"]:
        return "no interval"
    if row["low"] > 0:
        return "saved"
    bounded = row["high_kind"] in (Kind.AT_MOST, Kind.NOT_REACHED)
    worse = row["high_bound"] <= 0 if bounded else row["high"] < 0
    return "lost" if worse and not row["shared_savings"] > 0 else "unclear"


def sorted_by_savings(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows of one setting and split: most savings first, then those not reached, the reference last."""
    bounded = rows["savings"].isna()
    keys = pd.DataFrame(
        {
            "reference": rows["is_reference"],
            "nothing": rows["seeds"] == 0,
            "bounded": bounded,
            "savings": -rows["savings"].where(~bounded, rows["shared_savings"]).fillna(-math.inf),
        }
    )
    return rows.loc[keys.sort_values(list(keys.columns), kind="stable").index]


def display_rows(rows: pd.DataFrame) -> list[DisplayRow]:
    """Turn rows of `savings_table` (one setting and split) into sorted text."""
    most = rows["rounds"].max()
    return [_display(row, most) for row in sorted_by_savings(rows).to_dict("records")]


def terminal_table(table: pd.DataFrame, setting: str, split: str) -> Table:
    """Return the savings of one setting and split for the terminal; it fits into 100 columns.

    Args:
        table: from `savings_table`.
        setting: which setting.
        split: which split.
    """
    rows = _chosen(table, setting, split)
    reference = _reference(rows)
    title = f"Label savings against {reference}, {split_name(split)}" + (f", {setting}" if setting else "")
    printed = Table(
        title=escape(title),
        title_justify="left",
        caption=escape(_caption(rows)),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    longest = int(rows["policy"].str.len().max())
    printed.add_column("policy", overflow="fold", min_width=min(longest, 14), max_width=22)
    for name in ("savings", "95%", "at shared level", "labels", "level", "melo2024", "seeds"):
        printed.add_column(name, justify="right", no_wrap=True)
    for shown in display_rows(rows):
        cells = [shown.policy, shown.savings, shown.interval, shown.shared, shown.labels]
        cells += [shown.final_level, shown.melo2024, shown.seeds]
        printed.add_row(*(escape(cell) for cell in cells), style=_TERMINAL_STYLES.get(shown.verdict, ""))
    return printed


def savings_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write all columns of `savings_table` as CSV; a missing number is an empty field.

    Raises:
        OSError: the file cannot be written.
    """
    return write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())


def savings_html(table: pd.DataFrame, setting: str, split: str) -> str:
    """Return the savings of one setting and split as an HTML table; labels are escaped."""
    rows = _chosen(table, setting, split)
    template = TEMPLATES.get_template("savings_table.html.j2")
    return template.render(
        rows=display_rows(rows), reference=_reference(rows), metric=_metric_name(rows), caption=_caption(rows)
    )


_TERMINAL_STYLES = {"saved": "green", "lost": "red", "reference": "dim", "none": "dim", "no level": "dim"}


def _chosen(table: pd.DataFrame, setting: str, split: str) -> pd.DataFrame:
    return table[(table["setting"] == setting) & (table["split"] == split)]


def _reference(rows: pd.DataFrame) -> str:
    return str(rows.loc[rows["is_reference"], "policy"].iloc[0])


def _metric_name(rows: pd.DataFrame) -> str:
    metric = str(rows["metric"].iloc[0])
    return METRIC_NAMES.get(metric, metric)


def _caption(rows: pd.DataFrame) -> str:
    level = f"Level: {_reference(rows)}'s final {_metric_name(rows)}."
    if (rows["reference_gain"] <= 0).any():
        return f"{level} It is no better than where it began: there is no level to reach, savings mean nothing."
    seeds = rows.loc[rows["seeds"] > 0, "seeds"]
    if not len(seeds) or seeds.max() < FEWEST_SEEDS:
        return f"{level} No intervals with fewer than {FEWEST_SEEDS} seeds."
    rough = "; rough, with fewer than ten seeds" if seeds.min() < 10 else ""
    return f"{level} Intervals: 95%, paired over seeds{rough}."


def _display(row: dict[Any, Any], most_rounds: int) -> DisplayRow:
    nothing, reference, judged = not row["seeds"], row["is_reference"], verdict(row)
    bare = nothing or reference or judged == "no level"
    savings = {"none": "no results yet", "reference": "reference", "no level": "no level"}.get(judged)
    digits = 4 if nothing or abs(row["final_level"]) < 1 else 3
    return DisplayRow(
        policy=row["policy"],
        savings=savings or point_text(row),
        interval=NOTHING if bare else interval_text(row),
        shared=NOTHING if bare else savings_text(row, "shared_"),
        labels=number_text(row["n_policy"]),
        not_reached=_share(row["share_not_reached"]),
        final_level=number_text(row["final_level"], digits),
        difference=NOTHING if nothing or reference else _difference(row, digits - 1),
        melo2024=_share(row["melo2024"]),
        seeds=f"{row['seeds']}, {row['rounds']} rounds" if 0 < row["rounds"] < most_rounds else f"{row['seeds']}",
        verdict=judged,
        is_reference=bool(reference),
    )


def _share(share: float) -> str:
    return f"{percent(share)}%" if math.isfinite(share) else NOTHING


def _difference(row: dict[Any, Any], digits: int) -> str:
    text = number_text(row["final_difference"], digits, signed=True)
    low, high = row["final_difference_low"], row["final_difference_high"]
    if not math.isfinite(low):
        return f"{text} [{NOTHING}]"
    return f"{text} [{number_text(low, digits, signed=True)}, {number_text(high, digits, signed=True)}]"
