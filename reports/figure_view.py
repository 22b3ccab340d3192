"""A figure as the page shows it: the picture inside the page, and links to its files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup


@dataclass(frozen=True)
class FigureView:
    """A figure of the page: its picture inline, and the paths of its files (relative to the page)."""

    name: str
    alt: str
    source: Markup
    files: dict[str, str]


def figure_view(paths: Sequence[Path], out: Path, name: str, alt: str) -> FigureView:
    """Return the view of a figure.

    Args:
        paths: its files, with an SVG among them.
        out: the folder of the page.
        name: what the figure shows, such as a metric.
        alt: text in place of the picture.
    """
    by_ending = {path.suffix[1:]: path for path in paths}
    # each figure is a separate image, because identifiers of two inline drawings would clash
    picture = base64.b64encode(by_ending["svg"].read_bytes()).decode()
    files = {ending.upper(): path.relative_to(out).as_posix() for ending, path in by_ending.items()}
    return FigureView(name, alt, Markup(f"data:image/svg+xml;base64,{picture}"), files)
