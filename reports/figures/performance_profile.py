"""The performance profile: the share of units in which a policy saves at least so many labels (Dolan and More 2002)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from balbench.reports.across import Across
from balbench.reports.figures.labels import text_size
from balbench.reports.style import LINE_COLOUR, Look, new_figure, save, style
from balbench.reports.unit_statistics import profile

_LEFT, _BOTTOM, _TOP, _WIDTH, _HEIGHT = 0.62, 0.42, 0.08, 3.4, 2.6  # inches; the width is that of the axes
_LEGEND = 0.62  # inches of the legend beside its names
_FONT, _LONGEST = 6.2, 26  # size and number of characters of a name
_STEPS = 201
_MOST_BANDS = 6  # policies up to which bands remain legible
_FARTHEST = -1.0  # thresholds begin here at the lowest


def draw(across: Across, policy_looks: Mapping[str, Look]) -> Figure:
    """Draw the profile of each policy, with a 95% band over units if there are few policies.

    Args:
        across: the savings over units.
        policy_looks: from `balbench.reports.style.looks`.
    """
    threshold_H = _thresholds(across)
    with style():
        names = {policy: textwrap.shorten(policy, _LONGEST, placeholder="…") for policy in across.policies}
        longest = max(text_size(new_figure(1, 1), name, fontsize=_FONT)[0] for name in names.values())
        width = _LEFT + _WIDTH + _LEGEND + longest
        figure = new_figure(width, _HEIGHT)
        height = _HEIGHT - _BOTTOM - _TOP
        axes = figure.add_axes((_LEFT / width, _BOTTOM / _HEIGHT, _WIDTH / width, height / _HEIGHT))
        axes.axvline(0, color=LINE_COLOUR, linewidth=0.7, linestyle=":")
        for policy in across.table.sort_values("rank", kind="stable")["policy"]:
            look = policy_looks[policy]
            share_H, low_H, high_H = profile(across.extreme_UP[:, across.policies.index(policy)], threshold_H)
            axes.step(
                threshold_H,
                share_H,
                where="pre",
                color=look.colour,
                linestyle=look.dashes,
                linewidth=1.2,
                label=names[policy],
            )
            if len(across.policies) <= _MOST_BANDS:
                axes.fill_between(threshold_H, low_H, high_H, step="pre", color=look.colour, alpha=0.1, linewidth=0)
        axes.set(xlim=(threshold_H[0], threshold_H[-1]), ylim=(-0.02, 1.02))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set(xlabel="label savings of at least", ylabel=f"share of {len(across.units)} units")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=_FONT, handlelength=1.8)
    return figure


def write(across: Across, policy_looks: Mapping[str, Look], path_stem: Path) -> list[Path]:
    """Draw the profiles and save them with their numbers (see `balbench.reports.style.save`)."""
    threshold_H = _thresholds(across)
    columns = [profile(across.extreme_UP[:, number], threshold_H) for number in range(len(across.policies))]
    numbers = pd.DataFrame(
        {
            "policy": np.repeat(np.array(across.policies, dtype=object), len(threshold_H)),
            "savings": np.tile(threshold_H, len(across.policies)),
            **{name: np.concatenate([each[i] for each in columns]) for i, name in enumerate(("share", "low", "high"))},
        }
    )
    return save(draw(across, policy_looks), path_stem, numbers)


def _thresholds(across: Across) -> np.ndarray:
    """Return H thresholds over the range of the savings, at least from -10% to 50%."""
    finite = across.extreme_UP[np.isfinite(across.extreme_UP)]
    low = min(-0.1, float(finite.min(initial=0.0)) - 0.02)
    return np.linspace(max(low, _FARTHEST), max(0.5, min(1.0, float(finite.max(initial=0.0)) + 0.02)), _STEPS)
