"""One figure of a run, for notebooks and scripts: nothing is written to disk."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from balbench.reports.curves import Curves, chosen
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
    setting = chosen("setting", setting, run.curves["setting"])
    frame = run.curves[run.curves["setting"] == setting]
    frame = frame[frame["split"] == chosen("split", split, frame["split"])]
    frame = frame[frame["metric"] == chosen("metric", metric, frame["metric"])]
    savings = savings_table(run, metric) if metric in DIRECTIONS else pd.DataFrame()
    panel = learning_curves.make_panel(run, Curves(frame), savings, setting, split, metric)
    return figure_module(panel).draw(panel, looks(run.policies, run.reference))
