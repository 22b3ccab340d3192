"""Seconds of each stage of a cell, by policy."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from balbench.reports.figures.labels import axis_width
from balbench.reports.style import TEXT_WIDTH, new_figure, save, style

_STAGE_COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
_BAR, _BOTTOM, _TOP = 0.24, 0.45, 0.45  # inches


def seconds_by_stage(timings: pd.DataFrame, setting: str, policies: list[str]) -> pd.DataFrame:
    """Return the seconds of a cell, summed over its rounds and averaged over seeds.

    Args:
        timings: `Run.timings`.
        setting: which setting.
        policies: in the order of the rows; policies without timings have no row.

    Returns:
        one row for each policy (the index), one column for each stage in order of appearance, in seconds.
    """
    chosen = timings[timings["setting"] == setting].astype({"seconds": float})
    cells = chosen.groupby(["policy", "seed", "stage"], sort=False)["seconds"].sum().unstack().fillna(0.0)
    table = cells.groupby(level="policy", sort=False).mean()
    stages = [stage for stage in chosen["stage"].unique() if stage in table.columns]
    return table.loc[[policy for policy in policies if policy in table.index], stages]


def draw(seconds: pd.DataFrame) -> Figure:
    """Draw a stacked bar for each row of `seconds_by_stage`, with its total."""
    with style():
        height = _BAR * len(seconds) + _BOTTOM + _TOP
        figure = new_figure(TEXT_WIDTH, height)
        axes = figure.add_axes((0.3, _BOTTOM / height, 0.6, (height - _BOTTOM - _TOP) / height))
        start = pd.Series(0.0, index=seconds.index)
        rows = range(len(seconds))
        for number, stage in enumerate(seconds.columns):
            colour = _STAGE_COLOURS[number % len(_STAGE_COLOURS)]
            axes.barh(rows, seconds[stage], left=start, height=0.7, color=colour, label=str(stage))
            start = start + seconds[stage]
        for row, total in zip(rows, start, strict=True):
            axes.annotate(f"{total:,.3g}", (total, row), (3, 0), textcoords="offset points", va="center")
        names = [textwrap.shorten(str(policy), 26, placeholder="…") for policy in seconds.index]
        axes.set_yticks(rows, names)
        axes.set_ylim(len(seconds) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("seconds for one cell, all rounds (mean over seeds)")
        bars = axes.get_position()
        left = (axis_width(axes) + 0.06) / TEXT_WIDTH
        axes.set_position((left, bars.y0, 1 - left - 0.5 / TEXT_WIDTH, bars.height))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(seconds.columns), handlelength=1, borderpad=0.2)
    return figure


def write(seconds: pd.DataFrame, path_stem: Path) -> list[Path]:
    """Draw the bars and save them with their numbers (see `balbench.reports.style.save`)."""
    return save(draw(seconds), path_stem, seconds.reset_index())
