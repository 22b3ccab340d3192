"""The savings as text, as CSV and as an HTML table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from balbench.reports.differences import FEWEST_SEEDS
from balbench.reports.files import csv_bytes, write_bytes
from balbench.reports.savings import Outcome
from balbench.reports.savings_table import records, reference_of, rows_of, sorted_by_savings
from balbench.reports.statement import is_early, level_name, why_no_level
from balbench.reports.wording import (
    NOTHING,
    interval_text,
    metric_name,
    number_text,
    percent,
    point_text,
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
    new_pairs: str
    p_value: str
    labels: str
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
    reference, most = reference_of(rows), rows["rounds"].max()
    compared_rows = records(compared)
    first = min(compared_rows, key=lambda row: is_early(row, most))  # the first finished row, if there is one
    early = any(is_early(row, most) for row in compared_rows)
    parts = [_level_caption(first, reference), _early_caption(reference) if early else "", _interval_caption(compared)]
    return " ".join(filter(None, [*parts, _resolution_caption(first, reference)]))


def _early_caption(reference: str) -> str:
    return f"Policies with fewer rounds so far: compared at {reference}'s level after as many rounds."


def _level_caption(row: dict[str, Any], reference: str) -> str:
    text = f"Savings: labels to reach {level_name(row, reference)}"
    if row["budget_gain"] < 1:
        text += f", which {reference} has with {row['budget']:,.0f} labels; its curve is nearly flat after that"
    return f"{text}. A negative number compares at the policy's own final value."


def _interval_caption(rows: pd.DataFrame) -> str:
    if rows["seeds"].max() < FEWEST_SEEDS:
        return f"There are no intervals with fewer than {FEWEST_SEEDS} seeds."
    pairs = ", then also for other test pairs" if (rows["pairs_low_kind"] != "").any() else ""
    return f"Intervals: 95%, for other seeds{pairs}. p: savings of zero, adjusted for all policies (Holm)."


def _resolution_caption(row: dict[str, Any], reference: str) -> str:
    if not math.isfinite(row["resolution"]):
        return ""
    worth = percent(row["resolution"])
    return f"Resolution: one standard error of {reference}'s level is worth {worth}% of the labels."


def _display(row: dict[str, Any], most_rounds: int) -> DisplayRow:
    outcome, no_results = row["outcome"], row["outcome"] == Outcome.NO_RESULTS
    compared = outcome not in (Outcome.NO_RESULTS, Outcome.REFERENCE, Outcome.NO_LEVEL)
    digits = 4 if no_results or abs(row["final_level"]) < 1 else 3
    return DisplayRow(
        policy=row["policy"],
        savings=point_text(row) if compared else "no results yet" if no_results else str(outcome),
        interval=interval_text(row) or NOTHING,
        new_pairs=interval_text(row, "pairs_") or NOTHING,
        p_value=_p_value(row["p_adjusted"]),
        labels=number_text(row["n_policy"]) if compared else NOTHING,
        final_level=number_text(row["final_level"], digits),
        difference=_difference(row, digits - 1) if compared else NOTHING,
        melo2024=_share(row["melo2024"]),
        seeds=_seeds(row, most_rounds),
        outcome=outcome,
        is_reference=bool(row["is_reference"]),
    )


def _seeds(row: dict[str, Any], most_rounds: int) -> str:
    seeds = row["reference_seeds"] if row["is_reference"] else row["seeds"]
    return f"{seeds}, {row['rounds']} rounds" if 0 < row["rounds"] < most_rounds else f"{seeds}"


def _p_value(p_value: float) -> str:
    if not math.isfinite(p_value):
        return NOTHING
    return "<.001" if p_value < 0.001 else f"{p_value:.3f}".lstrip("0")


def _share(share: float) -> str:
    return f"{percent(share)}%" if math.isfinite(share) else NOTHING


def _difference(row: dict[str, Any], digits: int) -> str:
    text = number_text(row["final_difference"], digits, signed=True)
    low, high = row["final_difference_low"], row["final_difference_high"]
    if not math.isfinite(low):
        return f"{text} (no interval)"
    return f"{text} [{number_text(low, digits, signed=True)}, {number_text(high, digits, signed=True)}]"
