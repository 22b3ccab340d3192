"""The measures of a gate as intervals, with the margin: left of it a policy is worse than allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from balbench.reports.figures.labels import text_size
from balbench.reports.gate import Gate, PolicyVerdict, Verdict
from balbench.reports.gate_measures import COST, Measure
from balbench.reports.gate_text import NAMES, measure_text, title
from balbench.reports.style import LINE_COLOUR, TEXT_WIDTH, new_figure, save, style

COLOURS = {Verdict.PASS: "#009E73", Verdict.REGRESSED: "#D55E00", Verdict.CANNOT_TELL: LINE_COLOUR}
WIDEST = 1.5  # shares; longer intervals are cut
_ROW, _HEAD, _BOTTOM = 0.17, 0.26, 0.42  # inches


def draw(gate: Gate) -> Figure:
    """Draw a row for each measure of each policy, with the verdicts as heads; the cost is left out."""
    heights = [_HEAD + _ROW * max(1, len(_shown(each))) for each in gate.policies]
    height = sum(heights) + _BOTTOM + 0.05
    with style():
        figure = new_figure(TEXT_WIDTH, height)
        left = 0.1 + max(text_size(figure, name, fontsize=7)[0] for name in NAMES.values())
        right = 1.05
        axes = figure.add_axes(
            (left / TEXT_WIDTH, _BOTTOM / height, 1 - (left + right) / TEXT_WIDTH, 1 - (_BOTTOM + 0.05) / height)
        )
        axes.axvspan(-2 * WIDEST, -gate.rules.margin, color="#D55E00", alpha=0.08, linewidth=0)
        axes.axvline(0, color=LINE_COLOUR, linewidth=0.8)
        top, ticks = 0.0, []
        for each, taken in zip(gate.policies, heights, strict=True):
            axes.text(
                0, top - 0.13, f"{title(each)}: {each.verdict}", transform=axes.get_yaxis_transform(), va="center"
            )
            for number, found in enumerate(_shown(each)):
                y = top - _HEAD - _ROW * (number + 0.5) + 0.02
                ticks.append((y, NAMES[found.name]))
                _interval(axes, found, y, COLOURS[each.verdict])
            if not each.measures:
                axes.text(
                    0, top - _HEAD - 0.06, each.reason, transform=axes.get_yaxis_transform(), va="center", fontsize=6.5
                )
            top -= taken
        low, high = _limits(gate)
        axes.set(ylim=(top, 0), xlim=(low, high), yticks=[y for y, _ in ticks], yticklabels=[name for _, name in ticks])
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("change against the baseline (shaded: a loss beyond the margin)")
    return figure


def write(gate: Gate, path_stem: Path) -> list[Path]:
    """Draw a gate and save it with its numbers (see `balbench.reports.style.save`)."""
    return save(draw(gate), path_stem, gate.table)


def _shown(each: PolicyVerdict) -> list[Measure]:
    return [found for found in each.measures if found.name != COST]


def _interval(axes: Any, found: Measure, y: float, colour: str) -> None:
    low, value, high = np.clip([found.low.value, found.estimate.value, found.high.value], -WIDEST, WIDEST)
    axes.plot([low, high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot(value, y, "o", color=colour, markersize=3.5)
    axes.text(1.02, y, measure_text(found), transform=axes.get_yaxis_transform(), va="center", fontsize=6.5)


def _limits(gate: Gate) -> tuple[float, float]:
    ends = [end.value for each in gate.policies for found in _shown(each) for end in (found.low, found.high)]
    ends = np.clip([*ends, -2 * gate.rules.margin, gate.rules.margin], -WIDEST, WIDEST).tolist()
    pad = 0.05 * (max(ends) - min(ends))
    return min(ends) - pad, max(ends) + pad
