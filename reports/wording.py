"""Numbers as readers see them: percentages, intervals, bounds, names of metrics and splits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from balbench.reports.crossings import Kind

METRIC_NAMES = {
    "log_likelihood": "log-likelihood",
    "accuracy": "accuracy",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
_UNITS = {
    "log_likelihood": "(nats)",
    "accuracy": "(share correct)",
    "brier": "(lower is better)",
    "ece": "(lower is better)",
}
SPLIT_NAMES = {"ood": "OOD"}
NOTHING = "-"


def axis_name(split: str, metric: str) -> str:
    """Name a metric on a split with its unit, as on the axis of a figure."""
    name = f"{split_name(split)} {METRIC_NAMES.get(metric, metric.replace('_', ' '))}"
    return f"{name} {_UNITS.get(metric, '')}".strip()


def split_name(split: str) -> str:
    """Name a split."""
    return SPLIT_NAMES.get(split, split)


def percent(share: float) -> str:
    """Write a share as a whole number of hundredths, without the sign: 0.314 gives 31."""
    # adding 0.0 turns the negative zero into zero
    return f"{round(100 * share) + 0.0:.0f}"


def savings_text(row: Mapping[str, Any], prefix: str = "") -> str:
    """Write the savings of a row of `savings_table` with their interval, such as `-12% [-30, 4]`.

    `prefix` is "" for the reference's final level and "shared_" for the shared level.
    """
    if not row["seeds"]:
        return "no results yet"
    return f"{point_text(row, prefix)} {interval_text(row, prefix)}"


def point_text(row: Mapping[str, Any], prefix: str = "") -> str:
    """Write the savings of a row of `savings_table` without their interval: `31%`, or the known bound."""
    kind, bound = row[f"{prefix}kind"], row[f"{prefix}bound"]
    if kind == Kind.NOT_REACHED:
        return f"not reached (< {percent(bound)}%)"
    if kind == Kind.AT_MOST:
        return f"at most {percent(bound)}%"
    number = f"{percent(row[f'{prefix}savings'])}%"
    return f"at least {number}" if kind == Kind.AT_LEAST else number


def interval_text(row: Mapping[str, Any], prefix: str = "") -> str:
    """Write the interval of a row of `savings_table` in hundredths: `[12, 45]`, `[< 0, 4]`; `[-]` if none."""
    if not row[f"{prefix}low_kind"]:
        return f"[{NOTHING}]"
    return f"[{_end_text(row, prefix + 'low')}, {_end_text(row, prefix + 'high')}]"


def number_text(value: float, digits: int = 0, signed: bool = False) -> str:
    """Write a number with thousands separators, or a dash where there is none."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:{'+' if signed else ''},.{digits}f}"


def _end_text(row: Mapping[str, Any], end: str) -> str:
    kind = row[f"{end}_kind"]
    sign = {Kind.NOT_REACHED: "< ", Kind.AT_MOST: "<= ", Kind.AT_LEAST: ">= "}.get(kind, "")
    return sign + percent(row[end] if kind == Kind.EXACT else row[f"{end}_bound"])
