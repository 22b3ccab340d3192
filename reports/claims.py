"""Claims of papers about label savings, beside what a run measured.

A claim is judged twice: by the rule of its paper (where that is the formula of Melo et al. 2024) and by the interval of
the label savings. By the interval, a claim

- of a share saved holds if labels were saved and the interval does not end below that share; it does not hold if the
  whole interval is below that share;
- of savings without a number holds if labels were saved, and does not hold if the whole interval is at or below zero;
- of no more than a share saved holds if the whole interval is at or below that share, and does not hold if the whole
  interval is above it.

Everything else is "cannot say", with the reason: another data set, a policy that did not run, no level, too wide an
interval.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from balbench.reports.savings import Outcome
from balbench.reports.savings_table import METRICS, records, savings_tables
from balbench.reports.wording import interval_words, metric_name, percent

if TYPE_CHECKING:
    from balbench.harness.results import Run

ANY_DATASET = "any"
COLUMNS = [
    *["claim", "paper", "source", "says", "setting", "split", "policy", "savings", "low", "high", "outcome", "verdict"],
    *["why", "melo2024", "paper_verdict", "paper_why"],
]
_REASONS = {
    Outcome.NO_RESULTS: "no results yet",
    Outcome.NO_LEVEL: "the reference gives no level",
    Outcome.NO_INTERVAL: "too few seeds for an interval",
}


class Verdict(StrEnum):
    """Whether a claim holds in a run."""

    HOLDS = "holds"
    FAILS = "does not hold"
    UNKNOWN = "cannot say"


class Paper(BaseModel):
    """A paper: its title with authors, and its number on arXiv."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    arxiv: str = Field(pattern=r"^\d{4}\.\d{4,5}$")

    @property
    def citation(self) -> str:
        """The paper in one line."""
        return f"{self.title}, arXiv {self.arxiv}"


class ClaimedDataset(BaseModel):
    """The data set of a claim.

    Attributes:
        title: its name in reasons.
        settings: words by setting of a study's data set; each setting must contain one of its words. The setting `file`
            means `path` or `file`. Upper and lower case are the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    settings: dict[str, list[str]] = Field(min_length=1)

    def matches(self, settings: Mapping[str, Any]) -> bool:
        """Return whether a study has this data set."""
        settings = {**settings, "file": settings.get("path") or settings.get("file")}
        return all(
            any(word.lower() in str(settings.get(key) or "").lower() for word in words)
            for key, words in self.settings.items()
        )


class Claim(BaseModel):
    """A claim of a paper.

    Attributes:
        id: a name that no other claim has.
        paper: key of the paper.
        source: figure, table or section.
        says: the claim in one sentence.
        policy, reference: `name` of each, and the settings without which the claim does not apply.
        dataset: key of a data set; `any` if the paper claims its result in general.
        splits: the splits that the claim is about.
        metric: the metric that the claim is about; only those of `savings_table` can be judged.
        rule: melo2024 if the paper's number comes from that formula.
        saves: the claimed share of labels saved.
        at_most: the claimed upper limit of the share saved. Without `saves` and `at_most`, the claim is that labels are
            saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    paper: str
    source: str
    says: str
    policy: dict[str, Any]
    reference: dict[str, Any] = {"name": "random"}
    dataset: str = ANY_DATASET
    splits: list[Literal["test", "ood"]] = Field(default=["test"], min_length=1)
    metric: str = "log_likelihood"
    rule: Literal["melo2024", "other"] = "other"
    saves: float | None = Field(None, gt=0, lt=1)
    at_most: float | None = Field(None, ge=0, lt=1)


