"""The results of a study: frames, label savings, figures and the report."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from balbench.harness import results
from balbench.harness.errors import BalbenchError, shortened
from balbench.harness.files import as_path

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Run(results.Run):
    """The results of a study, finished or not, as tidy data frames.

    The frames and other attributes are those of `balbench.harness.results.Run`: `curves`, `cells`, `timings`,
    `lines`, `full_data`, and `name`, `path`, `policies`, `reference`, `protocol`.
    """

    @property
    def failed(self) -> pd.DataFrame:
        """The rows of `cells` that failed, with the reason of each."""
        return self.cells[self.cells["state"] == "failed"].reset_index(drop=True)

    def savings(self, metric: str = "log_likelihood") -> pd.DataFrame:
        """Return the label savings of each policy against the reference.

        Args:
            metric: log_likelihood, accuracy or brier.

        Returns:
            One row for each split and policy (and setting, where the study has a grid), rounded for reading:

            - savings, low, high: share of the labels saved, with its 95% interval; NaN where only a bound is known.
            - p: p-value of savings of zero, adjusted for the number of policies (Holm).
            - labels: number of labels of the policy at the level of the comparison.
            - final: the metric after the last round, in its own unit.
            - outcome: what can be claimed, for example saved, lost or unclear; "no level" where the reference did not
              learn beyond chance, without savings.

            `balbench.reports.savings_table.savings_table` gives all columns, unrounded.

        Raises:
            BalbenchError: there are no savings for this metric.
        """
        from balbench.reports.savings_table import savings_table

        table = savings_table(self, metric)
        index = ["setting", "split", "policy"] if table["setting"].any() else ["split", "policy"]
        table["labels"] = table["n_policy"].astype(float).round().astype("Int64")
        table["final"] = table["final_level"].astype(float).round(4)
        table["p"] = table["p_adjusted"].astype(float).round(4)
        table[["savings", "low", "high"]] = table[["savings", "low", "high"]].astype(float).round(3)
        return table.set_index(index)[["savings", "low", "high", "p", "labels", "final", "outcome"]]

    def savings_at_levels(
        self, policy: str, split: str = "test", metric: str = "log_likelihood", setting: str | None = None
    ) -> pd.DataFrame:
        """Return the savings of a policy at every level of the reference, with a simultaneous band.

        Args:
            policy: label of the policy.
            split: test or ood.
            metric: log_likelihood, accuracy or brier.
            setting: values of the study's grid, as in `curves["setting"]`; by default the first.

        Returns:
            The frame of `balbench.reports.savings_curve.savings_curve`.

        Raises:
            BalbenchError: the run has no such curves.
        """
        from balbench.reports.curves import Curves, chosen
        from balbench.reports.savings_curve import savings_curve

        values = {"policy": policy, "split": split, "metric": metric, "setting": setting}
        setting = [chosen(name, value, self.curves[name]) for name, value in values.items()][-1]
        curves = Curves(self.curves)
        pair = curves.pair(setting, policy, self.reference, split, metric)
        if pair is None:
            raise BalbenchError(f"policy: {policy!r} and {self.reference!r} have no common round in {setting!r} yet")
        return savings_curve(*pair, metric)

    def labels_to(self, target: float, split: str = "test", metric: str = "log_likelihood") -> pd.DataFrame:
        """Return the number of labels with which each policy reaches a value of the metric.

        Args:
            target: a value of the metric, in its own unit.
            split: test or ood.
            metric: log_likelihood, accuracy or brier.

        Returns:
            One row for each setting and policy: `labels` and the ends `low` and `high` of its 95% interval over seeds.
            0 means fewer labels than the first round has, infinity more than the last round has.

        Raises:
            BalbenchError: the run has no such curves, the metric has no direction, or the target is not in its range.
        """
        import pandas as pd

        from balbench.reports.curves import Curves, chosen
        from balbench.reports.savings_curve import labels_to

        chosen("split", split, self.curves["split"])
        chosen("metric", metric, self.curves["metric"])
        curves = Curves(self.curves)
        rows = [
            (setting, policy, *labels_to(curve, target, metric))
            for setting in curves.settings
            for policy in self.policies
            if (curve := curves.curve(setting, policy, split, metric)) is not None
        ]
        return pd.DataFrame(rows, columns=["setting", "policy", "labels", "low", "high"])

    def plot(self, split: str = "test", metric: str = "log_likelihood", setting: str | None = None) -> Figure:
        """Draw the learning curves of all policies.

        Args:
            split: a split of `curves`, such as test, ood or eval; the figure shows savings on test and ood only.
            metric: any metric of `curves`, such as log_likelihood, accuracy, brier or ece.
            setting: values of the study's grid, as in `curves["setting"]`; by default the first.

        Raises:
            BalbenchError: the run has no such curves.
        """
        from balbench.reports.figures.plot import plot

        return plot(self, split, metric, setting)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the HTML report with its figures and tables, and return the path of the page.

        Args:
            out: directory of the report, by default `report` in the run directory.

        Raises:
            BalbenchError: the directory cannot be written, or is no path.
        """
        from balbench.reports.analysis import analyse
        from balbench.reports.page import write_report

        return write_report(analyse([self]), self.path / "report" if out is None else as_path("out", out))

    def __repr__(self) -> str:
        cells = self.cells
        finished = int((cells["state"] == "finished").sum())
        rounds, total = int(cells["rounds_done"].sum()), int(cells["rounds"].sum())
        failed = f", {len(self.failed)} failed" if len(self.failed) else ""
        return (
            f"Run {self.name!r} in {self.path}: {finished} of {len(cells)} cells finished{failed}, "
            f"{rounds} of {total} rounds; policies {', '.join(self.policies)}; reference {self.reference}"
        )

    def _repr_html_(self) -> str:
        """Return the summary and the label savings for notebooks."""
        return f"<p>{html.escape(repr(self))}</p>{self.savings().to_html(na_rep='-')}"


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run directory, finished or not.

    Raises:
        BalbenchError: the path is no path, the directory has no run, or a file of the run is damaged.
    """
    return as_api_run(results.read_run(as_path("path", path)))


def opened(run: str | Path | results.Run) -> results.Run:
    """Return a run that a caller gave as a run, or as its directory.

    Raises:
        BalbenchError: the argument is neither, or the directory cannot be read.
    """
    if isinstance(run, results.Run):
        return run
    if isinstance(run, (str, os.PathLike)):
        return read_run(run)
    raise BalbenchError(
        f"run: must be a run or its directory, not {shortened(repr(run))}; give balbench.read_run(PATH)"
    )


def as_api_run(run: results.Run) -> Run:
    """Return a run with its absolute path, which stays valid when the working directory changes."""
    values = {field.name: getattr(run, field.name) for field in fields(run)}
    return Run(**(values | {"path": run.path.absolute()}))
