"""One small panel for each policy, with the reference in each, for studies with too many policies for one plot."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, StrMethodFormatter

from balbench.reports.curves import Curve
from balbench.reports.figures.labels import axis_width
from balbench.reports.figures.learning_curves import Panel, numbers
from balbench.reports.learning import DIRECTIONS
from balbench.reports.style import LINE_COLOUR, REFERENCE_COLOUR, Look, new_figure, save, style
from balbench.reports.wording import axis_name, savings_text

MOST_IN_ONE_PLOT = 12  # policies that a single plot shows legibly
_COLUMNS = 5
_GRID = "#e8e8e8"
_CELL = (1.42, 1.12)  # inches
_CAPTION_CHARACTER = 0.048  # inches, at the size of the caption
_SMALLEST_RANGE = 1e-3  # smallest range of the y axis; rounding noise must not look like learning
_NAME, _RIGHT, _BOTTOM, _TOP, _GAP_X, _GAP_Y = 0.26, 0.06, 0.42, 0.62, 0.1, 0.36  # inches


@dataclass(frozen=True)
class _Scales:
    """The axes of all panels: limits, ticks, lines of the grid, and the width of the numbers at the left."""

    x: tuple[float, float]
    y: tuple[float, float]
    ticks_x: list[float]
    ticks_y: list[float]
    grid: list[np.ndarray]
    left: float  # inches


def draw(panel: Panel, policy_looks: Mapping[str, Look]) -> Figure:
    """Draw each policy except the reference in its own panel, all with the same axes.

    Args:
        panel: a panel with the reference's curve and at least one other.
        policy_looks: from `balbench.reports.style.looks`.
    """
    policies = [policy for policy in panel.curves if policy != panel.reference]
    columns = min(_COLUMNS, len(policies))
    rows = math.ceil(len(policies) / columns)
    height = _TOP + rows * _CELL[1] + (rows - 1) * _GAP_Y + _BOTTOM
    words = {row["policy"]: savings_text(row) for row in panel.savings if not row["no_level"]}
    with style():
        scales = _scales(panel)
        width = scales.left + columns * _CELL[0] + (columns - 1) * _GAP_X + _RIGHT
        figure = new_figure(width, height)
        for number, policy in enumerate(policies):
            row, column = divmod(number, columns)
            left = scales.left + column * (_CELL[0] + _GAP_X)
            bottom = height - _TOP - (row + 1) * _CELL[1] - row * _GAP_Y
            axes = figure.add_axes((left / width, bottom / height, _CELL[0] / width, _CELL[1] / height))
            _set_axes(axes, scales, first=column == 0, lowest=number + columns >= len(policies))
            _draw_policy(axes, panel, policy, policy_looks[policy], words.get(policy, ""))
        _draw_captions(figure, panel, scales.left)
    return figure


def write(panel: Panel, policy_looks: Mapping[str, Look], path_stem: Path) -> list[Path]:
    """Draw the panels and save them with their numbers (see `balbench.reports.style.save`)."""
    return save(draw(panel, policy_looks), path_stem, numbers(panel))


def _draw_policy(axes: Axes, panel: Panel, policy: str, look: Look, words: str) -> None:
    reference = panel.curves.get(panel.reference)
    if reference is not None:
        axes.axhline(reference.mean_T[-1], color=LINE_COLOUR, linewidth=0.5, linestyle=":", zorder=1.5)
        _draw_curve(axes, reference, REFERENCE_COLOUR)
    _draw_curve(axes, panel.curves[policy], look.colour)
    title = "\n".join(textwrap.wrap(policy, 26)[:2])
    axes.set_title(f"{title}\n{words}" if words else title, fontsize=6.2, loc="left", pad=2, linespacing=1.05)


def _draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    axes.plot(curve.labels_T, curve.mean_T, color=colour, linewidth=1.0, zorder=3)
    if len(curve.seeds_S) > 1:
        low_T, high_T = curve.mean_T - curve.standard_error_T, curve.mean_T + curve.standard_error_T
        axes.fill_between(curve.labels_T, low_T, high_T, color=colour, alpha=0.18, linewidth=0, zorder=2)


def _scales(panel: Panel) -> _Scales:
    labels = np.concatenate([curve.labels_T for curve in panel.curves.values()])
    x, y = (float(labels.min()), float(labels.max() + (labels.min() == labels.max()))), _limits(panel)
    # a number at the right edge would touch the first number of the next panel
    ticks_x = _within(MaxNLocator(3, integer=True).tick_values(*x), (x[0], x[1] - 0.06 * (x[1] - x[0])))
    ticks_y = _within(MaxNLocator(4).tick_values(*y), y)
    grid = [np.array([(tick, y[0]), (tick, y[1])]) for tick in ticks_x]
    grid += [np.array([(x[0], tick), (x[1], tick)]) for tick in ticks_y]
    scales = _Scales(x, y, ticks_x, ticks_y, grid, left=0)
    axes = new_figure(2, 2).add_axes((0.5, 0.5, 0.4, 0.4))
    _set_axes(axes, scales, first=True, lowest=True)
    return replace(scales, left=_NAME + axis_width(axes))


def _within(ticks: Sequence[float], limits: tuple[float, float]) -> list[float]:
    return [tick for tick in ticks if limits[0] <= tick <= limits[1]]


def _set_axes(axes: Axes, scales: _Scales, first: bool, lowest: bool) -> None:
    """Set limits, ticks and grid; panels inside the figure have no numbers, and one collection draws their grid."""
    axes.set(xlim=scales.x, ylim=scales.y)
    axes.grid(visible=False)
    axes.add_collection(LineCollection(scales.grid, colors=_GRID, linewidths=0.5, zorder=0.5), autolim=False)
    settings: dict[str, Any] = {"labelsize": 5.5, "pad": 1.5}
    for axis, ticks, visible in ((axes.xaxis, scales.ticks_x, lowest), (axes.yaxis, scales.ticks_y, first)):
        axis.set_visible(visible)
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_tick_params(**settings)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _limits(panel: Panel) -> tuple[float, float]:
    """Return the range of the means without the worst 2%, so that one bad policy does not flatten all others."""
    means = np.concatenate([curve.mean_T for curve in panel.curves.values()])
    lower_is_better = DIRECTIONS.get(panel.metric) == -1
    low = means.min() if lower_is_better else np.percentile(means, 2)
    high = np.percentile(means, 98) if lower_is_better else means.max()
    reference = panel.curves.get(panel.reference)
    if reference is not None:
        low, high = min(low, reference.mean_T.min()), max(high, reference.mean_T.max())
    pad = max(0.06 * (high - low), (_SMALLEST_RANGE - (high - low)) / 2)
    return float(low - pad), float(high + pad)


def _draw_captions(figure: Figure, panel: Panel, left: float) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 0.5, axis_name(panel.split, panel.metric), rotation=90, va="center", fontsize=7.5)
    figure.text(0.5, 0.06 / height, "acquired labels", ha="center", va="bottom", fontsize=7.5)
    words = f"grey: {panel.reference}; dotted: its final level; bands: standard error over seeds"
    if any(row["no_level"] for row in panel.savings):
        words += f"; {panel.note}"
    elif panel.savings:
        words += f"; under each name: label savings at {panel.reference}'s final level"
    words = textwrap.fill(words, int((width - left) / _CAPTION_CHARACTER))
    figure.text(left / width, 1 - 0.05 / height, words, va="top", fontsize=6.2, color="#444444")
