"""Numbers as text: percentages, intervals, bounds, names of metrics and splits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from balbench.reports.inversion import Kind
from balbench.reports.savings import Outcome

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
_SIGNS = {Kind.AT_MOST: "<= ", Kind.AT_LEAST: ">= "}
_BOUND_WORDS = {Kind.AT_MOST: "at most ", Kind.AT_LEAST: "at least "}


def metric_name(metric: str) -> str:
    """Name a metric in the middle of a sentence."""
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def axis_name(split: str, metric: str) -> str:
    """Name a metric on a split with its unit, as on the axis of a figure."""
    return f"{split_name(split)} {metric_name(metric)} {_UNITS.get(metric, '')}".strip()


def split_name(split: str) -> str:
    """Name a split."""
    return SPLIT_NAMES.get(split, split)


def percent(share: float) -> str:
    """Write a share in per cent, as a whole number without the per cent sign: 0.314 gives 31."""
    # the sum with 0.0 turns a negative zero into zero
    return f"{round(100 * share) + 0.0:.0f}"


def savings_text(row: Mapping[str, Any]) -> str:
    """Write the savings of a row of `savings_table` with their interval, such as `-12% [-30, 4]`."""
    if row["outcome"] == Outcome.NO_RESULTS:
        return "no results yet"
    if row["no_level"]:
        return str(Outcome.NO_LEVEL)
    return f"{point_text(row)} {interval_text(row) or '(no interval)'}"


def point_text(row: Mapping[str, Any]) -> str:
    """Write the savings of a row of `savings_table` without their interval: `31%`, or the known bound."""
    if row["kind"] == Kind.EXACT:
        return f"{percent(row['savings'])}%"
    return f"{_BOUND_WORDS[row['kind']]}{percent(row['bound'])}%"


def interval_text(row: Mapping[str, Any], prefix: str = "") -> str:
    """Write an interval of a row of `savings_table` in per cent: `[12, 45]`, `[<= -90, 4]`, `[at most -90]`.

    If both ends are bounds of the same kind, the text is that bound alone. Empty if there is no interval.

    Args:
        row: a row of `savings_table`.
        prefix: "" for the interval over seeds, "pairs_" for that over seeds and held-out pairs.
    """
    return _interval(row, prefix, _SIGNS, "[{}, {}]", "[{}]")


def interval_words(row: Mapping[str, Any]) -> str:
    """Write the interval over seeds for a sentence: `95% interval 12 to 45%`; empty if there is no interval."""
    words = _interval(row, "", _BOUND_WORDS, "{} to {}", "{}")
    return words and f"95% interval {words}%"


def number_text(value: float, digits: int = 0, signed: bool = False) -> str:
    """Write a number with thousands separators, or a dash where there is none."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:{'+' if signed else ''},.{digits}f}"


def _interval(row: Mapping[str, Any], prefix: str, signs: Mapping[Kind, str], both: str, single: str) -> str:
    low, high = (row[f"{prefix}{end}_kind"] for end in ("low", "high"))
    if not low:
        return ""
    if low == high != Kind.EXACT:
        inner = "low" if low == Kind.AT_LEAST else "high"
        return single.format(_BOUND_WORDS[low] + percent(row[f"{prefix}{inner}_bound"]))
    return both.format(*(_end_text(row, prefix + end, signs) for end in ("low", "high")))


def _end_text(row: Mapping[str, Any], end: str, signs: Mapping[Kind, str]) -> str:
    kind = row[f"{end}_kind"]
    return signs.get(kind, "") + percent(row[end] if kind == Kind.EXACT else row[f"{end}_bound"])
