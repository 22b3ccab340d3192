"""Label savings of each policy (column) in each unit (row)."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balbench.reports.across import Across
from balbench.reports.figures.labels import text_size
from balbench.reports.style import TEXT_WIDTH, new_figure, save, style
from balbench.reports.wording import NOTHING, percent

_CELL = (0.46, 0.24)  # inches
_FONT = 6.2
_LONGEST = {"unit": 44, "policy": 16}  # characters of a name in one line
_GAP, _BAR, _BAR_LABELS = 0.08, 0.1, 0.62  # inches
_MISSING = "#e4e4e4"


def draw(across: Across) -> Figure:
    """Draw the savings in per cent; colours end at -100% and 100%, units without a level are grey."""
    import seaborn  # a slow import, which reports of fewer units do not need

    savings = across.all_savings
    rows = [_wrapped(name, _LONGEST["unit"]) for name in savings.index]
    columns = [_wrapped(name, _LONGEST["policy"]) for name in savings.columns]
    with style():
        measuring = new_figure(1, 1)
        left = max(text_size(measuring, name, fontsize=_FONT)[0] for name in rows) + 2 * _GAP
        top = max(text_size(measuring, name, fontsize=_FONT, rotation=90)[1] for name in columns) + 2 * _GAP
        inner = _CELL[0] * len(columns), _CELL[1] * len(rows)
        width = max(left + inner[0] + _BAR_LABELS + _BAR + _GAP, TEXT_WIDTH)
        height = top + inner[1] + _GAP
        figure = new_figure(width, height)
        axes = figure.add_axes((left / width, _GAP / height, inner[0] / width, inner[1] / height))
        bar_left = left + inner[0] + _GAP
        bar = figure.add_axes((bar_left / width, _GAP / height, _BAR / width, inner[1] / height))
        seaborn.heatmap(
            savings.to_numpy(dtype=float),
            ax=axes,
            cbar_ax=bar,
            vmin=-1,
            vmax=1,
            cmap="RdBu",
            annot=_texts(across),
            fmt="",
            annot_kws={"fontsize": _FONT},
            linewidths=0.6,
            cbar_kws={"label": "label savings", "format": lambda value, _: f"{percent(value)}%"},
        )
        axes.set_facecolor(_MISSING)
        axes.grid(visible=False)
        _name_cells(axes, rows, columns)
        bar.tick_params(labelsize=_FONT, length=0)
        bar.yaxis.label.set_fontsize(_FONT)
    return figure


def write(across: Across, path_stem: Path) -> list[Path]:
    """Draw the heat map and save it with its numbers (see `balbench.reports.style.save`)."""
    return save(draw(across), path_stem, across.all_savings.rename_axis("unit").reset_index())


def _name_cells(axes: Axes, rows: list[str], columns: list[str]) -> None:
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90, fontsize=_FONT)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows, rotation=0, fontsize=_FONT)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)


def _texts(across: Across) -> np.ndarray:
    """Return the savings in per cent with the sign of a bound, as an array of texts."""
    signs = across.all_bounds.replace({-1: "<= ", 1: ">= ", 0: ""}).fillna("")
    numbers = across.all_savings.map(lambda value: percent(value) if np.isfinite(value) else NOTHING)
    return (signs.astype(str) + numbers).to_numpy(dtype=object)


def _wrapped(name: str, longest: int) -> str:
    return "\n".join(textwrap.wrap(name, longest)[:2]) or NOTHING
