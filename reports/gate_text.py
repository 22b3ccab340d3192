"""The verdicts of a gate in words, as a table for the terminal, as Markdown and as JUnit XML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from balbench.reports.gate import SAME_CURVES, Gate, PolicyVerdict, Verdict
from balbench.reports.gate_measures import AREA, COST, LEVEL, MOST_SEEDS, SAVINGS, Measure
from balbench.reports.inversion import Kind
from balbench.reports.wording import NOTHING, metric_name, percent, split_name

NAMES = {SAVINGS: "savings", LEVEL: "final level", AREA: "area", COST: "cost"}
_SIGNS = {Kind.EXACT: "", Kind.AT_LEAST: ">= ", Kind.AT_MOST: "<= "}
_STYLES = {Verdict.PASS: "green", Verdict.REGRESSED: "red", Verdict.CANNOT_TELL: "yellow"}


def gate_table(gate: Gate) -> Table:
    """Return the table of a gate for the terminal; it fits into 100 columns."""
    printed = Table(
        title=escape(f"{gate.name}, {split_name(gate.rules.split)} {metric_name(gate.rules.metric)}: {gate.verdict}"),
        title_justify="left",
        caption=escape(caption(gate)),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for number, name in enumerate(columns(gate)):
        printed.add_column(name, justify="right" if number > 1 else "left", overflow="fold")
    for each in gate.policies:
        printed.add_row(*map(escape, cells(each, gate)), style=_STYLES[each.verdict])
    return printed


def columns(gate: Gate) -> list[str]:
    """Return the heads of the columns."""
    return ["policy", "verdict", *(NAMES[name] for name in _measured(gate)), "seeds", "picks"]


def cells(each: PolicyVerdict, gate: Gate) -> list[str]:
    """Return the row of a policy."""
    by_name = {found.name: measure_text(found) for found in each.measures}
    same = "0%" if each.reason == SAME_CURVES else NOTHING
    texts = [by_name.get(name, NOTHING if name == COST else same) for name in _measured(gate)]
    return [title(each), str(each.verdict), *texts, str(each.seeds), "same" if each.same_picks else "changed"]


def title(each: PolicyVerdict) -> str:
    """Name a policy: its label, its label in the baseline if that differs, and its setting."""
    label = each.policy if each.policy == each.baseline_policy else f"{each.policy} (was {each.baseline_policy})"
    return f"{label}, {each.setting}" if each.setting else label


def measure_text(found: Measure) -> str:
    """Write an estimate with its bounds: `-12% [-20, -5]`, or for the cost `x1.2 [1.0, 1.4]`."""
    if found.name == COST:
        low, high = (math.exp(-end.value) for end in (found.high, found.low))
        return f"x{math.exp(-found.estimate.value):.2f} [{low:.2f}, {high:.2f}]"
    ends = ", ".join(_SIGNS[end.kind] + percent(end.value) for end in (found.low, found.high))
    return f"{_SIGNS[found.estimate.kind]}{percent(found.estimate.value)}% [{ends}]"


def p_text(p: float) -> str:
    """Write a p-value with three digits: `.012`, `< .001`."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def caption(gate: Gate) -> str:
    """Say what the numbers are."""
    rules = gate.rules
    bounds = f"{100 * (1 - rules.alpha):g}%"
    text = (
        f"Savings: share of labels against the baseline. Final level, area: share of the baseline's gain. "
        f"[{bounds} lower bound, {bounds} upper bound]. Margin {100 * rules.margin:g}%."
    )
    return text if rules.cost is None else f"{text} Cost: seconds of selection; margin {100 * rules.cost:g}%."


def sentence(each: PolicyVerdict, alpha: float) -> str:
    """Return the verdict about a policy as a sentence."""
    return f"{title(each)}: {each.verdict}: {_reason(each, alpha)}.{_changed(each)}"


def plain_text(gate: Gate) -> str:
    """Return a table with spaces between its columns, the caption, and a sentence for each policy."""
    rows = [columns(gate), *(cells(each, gate) for each in gate.policies)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, caption(gate), *(sentence(each, gate.rules.alpha) for each in gate.policies)])


