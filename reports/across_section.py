"""The section of a report about all of its units, with tables and figures beside the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from balbench.reports.across import Across, across
from balbench.reports.analysis import Analysis
from balbench.reports.figure_view import figure_view
from balbench.reports.figures import critical_difference, heat_map, performance_profile
from balbench.reports.files import csv_bytes, significant, write_bytes
from balbench.reports.savings_table import METRICS, SPLITS, records
from balbench.reports.style import Look
from balbench.reports.tables import TEMPLATES
from balbench.reports.wording import metric_name, number_text, percent, split_name

FOLDER = "across"
SIGNIFICANT = 0.05
_SIGNS = {(False, False): "", (True, False): "<= ", (False, True): ">= ", (True, True): "about "}


@dataclass(frozen=True)
class AcrossSection:
    """The section: its HTML, its records for a JSON file, and its files; all empty with too few units."""

    html: Markup = field(default_factory=Markup)
    records: list[dict[str, Any]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def across_section(analyses: Sequence[Analysis], out: Path, policy_looks: Mapping[str, Look]) -> AcrossSection:
    """Write figures and tables over all units of a report, and return the section of the page.

    The page shows the first metric that has results; the CSV file and the records have all metrics.

    Args:
        analyses: the runs of the report.
        out: the folder of the page.
        policy_looks: from `balbench.reports.style.looks`.

    Raises:
        OSError: a file cannot be written.
    """
    compared = comparisons(analyses)
    if not compared:
        return AcrossSection()
    csv = write_bytes(out / FOLDER / "across.csv", csv_bytes(pd.concat([_with_names(each) for each in compared])))
    shown, files = [each for each in compared if each.metric == compared[0].metric], [csv]
    splits = []
    for each in shown:
        figures = _figures(each, out / FOLDER / each.split, policy_looks)
        files += [path for paths in figures.values() for path in paths]
        pictures = [figure_view(paths, out, name, name) for name, paths in figures.items()]
        splits.append(_split(each) | {"figures": pictures})
    html = TEMPLATES.get_template("across.html.j2").render(
        units=f"{len(compared[0].units)} units",
        splits=splits,
        metric=metric_name(compared[0].metric),
        reference=compared[0].reference,
        csv=csv.relative_to(out).as_posix(),
    )
    return AcrossSection(Markup(html), [_record(each) for each in compared], files)


def comparisons(analyses: Sequence[Analysis], metrics: Sequence[str] = METRICS) -> list[Across]:
    """Compare the policies over all units of a report, for each metric and split with enough units."""
    return [each for metric in metrics for split in SPLITS if (each := across(analyses, split, metric)) is not None]


def _with_names(compared: Across) -> pd.DataFrame:
    table = compared.table.copy()
    table.insert(0, "metric", compared.metric)
    table.insert(0, "split", compared.split)
    return table


def _figures(compared: Across, stem: Path, policy_looks: Mapping[str, Look]) -> dict[str, list[Path]]:
    """Draw the figures of a split; return their files by what they show."""

    def named(name: str) -> Path:
        return stem.with_name(f"{stem.name}-{name}")

    return {
        "label savings of each policy in each unit": heat_map.write(compared, named("heat-map")),
        "average ranks with critical differences": critical_difference.write(compared, named("critical-difference")),
        "performance profiles": performance_profile.write(compared, policy_looks, named("performance-profile")),
    }


def _split(compared: Across) -> dict[str, Any]:
    rows = records(compared.table.sort_values("rank", kind="stable"))
    left_out = {
        f"Units without a level of {compared.reference}, which are left out": compared.without_level,
        "Policies that some units lack, which are left out": compared.incomplete,
    }
    return {
        "name": split_name(compared.split),
        "outcome": outcome(compared),
        "left_out": [f"{words}: {'; '.join(names)}." for words, names in left_out.items() if names],
        "rows": [row_texts(row) for row in rows],
        "caption": _caption(compared),
    }


def outcome(compared: Across) -> str:
    """Describe in which direction the adjusted tests differ from zero."""
    units, number = len(compared.units), len(compared.policies)
    policies = f"{number} {'policies' if number > 1 else 'policy'}"
    lowest = number * 2 / 2**units
    if lowest > SIGNIFICANT:
        return (
            f"With {units} units and {policies} compared with {compared.reference}, no adjusted p-value can be below "
            f"{min(1.0, lowest):.2f}, so no policy is claimed to save labels over all units."
        )
    clear = compared.table[compared.table["p_adjusted"] <= SIGNIFICANT]
    saved, lost = clear[clear["mean"] > 0], clear[clear["mean"] <= 0]
    parts = [
        f"{words}: {', '.join(_listed(row) for row in records(rows))}"
        for words, rows in (("fewer labels", saved), ("more labels", lost))
        if len(rows)
    ]
    over = f"Over {units} units, compared with {compared.reference}"
    return f"{over}, {'; '.join(parts)}." if parts else f"{over}, no policy needs clearly fewer or more labels."


def _listed(row: Mapping[str, Any]) -> str:
    return f"{row['policy']} (savings of {mean_text(row)})"


def row_texts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a row of `Across.table`, and its outcome."""
    clear = row["p_adjusted"] <= SIGNIFICANT
    return {
        "policy": str(row["policy"]),
        "outcome": ("saved" if row["mean"] > 0 else "lost") if clear else "unclear",
        "mean": mean_text(row),
        "iqm": mean_text(row, "iqm"),
        "counts": f"{row['saved']}, {row['unclear']}, {row['lost']}",
        "improvement": _percentages(row, "improvement"),
        "rank": number_text(row["rank"], 2),
        "p": f"{row['p_value']:.3f}",
        "p_adjusted": f"{row['p_adjusted']:.3f}",
    }


def mean_text(row: Mapping[str, Any], name: str = "mean") -> str:
    """Write a mean of savings with its interval, and the sign of a bound."""
    bounds = bool(row["at_most"]), bool(row["at_least"])
    return _SIGNS[bounds] + _percentages(row, name)


def _percentages(row: Mapping[str, Any], name: str) -> str:
    low, high = (row[f"{name}_{end}"] for end in ("low", "high"))
    interval = f" [{percent(low)}, {percent(high)}]" if math.isfinite(low) else ""
    return f"{percent(row[name])}%{interval}"


def _caption(compared: Across) -> str:
    if math.isnan(compared.friedman_p):
        return ""
    difference = f"{compared.critical_difference:.2f}"
    return f"Friedman's test of equal ranks: p = {compared.friedman_p:.2g}. Critical difference of ranks: {difference}."


def _record(compared: Across) -> dict[str, Any]:
    table = significant(compared.table)
    return {
        "split": compared.split,
        "metric": compared.metric,
        "reference": compared.reference,
        "units": compared.units,
        "without_level": compared.without_level,
        "incomplete": compared.incomplete,
        "statement": outcome(compared),
        "friedman_p": None if math.isnan(compared.friedman_p) else compared.friedman_p,
        "critical_difference": compared.critical_difference,
        "ranks": compared.ranks.to_dict(),
        "policies": records(table.astype(object).where(table.notna(), None)),
    }
