"""The learning curves of all policies for one metric on one split, with the label savings of the best one."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from balbench.reports.curves import Curve, Curves
from balbench.reports.differences import FEWEST_SEEDS
from balbench.reports.figures.labels import (
    EdgeLabel,
    axis_width,
    draw_edge_labels,
    edge_height,
    edge_width,
    figure_of,
    place_note,
)
from balbench.reports.savings import Outcome
from balbench.reports.savings_table import records, rows_of
from balbench.reports.statement import in_short
from balbench.reports.style import LINE_COLOUR, TEXT_WIDTH, Look, new_figure, save, style
from balbench.reports.wording import axis_name, interval_text, point_text

if TYPE_CHECKING:
    from balbench.harness.results import Run

_LEFT, _BOTTOM, _TOP, _HEIGHT = 0.06, 0.42, 0.27, 3.1  # inches
_NOTE_CHARACTER = 0.052  # inches, at the size of the note
_LINE_DASHES = ((0, (6, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class Panel:
    """The content of one figure.

    Attributes:
        split, metric, reference: their names.
        curves: the curve of each policy that has values, in the order of the study.
        lines: height of each horizontal reference line by its name, in the metric's unit.
        savings: rows of `savings_table` for this setting, split and metric; empty for a metric without savings.
    """

    split: str
    metric: str
    reference: str
    curves: dict[str, Curve]
    lines: dict[str, float]
    savings: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The row of the policy with the largest savings; None if no policy clearly saved labels."""
        saving = [row for row in self.savings if row["outcome"] == Outcome.SAVED]
        return max(saving, key=lambda row: row["savings"], default=None)

    @property
    def note(self) -> str:
        """Why the figure shows no savings; empty if it does, or if there is nothing to compare."""
        compared = [row for row in self.savings if row["seeds"] and not row["is_reference"]]
        if self.best or not compared:
            return ""
        no_level = {row["no_level"] for row in compared} - {""}
        if no_level:
            return f"no label savings are stated: {in_short(min(no_level), self.reference)}"
        if all(row["outcome"] == Outcome.NO_INTERVAL for row in compared):
            return f"no label savings are drawn for fewer than {FEWEST_SEEDS} seeds"
        return f"no policy reached the level of {self.reference} with clearly fewer labels"


def make_panel(run: Run, curves: Curves, savings: pd.DataFrame, setting: str, split: str, metric: str) -> Panel:
    """Gather the content of a figure; `savings` is the `savings_table` of this metric, or an empty frame."""
    by_policy = {policy: curves.curve(setting, policy, split, metric) for policy in run.policies}
    if len(savings):
        savings = rows_of(savings, setting, split)
    return Panel(
        split=split,
        metric=metric,
        reference=run.reference,
        curves={policy: curve for policy, curve in by_policy.items() if curve is not None},
        lines=_reference_lines(run, setting, split, metric),
        savings=records(savings),
    )


def draw(panel: Panel, policy_looks: Mapping[str, Look]) -> Figure:
    """Draw a panel: means, standard errors, every seed, reference lines, and the savings bracket.

    Args:
        panel: a panel with at least one curve.
        policy_looks: from `balbench.reports.style.looks`.
    """
    with style():
        figure = new_figure(TEXT_WIDTH, _HEIGHT)
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        for policy in _drawing_order(panel):
            _draw_curve(axes, panel.curves[policy], policy_looks[policy])
        _set_limits(axes, panel)
        _name_axes(axes, panel)
        labels = _policy_labels(panel, policy_looks) + _draw_lines(axes, panel)
        _lay_out(figure, axes, labels)
        _draw_savings(axes, panel, policy_looks)
        draw_edge_labels(axes, labels)
    return figure