class Claims(BaseModel):
    """A file of claims, with the papers and data sets that it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    papers: dict[str, Paper]
    datasets: dict[str, ClaimedDataset] = {}
    claims: list[Claim] = Field(min_length=1)


def compare(claims: Claims, run: Run, known: Collection[str] = ()) -> pd.DataFrame:
    """Compare claims with a run.

    Args:
        claims: the claims.
        run: from `balbench.harness.results.read_run`.
        known: names of policies. The reason of a claim about another name has the most similar of these, if any is.

    Returns:
        One row for each claim, setting, split and policy of the run that the claim is about; one row with an empty
        policy if there is no such policy. `says` and `source` quote the claim. `savings`, `low`, `high` and `outcome`
        are those of `savings_table`; `verdict` judges the claim by them and `why` gives the reason. `melo2024` is the
        number by the paper's formula; `paper_verdict` and `paper_why` judge the claim by that number.
    """
    metrics = [metric for metric in METRICS if metric in {claim.metric for claim in claims.claims}]
    tables = savings_tables(run, metrics)
    rows = [row for claim in claims.claims for row in _claim_rows(claim, claims, run, tables, known)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _claim_rows(
    claim: Claim, claims: Claims, run: Run, tables: Mapping[str, pd.DataFrame], known: Collection[str]
) -> Iterator[dict[str, Any]]:
    quoted = {"claim": claim.id, "paper": claim.paper, "source": claim.source, "says": claim.says}
    reason = _not_measured(claim, run, known)
    rows = [] if reason else _measured(claim, run, tables[claim.metric])
    another = _another_dataset(claim, claims, run)
    if not rows:
        missing = reason or f"the run has no results on {' and '.join(claim.splits)} yet"
        yield quoted | _without_row(claim, f"{another}; {missing}" if another else missing)
    for row in rows:
        verdict, why = judged(claim, row)
        paper_verdict, paper_why = judged_by_melo2024(claim, row)
        if another:
            verdict, why = Verdict.UNKNOWN, f"{another} (on this data set: {verdict}, {why})"
            paper_verdict, paper_why = Verdict.UNKNOWN, f"{another} (on this data set: {paper_verdict}, {paper_why})"
        yield (
            quoted
            | {name: row[name] for name in COLUMNS if name in row}
            | {
                "verdict": verdict,
                "why": why,
                "paper_verdict": paper_verdict,
                "paper_why": paper_why,
            }
        )


def _without_row(claim: Claim, reason: str) -> dict[str, Any]:
    numbers = dict.fromkeys(["savings", "low", "high", "melo2024"], math.nan)
    verdicts = {"verdict": Verdict.UNKNOWN, "why": reason, "paper_verdict": Verdict.UNKNOWN, "paper_why": reason}
    return {"setting": "", "split": ", ".join(claim.splits), "policy": "", "outcome": ""} | numbers | verdicts


def _another_dataset(claim: Claim, claims: Claims, run: Run) -> str:
    """Return why the claim is not about the data set of the run; empty if it is."""
    if claim.dataset == ANY_DATASET:
        return ""
    dataset = claims.datasets[claim.dataset]
    if any(key.split(".")[0] == "dataset" for key in run.study.get("grid", {})):
        return f"the grid varies the data set; the claim is about {dataset.title}"
    return "" if dataset.matches(run.study["dataset"]) else f"another data set; the claim is about {dataset.title}"


def _not_measured(claim: Claim, run: Run, known: Collection[str]) -> str:
    """Return why the run does not measure what the claim is about; empty if it does."""
    if claim.metric not in METRICS:
        return f"the claim is about {metric_name(claim.metric)}, which runs do not measure"
    if not any(_is(settings, claim.policy) for settings in run.policy_settings.values()):
        return f"the policy {_named(claim.policy)} is not in the run{_suggestion(str(claim.policy['name']), known)}"
    if not _is(run.policy_settings.get(run.reference, {}), claim.reference):
        return f"the run measures against {run.reference}; set `reference` to {_named(claim.reference)}"
    return ""


def _measured(claim: Claim, run: Run, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of the savings table that the claim is about."""
    labels = [label for label in run.policies if _is(run.policy_settings.get(label, {}), claim.policy)]
    return records(table[table["policy"].isin(labels) & table["split"].isin(claim.splits) & ~table["is_reference"]])


def _is(settings: Mapping[str, Any], claimed: Mapping[str, Any]) -> bool:
    return all(settings.get(key) == value for key, value in claimed.items())


def _suggestion(name: str, known: Collection[str]) -> str:
    near = [] if name in known else get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _named(policy: Mapping[str, Any]) -> str:
    others = ", ".join(f"{key} {value}" for key, value in policy.items() if key != "name")
    return f"{policy['name']} ({others})" if others else str(policy["name"])


def judged(claim: Claim, row: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Judge a claim by the interval of the label savings.

    Args:
        claim: the claim.
        row: a row of `savings_table`.

    Returns:
        The verdict, and the reason.
    """
    if row["outcome"] in _REASONS:
        return Verdict.UNKNOWN, _REASONS[row["outcome"]]
    low, high = _end(row, "low", -math.inf), _end(row, "high", math.inf)
    words = interval_words(row)
    if claim.at_most is not None:
        return _decided(high <= claim.at_most, low > claim.at_most, words)
    saved, share = row["outcome"] == Outcome.SAVED, claim.saves or 0.0
    fails = high < share or row["outcome"] == Outcome.LOST or high <= 0
    return _decided(saved and not fails, fails, words)


def judged_by_melo2024(claim: Claim, row: Mapping[str, Any]) -> tuple[Verdict, str]:
    """Judge a claim by the formula of Melo et al. 2024, rounded to the per cent (arguments as in `judged`)."""
    value = row["melo2024"]
    if claim.rule != "melo2024":
        return Verdict.UNKNOWN, "the paper has another rule, or none"
    if not math.isfinite(value):
        return Verdict.UNKNOWN, _REASONS.get(row["outcome"], "the formula gives no number")
    if value == 1:
        return Verdict.UNKNOWN, "the formula gives 100%, as it does where a policy never exceeds the level"
    share, words = round(value, 2), f"the formula gives {percent(value)}%"
    if claim.at_most is not None:
        return _decided(share <= claim.at_most, share > claim.at_most, words)
    holds = share >= claim.saves if claim.saves is not None else share > 0
    return _decided(holds, not holds, words)


def _decided(holds: bool, fails: bool, words: str) -> tuple[Verdict, str]:
    if holds:
        return Verdict.HOLDS, words
    return (Verdict.FAILS, words) if fails else (Verdict.UNKNOWN, f"too uncertain: {words}")


def _end(row: Mapping[str, Any], end: str, unknown: float) -> float:
    """Return an end of the interval: the number, a bound that the end does not exceed, or `unknown`."""
    if end == "high" and row.get("high_kind") == "at_least":
        return unknown
    value = row[end] if math.isfinite(row[end]) or end == "low" else row.get("high_bound", math.nan)
    return value if math.isfinite(value) else unknown
