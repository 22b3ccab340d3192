"""The specification check as an HTML table, as CSV files and as records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from balbench.reports.files import csv_bytes, significant, write_bytes
from balbench.reports.savings_table import SPLITS, records, rows_of
from balbench.reports.specification import ALL_PAIRS, SpecificationCheck, misfits
from balbench.reports.tables import TEMPLATES
from balbench.reports.wording import NOTHING, number_text, percent, split_name


def specification_html(check: SpecificationCheck, setting: str, reference: str) -> Markup:
    """Return the section of one setting: slopes by distance, and the distances that policies bought."""
    slopes = check.slopes[check.slopes["setting"] == setting]
    faults = misfits(slopes)
    tables = {split_name(split): _slope_rows(rows_of(slopes, setting, split), faults) for split in SPLITS}
    bought = [_bought_row(row) for row in records(check.bought[check.bought["setting"] == setting])]
    template = TEMPLATES.get_template("specification.html.j2")
    return Markup(
        template.render(
            tables={split: rows for split, rows in tables.items() if rows},
            bought=bought,
            missing=check.missing.get(setting, ""),
            reference=reference,
        )
    )


def specification_csv(check: SpecificationCheck, folder: Path) -> dict[str, Path]:
    """Write the two tables as CSV, and return the files by a name for readers; a table without rows has no file.

    Raises:
        OSError: a file cannot be written.
    """
    tables = {"slopes by distance": ("specification", check.slopes), "bought distances": ("distances", check.bought)}
    return {
        name: write_bytes(folder / f"{stem}.csv", csv_bytes(table))
        for name, (stem, table) in tables.items()
        if len(table)
    }


def specification_records(check: SpecificationCheck) -> dict[str, Any]:
    """Return the check for a JSON file; missing numbers are None."""
    return {
        "slopes": _json_records(check.slopes),
        "bought": _json_records(check.bought),
        "missing": check.missing,
        "warnings": check.texts,
    }


def _json_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    table = significant(table)
    return records(table.astype(object).where(table.notna(), None))


def _slope_rows(rows: pd.DataFrame, faults: pd.DataFrame) -> list[dict[str, Any]]:
    faulty = set(zip(faults["split"], faults["bin"], strict=True))
    return [
        {
            "bin": row["bin"],
            "pairs": number_text(row["pairs"]),
            "distance": number_text(row["distance"], 2),
            "slope": number_text(row["slope"], 2),
            "interval": f"[{number_text(row['slope_low'], 2)}, {number_text(row['slope_high'], 2)}]",
            "accuracy": _percent_text(row["accuracy"], row["accuracy_se"]),
            "all": row["bin"] == ALL_PAIRS,
            "misfit": (row["split"], row["bin"]) in faulty,
        }
        for row in records(rows)
    ]


def _bought_row(row: dict[str, Any]) -> dict[str, str]:
    return {
        "policy": row["policy"],
        "distance": number_text(row["distance_mean"], 2),
        "farthest": f"{percent(row['farthest_share'])}%",
    }


def _percent_text(share: float, error: float) -> str:
    """Write a share in per cent with its standard error: 60.1% +- 0.5."""
    text = number_text(100 * share, 1)
    return text if text == NOTHING else f"{text}% \N{PLUS-MINUS SIGN} {number_text(100 * error, 1)}"
