"""What is wrong with a line of rounds.jsonl or timings.jsonl: values that no run writes."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from balbench.harness.errors import shortened
from balbench.harness.results.records import ACQUISITION, RoundRecord, RoundTimings, lacks

LARGEST = sys.float_info.max
ROUNDING = 1e-6  # rounding of means can exceed a range by this much
NO_SPLITS = (*ACQUISITION, "fit")  # their numbers come from policies and posteriors, and may have any names
# The smallest and largest value of metrics on a split; the metrics that are not listed have no limits.
RANGES = {
    "log_likelihood": (-LARGEST, ROUNDING),
    **dict.fromkeys(("accuracy", "brier", "brier_chance", "ece"), (-ROUNDING, 1 + ROUNDING)),
    **dict.fromkeys(("log_likelihood_se", "accuracy_se", "brier_se"), (0.0, LARGEST)),
}
WRONG_FORM = "a key is missing or has the wrong type"


def round_fault(record: Any) -> str:
    """Return what is wrong with a parsed line of rounds.jsonl; empty if nothing is."""
    if lacks(record, RoundRecord):
        return WRONG_FORM
    if record["labels"] < 1:
        return f"labels is {record['labels']}"
    return (
        next(filter(None, (_metrics_fault(split, each) for split, each in record["metrics"].items())), "")
        or ("" if _are_counts(record["acquired"]) else "acquired has a value that is no index of a pair")
        or _predictions_fault(record)
    )


def timings_fault(timings: Any) -> str:
    """Return what is wrong with a parsed line of timings.jsonl; empty if nothing is."""
    return WRONG_FORM if lacks(timings, RoundTimings) else _number_fault("seconds", timings["seconds"])


def _metrics_fault(split: str, metrics: Mapping[str, Any]) -> str:
    if fault := _number_fault(split, metrics):
        return fault
    for name, (low, high) in RANGES.items() if split not in NO_SPLITS else ():
        if (value := metrics.get(name)) is not None and not low <= value <= high:
            return f"{split}.{name} is {value:g}"
    return ""


def _number_fault(group: str, numbers: Mapping[str, Any]) -> str:
    try:
        if math.isfinite(sum(numbers.values())):  # the usual case, at little cost
            return ""
    except (TypeError, OverflowError):
        pass
    for name, value in numbers.items():
        if not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
            return shortened(f"{group}.{name} is {value!r}")
    return ""


def _are_counts(numbers: Iterable[Any]) -> bool:
    try:
        array("Q", numbers)  # the fastest check of many numbers
    except (TypeError, OverflowError):
        return False
    return True


def _predictions_fault(record: Mapping[str, Any]) -> str:
    if "predictions" not in record:
        return ""
    row = record["predictions"]
    if isinstance(row, dict) and type(row.get("sha256")) is str and isinstance(pairs := row.get("pairs"), dict):
        return "" if _are_counts(pairs.values()) else "predictions.pairs has a value that is no number of pairs"
    return "predictions has the wrong form"
