"""The savings tables of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from balbench.reports.across import Across
from balbench.reports.across_section import comparisons, outcome, row_texts
from balbench.reports.analysis import Analysis
from balbench.reports.posterior_verdicts import PosteriorVerdicts
from balbench.reports.savings import Outcome
from balbench.reports.savings_table import METRICS, SPLITS, records, reference_of, rows_of, sorted_by_savings
from balbench.reports.tables import caption, display_rows
from balbench.reports.wording import NOTHING, metric_name, number_text, split_name

_FINAL_METRICS = ("log_likelihood", "accuracy")
_TERMINAL_STYLES = {
    Outcome.SAVED: "green",
    Outcome.LOST: "red",
    Outcome.REFERENCE: "dim",
    Outcome.NO_RESULTS: "dim",
    Outcome.NO_LEVEL: "dim",
}


_ACROSS_STYLES = {"saved": "green", "lost": "red"}


def terminal_parts(analyses: Sequence[Analysis]) -> Iterator[RenderableType]:
    """Yield the output for the terminal: the table of each setting and split, warnings, and means over all units."""
    for analysis in analyses:
        name = analysis.name if len(analyses) > 1 else ""
        table = analysis.leading_table
        for setting in analysis.curves.settings if table is not None else ():
            for split in SPLITS:
                if table is not None and len(rows_of(table, setting, split)):
                    yield terminal_table(table, setting, split, name)
            if (finals := final_table(analysis, setting, name)) is not None:
                yield finals
        yield from map(verdicts_table, analysis.posterior_verdicts)
        yield from (escape(f"{name}: {text}" if name else text) for text in analysis.warnings)
    for compared in next(filter(None, (comparisons(analyses, [metric]) for metric in METRICS)), []):
        yield across_table(compared)


def across_table(compared: Across) -> Table:
    """Return the mean savings of the policies over all units of a report; the page has ranks and other statistics."""
    title = f"Label savings over {len(compared.units)} units, {split_name(compared.split)}"
    printed = _empty_table(title, outcome(compared))
    printed.add_column("policy", overflow="fold", max_width=22)
    for name in ("mean savings [95%]", "saved, unclear, lost", "average rank", "p, adjusted"):
        printed.add_column(name, justify="right")
    for row in records(compared.table.sort_values("rank", kind="stable")):
        texts = row_texts(row)
        cells = [texts[name] for name in ("policy", "mean", "counts", "rank", "p_adjusted")]
        printed.add_row(*map(escape, cells), style=_ACROSS_STYLES.get(texts["outcome"], ""))
    return printed


def verdicts_table(verdicts: PosteriorVerdicts) -> Table:
    """Return the savings under each posterior side by side, with the verdict of each policy."""
    printed = Table(title=escape(verdicts.title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(["policy", *verdicts.posteriors, "verdict"]):
        printed.add_column(escape(name), justify="right" if number else "left", overflow="fold")
    for policy, savings, verdict in verdicts.rows:
        printed.add_row(*map(escape, [policy, *savings, verdict]))
    return printed


def final_table(analysis: Analysis, setting: str, run: str = "") -> Table | None:
    """Return the final values of the policies, all splits and metrics side by side; None if there is one column only.

    Args:
        analysis: the analysis of the run.
        setting: the setting of the values.
        run: name of the run, for the title; empty if there is only one run.
    """
    columns = {
        f"{split_name(split)} {metric_name(metric)}": rows.set_index("policy")
        for split in SPLITS
        for metric in _FINAL_METRICS
        if metric in analysis.tables and len(rows := analysis.rows(setting, split, metric))
    }
    if len(columns) < 2:
        return None
    printed = Table(
        title=escape(", ".join(filter(None, ["Final values", setting, run]))),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    printed.add_column("policy", overflow="fold", max_width=22)
    for name in columns:
        printed.add_column(name, justify="right")
    for policy in sorted_by_savings(next(iter(columns.values())).reset_index())["policy"]:
        texts = [_final_text(rows.loc[policy]) for rows in columns.values()]
        printed.add_row(escape(policy), *texts, style="dim" if policy == analysis.run.reference else "")
    return printed


def _final_text(row: pd.Series) -> str:
    if row["metric"] == "accuracy":
        return number_text(100 * row["final_level"], 1) + "%" if row["seeds"] else NOTHING
    return number_text(row["final_level"], 4)


def terminal_table(table: pd.DataFrame, setting: str, split: str, run: str = "") -> Table:
    """Return the savings of one setting and split for the terminal; it fits into 100 columns.

    Args:
        table: from `savings_table`.
        setting: the setting of the rows to show.
        split: the split of the rows to show.
        run: name of the run, for the title; empty if there is only one run.
    """
    rows = rows_of(table, setting, split)
    reference = reference_of(rows)
    title = ", ".join(filter(None, [f"Label savings against {reference}", split_name(split), setting, run]))
    printed = _empty_table(title, caption(rows))
    longest = int(rows["policy"].str.len().max())
    printed.add_column("policy", overflow="fold", min_width=min(longest, 14), max_width=22)
    for name in ("savings", "95%", "other pairs", "p", "labels", "final", "seeds"):
        printed.add_column(name, justify="right", no_wrap=True)
    for row in display_rows(rows):
        texts = [row.policy, row.savings, row.interval, row.new_pairs, row.p_value]
        texts += [row.labels, row.final_level, row.seeds]
        printed.add_row(*map(escape, texts), style=_TERMINAL_STYLES.get(row.outcome, ""))
    return printed


def _empty_table(title: str, caption: str) -> Table:
    return Table(
        title=escape(title),
        title_justify="left",
        caption=escape(caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
