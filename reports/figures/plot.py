"""One figure of a run, for notebooks and scripts: nothing is written to disk."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from balbench.harness.errors import BalbenchError
from balbench.reports.curves import Curves
from balbench.reports.figures import learning_curves, small_multiples
from balbench.reports.figures.learning_curves import Panel
from balbench.reports.learning import DIRECTIONS
from balbench.reports.savings_table import savings_table
from balbench.reports.style import looks

if TYPE_CHECKING:
    from balbench.harness.results import Run


def figure_module(panel: Panel) -> ModuleType:
    """Return the module that draws a panel: small multiples for more policies than one plot can show."""
    return small_multiples if len(panel.curves) > small_multiples.MOST_IN_ONE_PLOT else learning_curves


def plot(run: Run, split: str = "test", metric: str = "log_likelihood", setting: str | None = None) -> Figure:
    """Draw the learning curves of a run for one metric on one split, with the label savings where there are any.

    Args:
        run: from `balbench.harness.results.read_run`.
        split: such as "test", "ood" or "eval".
        metric: any metric of `run.curves`.
        setting: values of the study's grid, as in `run.curves["setting"]`; by default the first.

    Returns:
        a figure that notebooks display; `figure.savefig(path)` saves it.

    Raises:
        BalbenchError: the run has no such setting, split or metric.
    """
    setting = _chosen("setting", setting, run.curves["setting"])
    frame = run.curves[run.curves["setting"] == setting]
    frame = frame[frame["split"] == _chosen("split", split, frame["split"])]
    frame = frame[frame["metric"] == _chosen("metric", metric, frame["metric"])]
    savings = savings_table(run, metric) if metric in DIRECTIONS else pd.DataFrame()
    panel = learning_curves.make_panel(run, Curves(frame), savings, setting, split, metric)
    return figure_module(panel).draw(panel, looks(run.policies, run.reference))


def _chosen(name: str, value: str | None, values: Iterable[str]) -> str:
    choices = list(dict.fromkeys(values))
    if not choices:
        raise BalbenchError(f"{name}: the run has no results yet; wait for its first rounds")
    if value is None:
        return choices[0]
    if value not in choices:
        near = [f"did you mean {choice!r}? " for choice in get_close_matches(value, choices, 1)]
        listed = ", ".join(map(repr, choices))
        message = f"{name}: {value!r} has no learning curves; {''.join(near)}choose one of: {listed}"
        raise BalbenchError(message, setting=name)
    return value
