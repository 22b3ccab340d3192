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
        code: hash of the code of balbench where that runs from its source tree, "" where balbench is installed.
    """

    key: str
    sources: dict[str, str]
    code: str


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
    """data.json of a data set in the cache: what is worth knowing of the data without the arrays.

    Attributes:
        kind: name of the data set's class.
        pairs: number of pairs of each split.
        responses: number of responses of the pool.
        prompts: number of prompts of the pool.
        dimension: length of a response's features.
        pair_ids: hash of the names of the pool's pairs, in order.
        lines: reference lines.
        facts: plain values that the data set gives, for example how many rows became how many pairs.
        warnings: lines about the data, each with its remedy.
        files: names of all files of the data set.
    """

    kind: str
    pairs: dict[str, int]
    responses: int
    prompts: int
    dimension: int
    pair_ids: str
    lines: Lines
    facts: dict[str, Any]
    warnings: list[str]
    files: list[str]


class RunData(DataFacts):
    """data.json of a run: the facts of one of its data sets.

    Attributes:
        cache: name of the directory with the arrays, in the cache of the machine.
        sources: setting, path and hash of each data file.
    """

    cache: str
    sources: list[list[str]]


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
