"""Verdicts under several posteriors side by side: savings that turn with the posterior are not the policy's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from balbench.reports.savings import Outcome
from balbench.reports.savings_table import SPLITS, records
from balbench.reports.wording import savings_text, split_name

if TYPE_CHECKING:
    from balbench.harness.results import Run

_CLAIMS = (Outcome.SAVED, Outcome.LOST)


@dataclass(frozen=True)
class PosteriorVerdicts:
    """The savings of each policy under each posterior, on one split.

    Attributes:
        setting: the grid's values without the posterior; empty without a grid.
        split: name of the split.
        posteriors: labels of the posteriors.
        rows: for each policy its label, the texts of its savings under each posterior, and the verdict.
    """

    setting: str
    split: str
    posteriors: list[str]
    rows: list[tuple[str, list[str], str]]

    @property
    def title(self) -> str:
        """A title for a table."""
        return ", ".join(filter(None, ["Savings under each posterior", split_name(self.split), self.setting]))


def posterior_verdicts(run: Run, table: pd.DataFrame) -> list[PosteriorVerdicts]:
    """Compare the outcomes under the posteriors that a study lists in `posteriors`.

    Args:
        run: the run.
        table: a `savings_table` of the run.

    Returns:
        One comparison for each setting and split; empty unless the study has several posteriors.
    """
    posteriors = list(run.study.get("posteriors") or {})
    if len(posteriors) < 2:
        return []
    return list(_verdicts(run, table, posteriors))


def _verdicts(run: Run, table: pd.DataFrame, posteriors: list[str]) -> Iterator[PosteriorVerdicts]:
    by_key = {(row["setting"], row["split"], row["policy"]): row for row in records(table)}
    first = f"posterior={posteriors[0]}"
    rests = [setting.removeprefix(first) for setting in table["setting"].unique() if setting.startswith(first)]
    for rest in rests:
        settings = [f"posterior={posterior}{rest}" for posterior in posteriors]
        for split in SPLITS:
            rows = []
            for policy in run.policies:
                compared = [by_key.get((setting, split, policy)) for setting in settings]
                known = {name: row for name, row in zip(posteriors, compared, strict=True) if row is not None}
                if policy != run.reference and len(known) == len(posteriors):
                    rows.append((policy, [savings_text(row) for row in known.values()], verdict(known)))
            if rows:
                yield PosteriorVerdicts(rest.removeprefix(", "), split, posteriors, rows)


def verdict(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Say whether a policy's outcome depends on the posterior.

    Args:
        rows: the row of `savings_table` under each posterior.

    Returns:
        "depends on the posterior" where one outcome is saved and another is lost; "saved" or "lost" where all outcomes
        agree; "saved under ensemble only" where it is unclear under the others; "unclear" and "no level" otherwise.
    """
    outcomes = {name: row["outcome"] for name, row in rows.items()}
    claims = {outcome for outcome in outcomes.values() if outcome in _CLAIMS}
    if len(claims) > 1:
        return "depends on the posterior"
    if not claims:
        return str(Outcome.UNCLEAR if Outcome.UNCLEAR in outcomes.values() else next(iter(outcomes.values())))
    claim = claims.pop()
    under = [name for name, outcome in outcomes.items() if outcome == claim]
    return str(claim) if len(under) == len(outcomes) else f"{claim} under {', '.join(under)} only"