def numbers(panel: Panel) -> pd.DataFrame:
    """Return the numbers behind a figure: policy, labels, mean, se, seeds, and one column for each seed.

    Reference lines follow the policies; their height is the mean, and the other columns are empty.
    """
    curves = panel.curves.values()
    rounds = [len(curve.labels_T) for curve in curves]
    lines = np.full(len(panel.lines), np.nan)
    columns: dict[str, Any] = {
        "policy": [*np.repeat(np.array(list(panel.curves), dtype=object), rounds), *panel.lines],
        "labels": np.concatenate([*(curve.labels_T for curve in curves), lines]),
        "mean": np.concatenate([*(curve.mean_T for curve in curves), list(panel.lines.values())]),
        "se": np.concatenate([*(curve.standard_error_T for curve in curves), lines]),
        "seeds": np.concatenate([np.repeat([len(curve.seeds_S) for curve in curves], rounds), lines]),
    }
    for seed in dict.fromkeys(seed for curve in curves for seed in curve.seeds_S):
        columns[f"seed {seed}"] = np.concatenate([*(_of_seed(curve, seed) for curve in curves), lines])
    return pd.DataFrame(columns).astype({"seeds": "Int64"})


def write(panel: Panel, policy_looks: Mapping[str, Look], path_stem: Path) -> list[Path]:
    """Draw a panel and save it with its numbers (see `balbench.reports.style.save`)."""
    return save(draw(panel, policy_looks), path_stem, numbers(panel))


def _of_seed(curve: Curve, seed: int) -> np.ndarray:
    row = np.flatnonzero(curve.seeds_S == seed)
    return curve.values_ST[row[0]] if len(row) else np.full(len(curve.labels_T), np.nan)


def _reference_lines(run: Run, setting: str, split: str, metric: str) -> dict[str, float]:
    lines = _rows_of_figure(run.lines, setting, split, metric)
    heights = {str(line): float(group.mean()) for line, group in lines.groupby("line", sort=False)["value"]}
    full_data = _rows_of_figure(run.full_data, setting, split, metric)["value"]
    if len(full_data):
        heights["full data"] = float(full_data.mean())
    return {line: height for line, height in heights.items() if np.isfinite(height)}


def _rows_of_figure(frame: pd.DataFrame, setting: str, split: str, metric: str) -> pd.DataFrame:
    return frame[(frame["setting"] == setting) & (frame["split"] == split) & (frame["metric"] == metric)].astype(
        {"value": float}
    )


def _drawing_order(panel: Panel) -> list[str]:
    """Return the policies in the order of drawing: the reference first (below), the best policy last (on top)."""
    best = panel.best["policy"] if panel.best else None
    return sorted(panel.curves, key=lambda policy: (policy == best) - (policy == panel.reference))


def _draw_curve(axes: Axes, curve: Curve, look: Look) -> None:
    segments = [np.stack([curve.labels_T, values_T], axis=1) for values_T in curve.values_ST]
    seeds = LineCollection(segments, colors=look.colour, linewidths=0.4, alpha=0.22, zorder=2)
    # vector files stay small with one picture in place of many faint lines
    seeds.set_rasterized(len(segments) * len(curve.labels_T) > 500)
    axes.add_collection(seeds)
    if len(curve.seeds_S) > 1:
        low_T, high_T = curve.mean_T - curve.standard_error_T, curve.mean_T + curve.standard_error_T
        axes.fill_between(curve.labels_T, low_T, high_T, color=look.colour, alpha=0.16, linewidth=0, zorder=2.5)
    axes.plot(
        curve.labels_T,
        curve.mean_T,
        color=look.colour,
        linestyle=look.dashes,
        linewidth=look.width,
        marker="o" if len(curve.labels_T) == 1 else None,
        zorder=3,
    )


def _set_limits(axes: Axes, panel: Panel) -> None:
    """Set limits that include all seeds and the reference lines near the curves."""
    values = np.concatenate([curve.values_ST.ravel() for curve in panel.curves.values()])
    labels = np.concatenate([curve.labels_T for curve in panel.curves.values()])
    low, high = values.min(), values.max()
    reach = 0.35 * (high - low)
    near = [height for height in panel.lines.values() if low - reach <= height <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    pad = 0.05 * (high - low) or 0.05
    axes.set_ylim(low - pad, high + pad)
    span = labels.max() - labels.min()
    axes.set_xlim(labels.min() - 0.02 * span - (span == 0), labels.max() + (span == 0))


def _name_axes(axes: Axes, panel: Panel) -> None:
    axes.set_xlabel("acquired labels")
    axes.set_ylabel(axis_name(panel.split, panel.metric))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(7))


