"""A comparison of two runs in words, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from balbench.reports.compare import ComparedPolicy, Comparison
from balbench.reports.gate_measures import SAVINGS
from balbench.reports.gate_text import measure_text, p_text
from balbench.reports.inversion import CONFIDENCE
from balbench.reports.wording import NOTHING, metric_name, percent, split_name

COLUMNS = ["policy", "savings", "p", "final level", "p", "area", "p", "shared seeds"]


def comparison_table(found: Comparison) -> Table:
    """Return the table of a comparison for the terminal."""
    title = f"{found.names[0]} -> {found.names[1]}, {split_name(found.split)} {metric_name(found.metric)}"
    printed = Table(
        title=escape(title),
        title_justify="left",
        caption="Savings: share of labels against the old policy. Level, area: share of its gain. [95% interval].",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for number, name in enumerate(COLUMNS):
        printed.add_column(name, justify="right" if number else "left", overflow="fold")
    for each in found.policies:
        printed.add_row(*map(escape, cells(each)))
    return printed


def cells(each: ComparedPolicy) -> list[str]:
    """Return the row of a policy."""
    pairs = zip(each.measures, each.p_values, strict=True)
    texts = [text for measure, p in pairs for text in (measure_text(measure), p_text(p))]
    return [title(each), *(texts or [NOTHING] * 6), str(each.shared_seeds)]


def title(each: ComparedPolicy) -> str:
    """Name a policy: its labels before and after, if they differ, and its setting."""
    label = each.new if each.new == each.old else f"{each.old} -> {each.new}"
    return f"{label}, {each.setting}" if each.setting else label


def sentences(found: Comparison) -> Iterator[str]:
    """Yield a sentence for each policy, then lines about what differs in the studies."""
    for each in found.policies:
        yield f"{title(each)}: {_difference(each)}.{f' Changed: {each.changed}.' if each.changed else ''}"
    if found.changes:
        yield "The studies differ, so a difference may come from them:"
        yield from (f"  {line}" for line in found.changes)


def _difference(each: ComparedPolicy) -> str:
    if each.missing:
        return f"no comparison ({each.missing})"
    savings, p = each.measures[0], each.p_values[0]
    assert savings.name == SAVINGS  # the first measure
    if p > 1 - CONFIDENCE:
        return f"no clear difference in labels, {measure_text(savings)}, p {p_text(p)}"
    share = savings.estimate.value
    more = f"needs {percent(-share)}% more labels" if share < 0 else f"saves {percent(share)}% of the labels"
    return f"{more} ({measure_text(savings)}, p {p_text(p)})"
