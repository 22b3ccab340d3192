"""Labels beside the lines that they name: at the right edge of the axes, or where the axes are emptiest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

_GAP = 0.16  # inches between the axes and the labels
_MARGIN = 0.06  # inches between the labels and the edge of the figure
_STEP = 5.0  # pixels between the points of a line that a note must not cover
_LEADING = 1.12  # distance of two lines of text, as a multiple of their height


@dataclass(frozen=True)
class EdgeLabel:
    """A label at the right edge: its text, the end of its line (data coordinates), and its colour."""

    text: str
    x: float
    y: float
    colour: str


def figure_of(axes: Axes) -> Figure:
    """Return the figure that holds the axes."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # matplotlib's type allows axes without a figure
    return figure


def text_size(figure: Figure, text: str, **settings: Any) -> tuple[float, float]:
    """Measure a text in inches: width and height."""
    artist = figure.text(0, 0, text, **settings)
    box = artist.get_window_extent(_renderer(figure))
    artist.remove()
    return box.width / figure.dpi, box.height / figure.dpi


def edge_width(figure: Figure, labels: list[EdgeLabel]) -> float:
    """Return the width in inches that the labels need to the right of the axes."""
    widths = [text_size(figure, label.text, **_settings(label))[0] for label in labels]
    return max(widths, default=0) + _GAP + _MARGIN


def edge_height(figure: Figure, labels: list[EdgeLabel]) -> float:
    """Return the height in inches of all labels in one column."""
    return sum(text_size(figure, label.text, **_settings(label))[1] * _LEADING for label in labels)


def axis_width(axes: Axes) -> float:
    """Return the width in inches of the y axis: its name and the numbers at its ticks."""
    figure = figure_of(axes)
    box = axes.yaxis.get_tightbbox(_renderer(figure))
    return 0.0 if box is None else (axes.get_window_extent().x0 - box.x0) / figure.dpi


def draw_edge_labels(axes: Axes, labels: list[EdgeLabel]) -> None:
    """Write the labels to the right of the axes, as near to the ends of their lines as possible."""
    figure = figure_of(axes)
    if not labels:
        return
    labels = sorted(labels, key=lambda label: label.y)
    box = axes.get_window_extent()
    ends_L2 = axes.transData.transform([(label.x, label.y) for label in labels])
    heights = [text_size(figure, label.text, **_settings(label))[1] for label in labels]
    heights_L = figure.dpi * _LEADING * np.array(heights)
    centres_L = spread(np.clip(ends_L2[:, 1], box.y0, box.y1), heights_L, box.y0, box.y1)
    start = box.x1 + _GAP * figure.dpi
    to_figure = figure.transFigure.inverted()
    for label, end_2, centre in zip(labels, ends_L2, centres_L, strict=True):
        x, y = to_figure.transform((start, centre))
        figure.text(x, y, label.text, va="center_baseline", **_settings(label))
        points_22 = to_figure.transform(
            [(end_2[0], np.clip(end_2[1], box.y0, box.y1)), (start - 0.03 * figure.dpi, centre)]
        )
        _leader(figure, points_22, label.colour)


def spread(targets_L: np.ndarray, heights_L: np.ndarray, low: float, high: float) -> np.ndarray:
    """Move ascending centres apart so that boxes of these heights do not overlap, with the least sum of squared moves.

    The boxes stay within [low, high] if they fit, and exceed the upper end if they do not.
    """
    offsets_L = np.cumsum(heights_L) - heights_L / 2
    bases_L = targets_L - offsets_L
    if np.any(np.diff(bases_L) < 0):
        from scipy.optimize import isotonic_regression  # a slow import, which most figures do not need

        bases_L = isotonic_regression(bases_L).x
    return np.clip(bases_L, low, max(low, high - heights_L.sum())) + offsets_L


def place_note(
    axes: Axes,
    text: Text,
    near: tuple[float, float],
    paths: list[np.ndarray],
    faint_paths: list[np.ndarray],
) -> None:
    """Move a text to the position in the axes that covers the fewest lines and is nearest to `near`.

    Args:
        axes: with its final limits and position.
        text: in data coordinates, centred.
        near: data coordinates.
        paths: lines not to cover, each an array (points, 2) in data coordinates; at least one.
        faint_paths: lines to avoid where possible, in the same form.
    """
    figure = figure_of(axes)
    size_2 = np.array(text.get_window_extent(_renderer(figure)).size) + 0.06 * figure.dpi
    box = axes.get_window_extent()
    corners_2 = np.array([box.x0, box.y0]) + size_2 / 2
    opposite_2 = np.array([box.x1, box.y1]) - size_2 / 2
    grid = np.meshgrid(*(np.linspace(corners_2[axis], opposite_2[axis], 24) for axis in (0, 1)))
    centres_G2 = np.stack([part.ravel() for part in grid], axis=1)
    cost_G = np.zeros(len(centres_G2))
    for weight, lines in ((1000, paths), (30, faint_paths)):
        points_P2 = np.concatenate([_dense(axes.transData.transform(line)) for line in lines])
        covered_GP = (np.abs(points_P2[None] - centres_G2[:, None]) < size_2 / 2).all(axis=2)
        cost_G += weight * covered_GP.sum(axis=1)
    distance_G = np.linalg.norm(centres_G2 - axes.transData.transform(near), axis=1)
    best = np.argmin(cost_G + distance_G)
    x, y = axes.transData.inverted().transform(centres_G2[best])
    text.set_position((x, y))


def _dense(points_P2: np.ndarray) -> np.ndarray:
    """Put points (display coordinates) along a line, about `_STEP` apart."""
    length_P = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points_P2, axis=0), axis=1))])
    positions = np.arange(0, length_P[-1] + _STEP, _STEP)
    return np.stack([np.interp(positions, length_P, points_P2[:, axis]) for axis in (0, 1)], axis=1)


def _leader(figure: Figure, points_22: np.ndarray, colour: str) -> None:
    figure.add_artist(Line2D(points_22[:, 0], points_22[:, 1], linewidth=0.5, color=colour, alpha=0.7, linestyle=":"))


def _settings(label: EdgeLabel) -> dict[str, Any]:
    return {"color": label.colour, "fontsize": 7}


def _renderer(figure: Figure) -> Any:
    assert isinstance(figure.canvas, FigureCanvasAgg)  # see style.new_figure
    return figure.canvas.get_renderer()