def _wrapped(policy: str) -> str:
    return textwrap.fill(policy, 24)


def _draw_lines(axes: Axes, panel: Panel) -> list[EdgeLabel]:
    """Draw the reference lines; the name of a line outside the axes has an arrow and the line's height."""
    (low, high), (_, right) = axes.get_ylim(), axes.get_xlim()
    labels = []
    for number, (line, height) in enumerate(panel.lines.items()):
        text = line
        if low <= height <= high:
            dashes = _LINE_DASHES[number % len(_LINE_DASHES)]
            axes.axhline(height, color=LINE_COLOUR, linestyle=dashes, linewidth=0.8, zorder=1.5)
        else:
            text = f"{line} ({height:.3g}) {'↑' if height > high else '↓'}"
        labels.append(EdgeLabel(text, right, float(np.clip(height, low, high)), LINE_COLOUR))
    return labels


def _policy_labels(panel: Panel, policy_looks: Mapping[str, Look]) -> list[EdgeLabel]:
    return [
        EdgeLabel(_wrapped(policy), curve.labels_T[-1], curve.mean_T[-1], policy_looks[policy].colour)
        for policy, curve in panel.curves.items()
    ]


def _lay_out(figure: Figure, axes: Axes, labels: list[EdgeLabel]) -> None:
    """Make the figure high and wide enough for its labels."""
    width, _ = figure.get_size_inches()
    right = edge_width(figure, labels)
    height = max(_HEIGHT, edge_height(figure, labels) + _BOTTOM + _TOP)
    left = _LEFT + axis_width(axes)
    width = max(width, left + right + 1.4)
    figure.set_size_inches(width, height)
    axes.set_position(
        (left / width, _BOTTOM / height, (width - left - right) / width, (height - _BOTTOM - _TOP) / height)
    )


def _draw_savings(axes: Axes, panel: Panel, policy_looks: Mapping[str, Look]) -> None:
    """Draw the bracket at the reference's final level, or write why there is no bracket."""
    best = panel.best
    if best is not None:
        _draw_bracket(axes, panel, best, policy_looks[best["policy"]].colour)
    elif panel.note:
        _write_note(axes, panel.note)


def _write_note(axes: Axes, note: str) -> None:
    figure = figure_of(axes)
    width, height = figure.get_size_inches()
    lines = textwrap.fill(note, int((width - 2 * _LEFT) / _NOTE_CHARACTER))
    figure.text(_LEFT / width, 1 - 0.04 / height, lines, fontsize=6.5, color="#444444", va="top", linespacing=1.05)


def _draw_bracket(axes: Axes, panel: Panel, best: Mapping[str, Any], colour: str) -> None:
    left, right, level = best["n_policy"], best["n_reference"], best["level"]
    arrow = {"arrowstyle": "<|-|>", "color": "#111111", "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (left, level), (right, level), arrowprops=arrow | {"mutation_scale": 7}, zorder=5)
    bottom = axes.get_ylim()[0]
    axes.vlines(
        [left, right],
        bottom,
        level,
        colors="#111111",
        linewidths=0.5,
        linestyles=":",
        zorder=1.8,
        clip_on=False,
    )
    words = f"{_wrapped(best['policy'])}\n{point_text(best)} fewer labels\n{interval_text(best)}"
    middle = ((left + right) / 2, level)
    text = axes.text(*middle, words, color=colour, fontsize=8, ha="center", va="center", zorder=6)
    paths = [np.stack([curve.labels_T, curve.mean_T], axis=1) for curve in panel.curves.values()]
    paths += [np.array([(axes.get_xlim()[0], height), (right, height)]) for height in panel.lines.values()]
    paths += [np.array([(left, level), (right, level)])]
    paths += [np.array([(x, bottom), (x, level)]) for x in (left, right)]
    faint_paths = [
        np.stack([curve.labels_T, edge_T], axis=1)
        for curve in panel.curves.values()
        for edge_T in (curve.values_ST.min(axis=0), curve.values_ST.max(axis=0))
    ]
    place_note(axes, text, middle, paths, faint_paths)