def markdown(gate: Gate) -> str:
    """Return the gate as Markdown, with a heading, a table and a sentence for each policy."""
    heads = columns(gate)
    lines = [
        f"### balbench gate: {gate.verdict}",
        "",
        _markdown_row(heads),
        _markdown_row(["---"] * 2 + ["---:"] * (len(heads) - 2)),
        *(_markdown_row(cells(each, gate)) for each in gate.policies),
        "",
        *(f"- {_markdown_text(sentence(each, gate.rules.alpha))}" for each in gate.policies),
        "",
        f"{caption(gate)} Study `{gate.name}`, {split_name(gate.rules.split)} {metric_name(gate.rules.metric)}.",
    ]
    return "\n".join(lines) + "\n"


def junit(gate: Gate) -> str:
    """Return the gate as JUnit XML: a test case for each policy; regressed is a failure, cannot tell an error."""
    counts = {verdict: sum(each.verdict == verdict for each in gate.policies) for verdict in Verdict}
    suite = ElementTree.Element(
        "testsuite",
        name="balbench gate",
        tests=str(len(gate.policies)),
        failures=str(counts[Verdict.REGRESSED]),
        errors=str(counts[Verdict.CANNOT_TELL]),
    )
    for each in gate.policies:
        case = ElementTree.SubElement(suite, "testcase", classname=f"balbench.gate.{gate.name}", name=title(each))
        text = sentence(each, gate.rules.alpha)
        if each.verdict != Verdict.PASS:
            kind = "failure" if each.verdict == Verdict.REGRESSED else "error"
            ElementTree.SubElement(case, kind, type=str(each.verdict), message=text).text = plain_text(gate)
        else:
            ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(suite)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(suite, encoding='unicode')}\n"


def _measured(gate: Gate) -> list[str]:
    return [SAVINGS, LEVEL, AREA] + ([COST] if gate.rules.cost is not None else [])


def _reason(each: PolicyVerdict, alpha: float) -> str:
    if each.verdict == Verdict.REGRESSED:
        worse = [
            f"{_loss(found)} (adjusted p {p_text(p)})"
            for found, p in zip(each.measures, each.p_adjusted, strict=True)
            if p <= alpha and not found.p_within <= alpha
        ]
        return "; ".join(worse)
    if each.verdict == Verdict.PASS:
        if each.reason == SAME_CURVES:
            return "the curves are the same" + (", and so are the picks" if each.same_picks else "")
        return "every measure lost less than the margin"
    if not each.measures:
        return each.reason
    unclear = [found for found in each.measures if not found.p_within <= alpha]
    lost = ", ".join(f"{NAMES[found.name]} {_low_text(found)}" for found in unclear)
    return f"{lost} cannot be excluded; {_needed(each)}"


def _needed(each: PolicyVerdict) -> str:
    needed = each.seeds_needed
    if math.isnan(needed):
        return "the baseline's curve is too flat for its margin; use a study whose policies differ more"
    if math.isinf(needed):
        return f"more than {MOST_SEEDS:,} seeds would tell; use a quieter study"
    if needed <= each.seeds:
        return (
            f"{each.seeds} seeds tell if nothing changed, so this may be a loss near the margin; run {2 * each.seeds}"
        )
    return f"about {needed:.0f} seeds would tell (now {each.seeds})"


def _loss(found: Measure) -> str:
    text, share = measure_text(found), found.estimate.value
    if found.name == SAVINGS and found.estimate.kind == Kind.EXACT and share < 0:
        fewer = percent(1 - 1 / (1 - share))
        return f"{NAMES[SAVINGS]} {text}: the baseline needs {fewer}% fewer labels for what the policy reaches now"
    return f"{NAMES[found.name]} {text}"


def _low_text(found: Measure) -> str:
    if found.name == COST:
        return f"x{math.exp(-found.low.value):.2f}"
    return f"{_SIGNS[found.low.kind]}{percent(found.low.value)}%"


def _changed(each: PolicyVerdict) -> str:
    return f" Changed: {each.changed}." if each.changed else " Nothing is declared as changed."


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown_text, texts))} |"


def _markdown_text(text: str) -> str:
    for character in ("|", "<", "*", "_", "`"):
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
