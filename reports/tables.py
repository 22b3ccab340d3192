"""The savings as text, as CSV and as an HTML table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from balbench.reports.crossings import Kind
from balbench.reports.files import csv_bytes, write_bytes
from balbench.reports.savings import Outcome
from balbench.reports.savings_table import records, reference_of, rows_of, sorted_by_savings
from balbench.reports.statement import why_no_level
from balbench.reports.statistics import FEWEST_SEEDS
from balbench.reports.wording import (
    NOTHING,
    interval_text,
    metric_name,
    number_text,
    percent,
    point_text,
    savings_text,
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
    """The texts of one policy's row."""

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
    outcome: Outcome
    is_reference: bool


def display_rows(rows: pd.DataFrame) -> list[DisplayRow]:
    """Turn rows of `savings_table` (one setting and split) into sorted text."""
    most = rows["rounds"].max()
    return [_display(row, most) for row in records(sorted_by_savings(rows))]


def savings_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write all columns of `savings_table` as CSV (see `csv_bytes`).

    Raises:
        OSError: the file cannot be written.
    """
    return write_bytes(path, csv_bytes(table))


def savings_html(table: pd.DataFrame, setting: str, split: str) -> str:
    """Return the savings of one setting and split as an HTML table; labels are escaped."""
    rows = rows_of(table, setting, split)
    template = TEMPLATES.get_template("savings_table.html.j2")
    return template.render(
        rows=display_rows(rows), reference=reference_of(rows), metric=metric_of(rows), caption=caption(rows)
    )


def metric_of(rows: pd.DataFrame) -> str:
    """Return the name of the metric of the rows."""
    return metric_name(str(rows["metric"].iloc[0]))


def caption(rows: pd.DataFrame) -> str:
    """Explain the words and signs that occur in the table."""
    compared = rows[(rows["seeds"] > 0) & ~rows["is_reference"] & (rows["no_level"] == "")]
    if not len(compared):
        reference_rows = records(rows[(rows["no_level"] != "") & ~rows["is_reference"]])
        return f"No level: {why_no_level(reference_rows[0], reference_of(rows))}." if reference_rows else ""
    level = (
        f"Savings and labels: to reach {reference_of(rows)}'s final {metric_of(rows)}. "
        f"Shared level: the worse of the two final values, which both reach."
    )
    return " ".join(filter(None, [level, _bounds_caption(compared), _interval_caption(compared)]))


def _bounds_caption(rows: pd.DataFrame) -> str:
    if (rows["kind"] == Kind.NOT_REACHED).any():
        return "Not reached: the labels bought were not enough, so the savings are only known to be below the number."
    if (rows[["low_kind", "high_kind"]] == Kind.NOT_REACHED).any(axis=None):
        return '"<": the policy misses the level in many resamples, so this end is only known to be below the number.'
    return ""


def _interval_caption(rows: pd.DataFrame) -> str:
    if rows["seeds"].max() < FEWEST_SEEDS:
        return f"There are no intervals with fewer than {FEWEST_SEEDS} seeds."
    rough = "; rough, with fewer than ten seeds" if rows["seeds"].min() < 10 else ""
    return f"Intervals: bootstrap, paired over seeds{rough}."


def _display(row: dict[str, Any], most_rounds: int) -> DisplayRow:
    outcome, no_results = row["outcome"], row["outcome"] == Outcome.NO_RESULTS
    compared = outcome not in (Outcome.NO_RESULTS, Outcome.REFERENCE, Outcome.NO_LEVEL)
    digits = 4 if no_results or abs(row["final_level"]) < 1 else 3
    return DisplayRow(
        policy=row["policy"],
        savings=point_text(row) if compared else "no results yet" if no_results else str(outcome),
        interval=(interval_text(row) if compared else "") or NOTHING,
        shared=savings_text(row, "shared_") if compared else NOTHING,
        labels=number_text(row["n_policy"]),
        not_reached=_share(row["share_not_reached"]),
        final_level=number_text(row["final_level"], digits),
        difference=_difference(row, digits - 1) if compared else NOTHING,
        melo2024=_share(row["melo2024"]),
        seeds=f"{row['seeds']}, {row['rounds']} rounds" if 0 < row["rounds"] < most_rounds else f"{row['seeds']}",
        outcome=outcome,
        is_reference=bool(row["is_reference"]),
    )


def _share(share: float) -> str:
    return f"{percent(share)}%" if math.isfinite(share) else NOTHING


def _difference(row: dict[str, Any], digits: int) -> str:
    text = number_text(row["final_difference"], digits, signed=True)
    low, high = row["final_difference_low"], row["final_difference_high"]
    if not math.isfinite(low):
        return f"{text} (no interval)"
    return f"{text} [{number_text(low, digits, signed=True)}, {number_text(high, digits, signed=True)}]"
