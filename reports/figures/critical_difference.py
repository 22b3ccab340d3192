"""The critical-difference diagram: average ranks of policies, joined where they do not differ (Demsar 2006)."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balbench.reports.across import Across
from balbench.reports.figures.labels import text_size
from balbench.reports.style import LINE_COLOUR, REFERENCE_COLOUR, new_figure, save, style
from balbench.reports.unit_statistics import cliques

_ROW, _BAR_STEP = 0.17, 0.08  # inches
_TOP, _BOTTOM = 0.62, 0.08  # inches
_AXIS, _GAP = 2.6, 0.12  # inches of the axis, and between names and the edges
_DIFFERENCE = 0.34  # inches of the critical difference above the axis
_LONGEST = 26  # characters of a name
_FONT = 6.5
_COLOUR = "#0072B2"


def draw(across: Across) -> Figure:
    """Draw the ranks on an axis, the best at the left, with a bar for each group of policies that do not differ."""
    ranks = across.ranks.sort_values(kind="stable")
    bars = cliques(ranks.to_numpy(), across.critical_difference)
    rows = math.ceil(len(ranks) / 2)
    bars_height = _BAR_STEP * (len(bars) + 1)
    inner = bars_height + _ROW * rows
    height = _TOP + inner + _BOTTOM
    with style():
        names = [_name(str(policy), float(rank)) for policy, rank in ranks.items()]
        side = 2 * _GAP + max(text_size(new_figure(1, 1), name, fontsize=_FONT)[0] for name in names)
        figure = new_figure(_AXIS + 2 * side, height)
        box = (side / (_AXIS + 2 * side), _BOTTOM / height, _AXIS / (_AXIS + 2 * side), inner / height)
        axes = figure.add_axes(box)
        _set_axes(axes, len(ranks), inner)
        for number, (best, worst) in enumerate(bars, start=1):
            axes.plot([best - 0.03, worst + 0.03], [number * _BAR_STEP] * 2, color="#222222", linewidth=2.4)
        for number, (policy, rank) in enumerate(ranks.items()):
            colour = REFERENCE_COLOUR if policy == across.reference else _COLOUR
            _draw_policy(axes, names[number], float(rank), _Place.of(number, len(ranks), bars_height), colour)
        _draw_difference(axes, across)
    return figure


def write(across: Across, path_stem: Path) -> list[Path]:
    """Draw the diagram and save it with the average ranks (see `balbench.reports.style.save`)."""
    numbers = pd.DataFrame({"policy": across.ranks.index, "rank": across.ranks.to_numpy()})
    return save(draw(across), path_stem, numbers.sort_values("rank", kind="stable"))


def _set_axes(axes: Axes, policies: int, inner: float) -> None:
    axes.set(xlim=(1, policies), ylim=(inner, 0))
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, policies + 1))
    axes.tick_params(labelsize=_FONT)
    axes.yaxis.set_visible(False)


@dataclass(frozen=True)
class _Place:
    """The place of a name: the end of its line, and whether the name is at the left of the axis."""

    x: float
    y: float
    left: bool

    @classmethod
    def of(cls, number: int, policies: int, start: float) -> _Place:
        """Return the place of a policy by its order: the better half is at the left, the worse half at the right."""
        left = number < math.ceil(policies / 2)
        row = number if left else policies - 1 - number
        return cls(1 if left else policies, start + _ROW * (row + 0.5), left)


def _name(policy: str, rank: float) -> str:
    return f"{textwrap.shorten(policy, _LONGEST, placeholder='…')} ({rank:.2f})"


def _draw_policy(axes: Axes, name: str, rank: float, place: _Place, colour: str) -> None:
    axes.plot([rank, rank, place.x], [0, place.y, place.y], color=colour, linewidth=0.8, clip_on=False)
    axes.annotate(
        name,
        (place.x, place.y),
        (-4 if place.left else 4, 0),
        textcoords="offset points",
        ha="right" if place.left else "left",
        va="center_baseline",
        fontsize=_FONT,
        color=colour,
        annotation_clip=False,
    )


def _draw_difference(axes: Axes, across: Across) -> None:
    """Draw the critical difference above the axis, where no policies are."""
    y, length = -_DIFFERENCE, min(across.critical_difference, len(across.ranks) - 1)
    axes.plot([1, 1 + length], [y, y], color=LINE_COLOUR, linewidth=1.4, clip_on=False)
    words = f"critical difference {across.critical_difference:.2f} (average rank; 1 is best)"
    axes.annotate(
        words,
        (1, y),
        (0, 3),
        textcoords="offset points",
        fontsize=_FONT,
        color=LINE_COLOUR,
        annotation_clip=False,
    )
