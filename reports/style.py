"""The look of the figures, and saving them so that the same numbers give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from balbench.reports.files import csv_bytes, write_bytes

TEXT_WIDTH = 5.5  # inches
REFERENCE_COLOUR = "#333333"
LINE_COLOUR = "#767676"
PNG_DPI = 200

# Colours of Okabe and Ito without black (used for the reference) and yellow (too pale on white), then three of Tol
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
    *("#882255", "#999933", "#332288"),
)
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))

# The type is Any, because the names of settings in matplotlib's stubs differ between versions
_RC: Any = {
    # a single face, because each further face (bold, italic) adds to the time and the size of every PDF
    "font.family": ["Balbench Sans", "DejaVu Sans"],
    "font.size": 7.5,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": "#222222",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.5,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    # ticks have complete numbers, because an offset such as "1e-5 - 0.693" covers the titles of small panels
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-9, 9),
    # the label of a policy may contain dollar signs
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "balbench",
    "path.simplify": False,
}
_NO_DATES: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
}


font_manager.fontManager.addfont(Path(__file__).parent / "fonts" / "BalbenchSans.ttf")


@dataclass(frozen=True)
class Look:
    """Colour and dashes of a policy, the same in all figures of a report."""

    colour: str
    dashes: Any
    width: float


@contextmanager
def style() -> Iterator[None]:
    """Use the settings of our figures in place of the user's matplotlib settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def looks(policies: Iterable[str], reference: str) -> dict[str, Look]:
    """Return the look of each policy, in the order given: colours first, then dashes; the reference is grey."""
    by_policy = {reference: Look(REFERENCE_COLOUR, "-", 1.6)}
    others = [policy for policy in dict.fromkeys(policies) if policy != reference]
    for number, policy in enumerate(others):
        dashes = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        by_policy[policy] = Look(_COLOURS[number % len(_COLOURS)], dashes, 1.3)
    return by_policy


class NotebookFigure(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        return _drawn(self, "png")


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure (inches) with its own canvas, independent of pyplot's global state."""
    figure = NotebookFigure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path_stem: Path, numbers: pd.DataFrame) -> list[Path]:
    """Save a figure as PNG, PDF and SVG and the numbers behind it as CSV, beside each other.

    The files do not depend on the time or on earlier figures: equal input gives equal bytes.

    Args:
        figure: drawn within `style`.
        path_stem: the path without its ending; the folder is created if it does not exist.
        numbers: the table behind the figure.

    Returns:
        The four paths.

    Raises:
        OSError: a file cannot be written.
    """
    paths = [write_bytes(_with_ending(path_stem, ending), _drawn(figure, ending)) for ending in _NO_DATES]
    return [*paths, write_bytes(_with_ending(path_stem, "csv"), csv_bytes(numbers))]


def _drawn(figure: Figure, ending: str) -> bytes:
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=ending, dpi=PNG_DPI, metadata=_NO_DATES[ending])
    return buffer.getvalue()


def _with_ending(path_stem: Path, ending: str) -> Path:
    # Path.with_suffix would replace the part after a dot in the stem
    return path_stem.with_name(f"{path_stem.name}.{ending}")
