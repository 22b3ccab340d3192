"""The outcome in plain words, from the data: who saved labels, who did not, where the reference won."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from balbench.reports.statistics import FEWEST_SEEDS
from balbench.reports.tables import sorted_by_savings, verdict
from balbench.reports.wording import METRIC_NAMES, interval_text, point_text, savings_text, split_name

MOST_NAMED = 6  # policies that a sentence lists


def statement(rows: pd.DataFrame) -> str:
    """State the outcome of one setting and split; empty if there is no other policy to compare.

    Args:
        rows: those of `savings_table` for one setting and split.
    """
    early = (rows["rounds"] > 0) & (rows["rounds"] < rows["rounds"].max())
    so_far = rows["policy"] + " (so far " + rows["rounds"].astype(str) + " rounds)"
    rows = rows.assign(policy=rows["policy"].where(~early, so_far))
    others = [row for row in sorted_by_savings(rows).to_dict("records") if not row["is_reference"]]
    if not others:
        return ""
    reference = str(rows.loc[rows["is_reference"], "policy"].iloc[0])
    metric = METRIC_NAMES.get(others[0]["metric"], others[0]["metric"])
    groups: dict[str, list[dict[Any, Any]]] = {}
    for row in others:
        groups.setdefault(verdict(row), []).append(row)
    sentences = [_no_level(groups.get("no level", []), reference, metric)]
    if groups.keys() & {"saved", "unclear", "lost"}:
        sentences.append(_saved(groups.get("saved", []), reference, metric))
    sentences += [_unclear(groups.get("unclear", []), reference), _lost(groups.get("lost", []), reference)]
    sentences += [_no_interval(groups.get("no interval", [])), _nothing(groups.get("none", []))]
    return f"On {split_name(rows['split'].iloc[0])}: " + " ".join(filter(None, sentences))


def tally(table: pd.DataFrame, split: str) -> str:
    """State for a study of several settings in how many each policy saved labels and in how many it lost."""
    rows = table[(table["split"] == split) & ~table["is_reference"]]
    parts = []
    for policy, group in rows.groupby("policy", sort=False):
        verdicts = [verdict(row) for row in group.to_dict("records")]
        saved, lost = verdicts.count("saved"), verdicts.count("lost")
        parts.append(f"{policy} saved labels in {saved} of {len(verdicts)} settings and lost in {lost}")
    return f"On {split_name(split)}: {'; '.join(parts)}." if parts else ""


def _saved(rows: list[dict[Any, Any]], reference: str, metric: str) -> str:
    if not rows:
        return f"no policy saved labels beyond doubt to reach {reference}'s final {metric}."
    first, *others = rows
    listed = [f"{first['policy']} saved {point_text(first)} of the labels {interval_text(first)}"]
    listed += [f"{row['policy']} {savings_text(row)}" for row in others]
    listed = _shortened(listed)
    return f"to reach {reference}'s final {metric}, {_joined(listed)}."


def _no_level(rows: list[dict[Any, Any]], reference: str, metric: str) -> str:
    if not rows:
        return ""
    return (
        f"{reference}'s final {metric} is no better than where it began: there is no level to reach with fewer labels."
    )


def _unclear(rows: list[dict[Any, Any]], reference: str) -> str:
    if not rows:
        return ""
    listed = _joined(_shortened([f"{row['policy']} ({_in_brackets(row)})" for row in rows]))
    return f"No clear difference from {reference}: {listed}."


def _lost(rows: list[dict[Any, Any]], reference: str) -> str:
    if not rows:
        return ""
    listed = _joined(_shortened([f"{row['policy']} ({_in_brackets(row)})" for row in rows]))
    return f"{_capital(reference)} won against {listed}."


def _in_brackets(row: dict[Any, Any]) -> str:
    if row["reached"]:
        return savings_text(row)
    return f"level not reached; {savings_text(row, 'shared_')} at the shared level"


def _no_interval(rows: list[dict[Any, Any]]) -> str:
    if not rows:
        return ""
    listed = _joined(f"{row['policy']} {point_text(row)}" for row in rows)
    return f"With fewer than {FEWEST_SEEDS} seeds nothing can be said about chance; the bare numbers: {listed}."


def _nothing(rows: list[dict[Any, Any]]) -> str:
    return f"No results yet: {_joined(str(row['policy']) for row in rows)}." if rows else ""


def _shortened(parts: list[str]) -> list[str]:
    """The first of many; the table that follows has them all."""
    return parts if len(parts) <= MOST_NAMED else [*parts[: MOST_NAMED - 1], f"{len(parts) - MOST_NAMED + 1} more"]


def _joined(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
