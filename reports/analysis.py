"""The analysis of a run that its report, its tables and the terminal share: each number is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from balbench.harness.errors import BalbenchError
from balbench.reports.curves import Curves, check_run
from balbench.reports.files import significant
from balbench.reports.posterior_verdicts import PosteriorVerdicts, posterior_verdicts
from balbench.reports.run_scores import RunScores
from balbench.reports.savings_table import METRICS, SPLITS, records, report_curves, rows_of, savings_tables
from balbench.reports.specification import SpecificationCheck, check_specification
from balbench.reports.statement import fault_texts, statement
from balbench.reports.training import training_faults
from balbench.reports.wording import savings_text

if TYPE_CHECKING:
    from balbench.harness.results import Run


@dataclass(frozen=True)
class Analysis:
    """A run, its name in the report, and its savings.

    Attributes:
        run: from `balbench.harness.results.read_run`.
        name: distinct among the runs of a report (see `analyse`).
    """

    run: Run
    name: str

    @cached_property
    def curves(self) -> Curves:
        """The curves of the run's savings and figures."""
        return report_curves(self.run)

    @cached_property
    def scores(self) -> RunScores:
        """The run's predictions of single held-out pairs."""
        return RunScores(self.run)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The `savings_table` of each metric that the run has."""
        tables = savings_tables(self.run, METRICS, self.curves, self.scores)
        return {metric: table for metric, table in tables.items() if len(table)}

    @cached_property
    def leading_table(self) -> pd.DataFrame | None:
        """The table of the first metric that the run has; None without results."""
        return next(iter(self.tables.values()), None)

    @cached_property
    def faults(self) -> list[str]:
        """Faults of training as sentences with remedies."""
        faults = [
            fault
            for setting in self.curves.settings
            for fault in training_faults(self.curves, setting, self.run.policies, list(SPLITS))
        ]
        return fault_texts(faults, len(self.curves.settings))

    @cached_property
    def specification(self) -> SpecificationCheck:
        """Whether the reward model fits near and far pairs alike."""
        return check_specification(self.run, self.scores)

    @cached_property
    def posterior_verdicts(self) -> list[PosteriorVerdicts]:
        """The outcomes under several posteriors side by side; empty with one posterior."""
        return [] if self.leading_table is None else posterior_verdicts(self.run, self.leading_table)

    @property
    def warnings(self) -> list[str]:
        """Sentences about what confounds the savings (faults of training, misfits of the reward model), and damages."""
        return [*self.faults, *self.specification.texts, *self.damages]

    @property
    def damages(self) -> list[str]:
        """Sentences about damaged files of held-out pairs, without which parts of the report are missing."""
        _ = self.tables, self.specification  # they read the files
        return self.scores.warnings

    def rows(self, setting: str, split: str, metric: str) -> pd.DataFrame:
        """Return the rows of `tables` of one setting, split and metric."""
        return rows_of(self.tables[metric], setting, split)

    def records(self) -> list[dict[str, Any]]:
        """Return the results for a JSON file: one record for each setting, split and metric."""
        return [
            {
                "run": self.name,
                "setting": setting,
                "split": split,
                "metric": metric,
                "statement": statement(rows),
                "policies": _json_rows(rows),
            }
            for metric in self.tables
            for setting in self.curves.settings
            for split in SPLITS
            if len(rows := self.rows(setting, split, metric))
        ]


def analyse(runs: Sequence[Run]) -> list[Analysis]:
    """Analyse runs. A name is that of the study; where studies have the same name, the directory is added.

    Raises:
        BalbenchError: there is no run, one of them is no run, or a directory occurs twice.
    """
    if not runs:
        raise BalbenchError("runs: there are none to report on; give at least one run directory")
    for run in runs:
        check_run(run)
    paths = [run.path.resolve() for run in runs]
    if repeated := next((path for path in paths if paths.count(path) > 1), None):
        raise BalbenchError(f"runs: {repeated} is given twice; give each run directory once")
    names = [run.name for run in runs]
    namesakes = {name: [path for path, other in zip(paths, names, strict=True) if other == name] for name in names}
    return [Analysis(run, _name(run.name, path, namesakes[run.name])) for run, path in zip(runs, paths, strict=True)]


def _name(name: str, path: Path, paths: list[Path]) -> str:
    """Return the name of a study; if several paths have this name, add the shortest end that no other path has."""
    if len(paths) == 1:
        return name
    for length in range(1, len(path.parts)):
        if sum(other.parts[-length:] == path.parts[-length:] for other in paths) == 1:
            return f"{name} ({'/'.join(path.parts[-length:])})"
    return f"{name} ({path})"


_JSON_COLUMNS = [
    *["policy", "outcome", "no_level", "seeds", "reference_seeds", "savings", "low", "high", "p_value", "p_adjusted"],
    *["pairs_low", "pairs_high", "budget", "budget_gain", "resolution", "final_level", "area_difference"],
]


def _json_rows(rows: pd.DataFrame) -> list[dict[str, Any]]:
    kept = rows[_JSON_COLUMNS]
    kept = significant(kept.assign(text=[savings_text(row) for row in records(rows)]))
    return records(kept.astype(object).where(kept.notna(), None))
