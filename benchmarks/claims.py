"""`balbench claims`: the claims of papers in claims.yaml, beside what a run measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from balbench.harness import results
from balbench.harness.errors import StudyError
from balbench.harness.files import as_path
from balbench.harness.registry import names, nearest
from balbench.harness.study.settings import validated
from balbench.harness.study.yaml_file import plain, read_yaml
from balbench.reports.claims import ANY_DATASET, Claim, ClaimedDataset, Claims, Paper, Verdict, compare
from balbench.reports.savings import Outcome
from balbench.reports.wording import NOTHING, percent, split_name
from balbench.run import opened

if TYPE_CHECKING:
    import pandas as pd

SHIPPED_CLAIMS = Path(__file__).with_name("claims.yaml")
_STYLES = {Verdict.HOLDS: "green", Verdict.FAILS: "red", Verdict.UNKNOWN: ""}
REQUIREMENTS = {
    "papers": "must be a mapping of papers",
    "datasets": "must be a mapping of data sets",
    "claims": "must be a list of one or more claims",
    "claims.*": "must be a mapping with id, paper, says and others",
}
PAPER_REQUIREMENTS = {"arxiv": "must be a number of arXiv in quotes, such as '2406.10023'; quote it"}


class _File(BaseModel):
    """The parts of a file of claims, whose entries are checked one by one."""

    model_config = ConfigDict(extra="forbid")

    papers: dict[str, dict[str, Any]]
    datasets: dict[str, dict[str, Any]] = {}
    claims: list[dict[str, Any]] = Field(min_length=1)


def claims(run: str | Path | results.Run, file: str | Path | None = None) -> pd.DataFrame:
    """Compare the claims of papers with what a run measured.

    Args:
        run: a run, or its directory.
        file: a YAML file of claims (see docs/claims.md); by default the file that comes with balbench.

    Returns:
        One row for each claim, setting, split and policy that the claim is about (see `reports.claims.compare`).

    Raises:
        BalbenchError: the run or the file cannot be read, or a claim is invalid.
    """
    return compared(read_claims(SHIPPED_CLAIMS if file is None else as_path("file", file)), opened(run))


def compared(checked: Claims, run: results.Run) -> pd.DataFrame:
    """Compare claims with a run; a claim about a policy that is not known gets the most similar name."""
    return compare(checked, run, names("policies"))


def read_claims(path: str | Path) -> Claims:
    """Read and check a file of claims.

    Raises:
        StudyError: the file cannot be read, or an entry is wrong; the message names file, key and remedy.
    """
    path, source = Path(path), str(path)
    raw = plain(read_yaml(path, "give a file of claims", "papers, datasets, claims"), source)
    file: _File = validated(_File, raw, source, requirements=REQUIREMENTS)
    checked = Claims(
        papers={
            key: validated(Paper, entry, source, f"papers.{key}", requirements=PAPER_REQUIREMENTS)
            for key, entry in file.papers.items()
        },
        datasets={
            key: validated(ClaimedDataset, entry, source, f"datasets.{key}") for key, entry in file.datasets.items()
        },
        claims=[validated(Claim, entry, source, f"claims.{number}") for number, entry in enumerate(file.claims)],
    )
    _check_names(checked, source)
    return checked


def _check_names(checked: Claims, source: str) -> None:
    """Check what single entries do not show: names that other parts of the file define, and repeated ones."""
    ids: set[str] = set()
    for number, claim in enumerate(checked.claims):
        here = f"{source}: claims.{number}"
        if claim.id in ids:
            raise StudyError(f"{here}.id: {claim.id!r} occurs twice; give another id")
        ids.add(claim.id)
        if claim.paper not in checked.papers:
            raise StudyError(f"{here}.paper: no {claim.paper!r} in papers; {nearest(claim.paper, [*checked.papers])}")
        if claim.dataset not in (known := [*checked.datasets, ANY_DATASET]):
            raise StudyError(f"{here}.dataset: no {claim.dataset!r} in datasets; {nearest(claim.dataset, known)}")
        if claim.saves is not None and claim.at_most is not None:
            raise StudyError(f"{here}: has saves and at_most; remove one")
        for key in ("policy", "reference"):
            if not isinstance(getattr(claim, key).get("name"), str):
                raise StudyError(f"{here}.{key}: has no name; write it as {{name: bal_pm}}")


def claims_parts(checked: Claims, compared: pd.DataFrame) -> Iterator[RenderableType]:
    """Yield a table for each paper: what it claims, what the run measured, and the verdicts."""
    for key, paper in checked.papers.items():
        rows = compared[compared["paper"] == key]
        if not len(rows):
            continue
        table = Table(title=escape(paper.citation), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, expand=True)
        table.add_column("claim", overflow="fold", ratio=3)
        table.add_column("measured", overflow="fold", ratio=2)
        table.add_column("verdict", overflow="fold", ratio=3)
        last = ""
        for row in rows.to_dict("records"):
            says = f"{row['says']} ({row['source']})" if row["claim"] != last else ""
            last = row["claim"]
            table.add_row(escape(says), escape(_measured(row)), escape(_verdicts(row)), style=_STYLES[row["verdict"]])
        yield table


def _measured(row: Mapping[Any, Any]) -> str:
    """Describe the numbers of a row: those of the interval, then that of the paper's formula."""
    if not row["policy"]:
        return NOTHING
    where = ", ".join(filter(None, [row["policy"], split_name(row["split"]), row["setting"]]))
    numbers = [f"{_savings(row)}"]
    if math.isfinite(row["melo2024"]):
        numbers.append(f"{percent(row['melo2024'])}% by the paper's formula")
    return f"{where}: {', '.join(numbers)}"


def _savings(row: Mapping[Any, Any]) -> str:
    if row["outcome"] in (Outcome.NO_LEVEL, Outcome.NO_RESULTS):
        return str(row["outcome"])
    number = f"{percent(row['savings'])}%" if math.isfinite(row["savings"]) else "not reached"
    ends = [percent(row[end]) if math.isfinite(row[end]) else "?" for end in ("low", "high")]
    return f"{number} [{', '.join(ends)}]"


def _verdicts(row: Mapping[Any, Any]) -> str:
    """Describe both verdicts, or one if the paper's formula adds nothing."""
    ours = f"{row['verdict']}: {row['why']}"
    adds = row["paper_verdict"] != row["verdict"] and row["paper_verdict"] != Verdict.UNKNOWN
    return f"{ours}; by the paper's formula: {row['paper_verdict']}" if adds else ours
