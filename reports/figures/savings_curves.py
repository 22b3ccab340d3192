"""Label savings at every level of the reference, with a simultaneous band for the best policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from balbench.reports.curves import Curves
from balbench.reports.figures.labels import EdgeLabel, axis_width, draw_edge_labels, edge_width
from balbench.reports.savings import Outcome
from balbench.reports.savings_curve import savings_curve
from balbench.reports.savings_table import sorted_by_savings
from balbench.reports.style import LINE_COLOUR, TEXT_WIDTH, Look, new_figure, save, style
from balbench.reports.wording import metric_name, split_name

MOST_POLICIES = 6  # more lines hide each other; the CSV file has all policies
LOWEST = -1.0  # the figure ends at savings of -100%
_HEIGHT, _LEFT, _BOTTOM, _TOP = 2.6, 0.06, 0.42, 0.12  # inches


@dataclass(frozen=True)
class SavingsPanel:
    """The content of a figure.

    Attributes:
        split, metric, reference: their names.
        curves: the `savings_curve` of each policy, the policy with the largest savings first.
    """

    split: str
    metric: str
    reference: str
    curves: dict[str, pd.DataFrame]


def make_panel(curves: Curves, rows: pd.DataFrame, reference: str) -> SavingsPanel | None:
    """Gather the content of a figure; None if no savings are stated.

    Args:
        curves: the curves of the run.
        rows: rows of `savings_table` for one setting, split and metric.
        reference: label of the reference.
    """
    compared = rows[~rows["is_reference"] & ~rows["outcome"].isin([Outcome.NO_RESULTS, Outcome.NO_LEVEL])]
    if not len(compared) or rows["rounds"].max() < 3:
        return None
    setting, split, metric = compared[["setting", "split", "metric"]].iloc[0]
    by_policy = {}
    for policy in sorted_by_savings(compared)["policy"]:
        pair = curves.pair(setting, policy, reference, split, metric)
        if pair is not None:
            by_policy[policy] = savings_curve(*pair, metric)
    return SavingsPanel(split, metric, reference, by_policy)


def numbers(panel: SavingsPanel) -> pd.DataFrame:
    """Return the savings curves of all policies as one frame."""
    return pd.concat([curve.assign(policy=policy) for policy, curve in panel.curves.items()], ignore_index=True)


def draw(panel: SavingsPanel, policy_looks: Mapping[str, Look]) -> Figure:
    """Draw the savings of the first policies, and the band of the first."""
    with style():
        figure = new_figure(TEXT_WIDTH, _HEIGHT)
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        axes.axhline(0, color=LINE_COLOUR, linewidth=0.8, zorder=1.5)
        labels = []
        for number, (policy, curve) in enumerate(list(panel.curves.items())[:MOST_POLICIES]):
            look, x = policy_looks[policy], curve["reference_labels"].to_numpy()
            height = np.maximum(curve["savings"].to_numpy(), LOWEST)
            if number == 0:
                _draw_band(axes, curve, look)
            axes.plot(x, height, color=look.colour, linestyle=look.dashes, linewidth=look.width, zorder=3)
            labels.append(EdgeLabel(policy, float(x[-1]), float(height[-1]), look.colour))
        _name_axes(axes, panel)
        right = edge_width(figure, labels)
        left = _LEFT + axis_width(axes)
        axes.set_position(
            (
                left / TEXT_WIDTH,
                _BOTTOM / _HEIGHT,
                (TEXT_WIDTH - left - right) / TEXT_WIDTH,
                1 - (_BOTTOM + _TOP) / _HEIGHT,
            )
        )
        draw_edge_labels(axes, labels)
    return figure


def write(panel: SavingsPanel, policy_looks: Mapping[str, Look], path_stem: Path) -> list[Path]:
    """Draw a panel and save it with its numbers (see `balbench.reports.style.save`)."""
    return save(draw(panel, policy_looks), path_stem, numbers(panel))


def _draw_band(axes: Axes, curve: pd.DataFrame, look: Look) -> None:
    if curve["band_low"].isna().any():
        return
    low, high = (np.maximum(curve[name].to_numpy(), LOWEST) for name in ("band_low", "band_high"))
    # an end that is only a bound leaves the band open
    low[(curve["band_low_kind"] == "at_most").to_numpy()] = LOWEST
    axes.fill_between(curve["reference_labels"], low, high, color=look.colour, alpha=0.16, linewidth=0, zorder=2)


def _name_axes(axes: Axes, panel: SavingsPanel) -> None:
    axes.set_xlabel(f"labels of {panel.reference} that set the level")
    axes.set_ylabel(f"savings, {split_name(panel.split)} {metric_name(panel.metric)}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    heights = np.concatenate([curve["savings"].to_numpy() for curve in panel.curves.values()])
    axes.set_ylim(max(LOWEST, min(-0.1, heights.min() - 0.1)), min(1, max(0.1, heights.max() + 0.15)))
