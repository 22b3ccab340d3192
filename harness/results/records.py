"""The records in the JSON files of a run directory."""

# This module has no `from __future__ import annotations`, because typing then ignores NotRequired at run time.
from collections.abc import Mapping
from typing import Any, NamedTuple, NotRequired, TypedDict, get_args, get_origin

import numpy as np

Metrics = dict[str, dict[str, float]]  # by split and name
Lines = dict[str, Metrics]  # by the name of a reference line

# Keys of a record's metrics that describe the choice of its batch, not a split.
ACQUISITION = ("pool", "batch")

DATA_FACTS = "data.json"  # written last, so a directory with this file is complete


class PredictionsRow(TypedDict):
    """The part of a round's line that describes the round's row of predictions.f16.

    Attributes:
        pairs: number of pairs of each split, in the order of the row.
        sha256: first 16 digits of the hash of the row's bytes.
    """

    pairs: dict[str, int]
    sha256: str


class RoundRecord(TypedDict):
    """A line of rounds.jsonl.

    Attributes:
        round: number of the round, from 0.
        labels: number of labels to which the posterior was fitted.
        metrics: values by split and name.
        acquired: pairs of the pool acquired after the fit, in order; empty in the last round.
        predictions: the round's row of predictions.f16; the log adds this key when it writes the line.
    """

    round: int
    labels: int
    metrics: Metrics
    acquired: list[int]
    predictions: NotRequired[PredictionsRow]


class RoundTimings(TypedDict):
    """A line of timings.jsonl: the seconds of each stage of a round."""

    round: int
    seconds: dict[str, float]


class FinishedRound(NamedTuple):
    """All that a round leaves in the log of its cell.

    Attributes:
        record: the line of rounds.jsonl.
        timings: the line of timings.jsonl.
        logits: float16 logits (N,) of the predicted P(first preferred) of the pairs of each split; None to store none.
    """

    record: RoundRecord
    timings: RoundTimings
    logits: dict[str, np.ndarray] | None = None


class CellFacts(TypedDict):
    """cell.json: facts about a cell at its start.

    Attributes:
        key: hash of all that determines the result.
        sources: hash of the source of each plug-in, by kind and name.
        code: hash of the code of balbench if it runs from its source tree, "" if balbench is installed.
    """

    key: str
    sources: dict[str, str]
    code: str


class Manifest(TypedDict):
    """manifest.json: the cell is finished.

    Attributes:
        rounds: number of finished rounds.
        sha256: hash of rounds.jsonl, whose lines have the hashes of the rows of predictions.f16.
        machine: device and versions of the last rounds; results are byte-identical only if these are equal.
        copied_from: the directory of the original cell, if the rounds were copied from another run.
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
    """The entry of a cell in study.json.

    Attributes:
        setting: the grid's values, "" without a grid.
        policy: label of the policy.
        key: hash of everything that determines the result.
        keys: hashes of the data set, of everything that the policies of a setting share, and of the policy.
        directory: name of the cell's directory.
        rounds: number of rounds to run.
        full_data: whether the policy acquires the whole pool at once.
        settings: name and settings of the policy, and the name of its own posterior if it has one.
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
    """data.json of a data set in the cache: facts about the data, without arrays.

    Attributes:
        kind: name of the data set's class.
        pairs: number of pairs of each split.
        responses: number of responses of the pool.
        prompts: number of prompts of the pool.
        dimension: length of a response's features.
        pair_ids: hash of the identifiers of the pool's pairs, in order.
        lines: reference lines.
        facts: plain values from the data set, for example the numbers of rows and pairs.
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
        cache: name of the directory of the arrays in the cache.
        sources: setting, path and hash of each data file.
    """

    cache: str
    sources: list[list[str]]


def up_to(records: list[RoundRecord], rounds: int) -> list[RoundRecord]:
    """Return the records of a cell cut to `rounds` rounds; the last round then acquires nothing."""
    if len(records) < rounds:
        return records
    *before, last = records[:rounds]
    return [*before, _without_acquisition(last)]


def _without_acquisition(record: RoundRecord) -> RoundRecord:
    metrics = {name: values for name, values in record["metrics"].items() if name not in ACQUISITION}
    return {**record, "metrics": metrics, "acquired": []}


def lacks(value: Any, record: type) -> bool:
    """Return whether a value is not a mapping with the required keys of a record, or a key has another type."""
    required: frozenset[str] = getattr(record, "__required_keys__")  # noqa: B009  (mypy does not know it)
    if not (isinstance(value, Mapping) and value.keys() >= required):
        return True
    return not all(_is_of(value[key], record.__annotations__[key]) for key in required)


def _is_of(value: Any, kind: Any) -> bool:
    """Return whether a value has a type; of a mapping of mappings, the inner mappings are checked too."""
    if not isinstance(value, get_origin(kind) or kind):
        return False
    inner = get_args(kind)[1] if get_origin(kind) is dict else None
    return get_origin(inner) is not dict or all(isinstance(part, dict) for part in value.values())
