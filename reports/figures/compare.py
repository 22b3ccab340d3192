"""The learning curves of each policy before and after a change."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from balbench.reports.compare import Comparison
from balbench.reports.compare_text import title
from balbench.reports.curves import Curve
from balbench.reports.style import REFERENCE_COLOUR, TEXT_WIDTH, new_figure, save, style
from balbench.reports.wording import axis_name

_COLUMNS, _ROW, _BOTTOM = 3, 1.7, 0.4  # panels in a row; inches
NEW_COLOUR = "#0072B2"


def draw(found: Comparison) -> Figure:
    """Draw a panel for each policy: grey before, blue after, with a band of one standard error over seeds."""
    rows = -(-len(found.policies) // _COLUMNS)
    height = rows * _ROW + _BOTTOM
    with style():
        figure = new_figure(TEXT_WIDTH, height)
        width = (1 - 0.12) / _COLUMNS
        for number, each in enumerate(found.policies):
            row, column = divmod(number, _COLUMNS)
            bottom = (height - (row + 1) * _ROW + 0.25) / height
            axes = figure.add_axes((0.12 + column * width, bottom, width - 0.09, (_ROW - 0.5) / height))
            axes.set_title(title(each), fontsize=7)
            for curve, colour, name in zip(each.curves, (REFERENCE_COLOUR, NEW_COLOUR), ("old", "new"), strict=True):
                _line(axes, curve, colour, name)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        figure.axes[0].legend(fontsize=6.5, loc="lower right")
        figure.text(0.01, 0.5, axis_name(found.split, found.metric), rotation=90, va="center", fontsize=7.5)
        figure.text(0.5, 0.02, "acquired labels", ha="center", fontsize=7.5)
    return figure


def write(found: Comparison, path_stem: Path) -> list[Path]:
    """Draw a comparison and save it with its numbers (see `balbench.reports.style.save`)."""
    return save(draw(found), path_stem, found.table)


def _line(axes: Axes, curve: Curve, colour: str, name: str) -> None:
    axes.plot(curve.labels_T, curve.mean_T, color=colour, label=name, linewidth=1.2)
    if len(curve.seeds_S) > 1:
        low_T, high_T = (curve.mean_T + sign * curve.standard_error_T for sign in (-1, 1))
        axes.fill_between(curve.labels_T, low_T, high_T, color=colour, alpha=0.2, linewidth=0)
