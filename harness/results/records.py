"""The records that a run directory holds, as they are in its JSON files."""

# Without `from __future__ import annotations`, under which typing does not see NotRequired.
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

Metrics = dict[str, dict[str, float]]  # by split and name
Lines = dict[str, Metrics]  # by the name of a reference line

# What a record says of the choice of its batch, in place of a split.
ACQUISITION = ("pool", "batch")


class RoundRecord(TypedDict):
    """A line of rounds.jsonl.

    Attributes:
        round: from 0.
        labels: number of labels that the posterior was fitted to.
        metrics: by split, and name.
        acquired: pairs of the pool bought after the fit, in order; empty in the last round.
    """

    round: int
    labels: int
    metrics: Metrics
    acquired: list[int]


class RoundTimings(TypedDict):
    """A line of timings.jsonl: the seconds of each stage of a round."""

    round: int
    seconds: dict[str, float]


class CellFacts(TypedDict):
    """cell.json: what a cell was started with.

    Attributes:
        key: hash of all that determines the result.
        sources: hash of the source of each plug-in, by kind and name.
    """

    key: str
    sources: dict[str, str]


class Manifest(TypedDict):
    """manifest.json: the cell is finished.

    Attributes:
        rounds: how many rounds are finished.
        sha256: hash of rounds.jsonl.
        machine: device and versions of the last rounds; results are the same bytes only where these are the same.
        copied_from: the directory of the cell that was copied, where these rounds were not run here.
    """

    rounds: int
    sha256: str
    machine: dict[str, Any]
    copied_from: NotRequired[str]


class CellFailure(TypedDict):
    """failed.json: the reason in one line, and the traceback."""

    reason: str
    details: str


class CellHeader(TypedDict):
    """What study.json says of a cell.

    Attributes:
        setting: the grid's values, "" without a grid.
        policy: label of the policy.
        key: hash of all that determines the result.
        keys: hashes of the data set, of what all policies of the setting share, and of the policy.
        directory: name of the cell's directory.
        rounds: how many rounds to run.
        full_data: whether the policy buys the whole pool at once.
        settings: name and settings of the policy, and of its own posterior where it has one.
    """

    setting: str
    policy: str
    seed: int
    key: str
    keys: dict[str, str]
    directory: str
    rounds: int
    full_data: bool
    settings: dict[str, Any]


class StudyHeader(TypedDict):
    """study.json: the study, its cells, and the reference lines of each setting."""

    study: dict[str, Any]
    cells: list[CellHeader]
    lines: dict[str, Lines]


class DataFacts(TypedDict):
    """data.json: what is worth knowing of a data set without its arrays.

    Attributes:
        pairs: number of pairs of each split.
        responses, prompts: numbers of the pool.
        dimension: length of a response's features.
        lines: reference lines.
        files: names of all files of the data set.
    """

    pairs: dict[str, int]
    responses: int
    prompts: int
    dimension: int
    lines: Lines
    files: NotRequired[list[str]]


def up_to(records: list[RoundRecord], rounds: int) -> list[RoundRecord]:
    """The records of a cell as if it had been run for fewer rounds: the last round buys nothing."""
    if len(records) < rounds:
        return records
    *before, last = records[:rounds]
    return [*before, _without_acquisition(last)]


def _without_acquisition(record: RoundRecord) -> RoundRecord:
    metrics = {name: values for name, values in record["metrics"].items() if name not in ACQUISITION}
    return {**record, "metrics": metrics, "acquired": []}


def lacks(value: Any, record: type) -> bool:
    """Whether a value is no mapping with the required keys of a record."""
    required: frozenset[str] = getattr(record, "__required_keys__")  # noqa: B009  (mypy does not know it)
    return not (isinstance(value, Mapping) and value.keys() >= required)
