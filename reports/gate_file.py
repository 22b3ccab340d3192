"""The file of a baseline: JSON, small enough for a repository, checked completely when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from balbench.harness.errors import BalbenchError, shortened
from balbench.harness.files import check_directory
from balbench.reports.files import write_bytes
from balbench.reports.gate_records import PolicyRecord, Snapshot
from balbench.reports.savings_table import METRICS, SPLITS

VERSION = 1
KEY = "balbench_baseline"
_REMEDY = "make it again with `balbench baseline`"


def write_baseline(baseline: Snapshot, path: Path) -> Path:
    """Write a baseline.

    Raises:
        BalbenchError: the path cannot be written.
    """
    check_directory(path.parent)
    if path.is_dir():
        raise BalbenchError(f"out {path}: is a directory; name a file", setting="out")
    content = _as_json(baseline)
    content["sha256"] = _digest(content)
    lines = json.dumps(content, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return write_bytes(path, lines.encode() + b"\n")


def read_baseline(path: Path) -> Snapshot:
    """Read a baseline and check it.

    Raises:
        BalbenchError: the file cannot be read, is torn or changed, has another version, or has values that are missing
            or not finite.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_finite)
    except OSError as error:
        raise BalbenchError(f"{path}: cannot be read ({error.strerror}); give a file of `balbench baseline`") from None
    except (ValueError, RecursionError):
        raise BalbenchError(f"{path}: is torn, or no JSON file of finite numbers; {_REMEDY}") from None
    if not isinstance(content, dict) or KEY not in content:
        raise BalbenchError(f"{path}: is no baseline (it has no {KEY}); give a file of `balbench baseline`")
    if content[KEY] != VERSION:
        found = shortened(repr(content[KEY]))
        raise BalbenchError(f"{path}: has version {found} of baselines, this balbench reads {VERSION}; {_REMEDY}")
    if content.pop("sha256", None) != _digest(content):
        raise BalbenchError(f"{path}: was changed after it was written (its hash differs); {_REMEDY}")
    try:
        return _from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        raise BalbenchError(f"{path}: is damaged ({shortened(line)}); {_REMEDY}") from None


def world_hash(baseline: Snapshot) -> str:
    """Return the hash of the worlds of a snapshot, by setting, with the number of rounds."""
    worlds = {each.setting: [each.world, each.labels_ST.shape[1]] for each in baseline.records}
    return _digest(worlds)


def _as_json(baseline: Snapshot) -> dict[str, Any]:
    return {
        KEY: VERSION,
        "name": baseline.name,
        "world": world_hash(baseline),
        "reference": baseline.reference,
        "versions": baseline.versions,
        "machines": baseline.machines,
        "study": baseline.study,
        "policies": [_record_as_json(each) for each in baseline.records],
    }


def _record_as_json(record: PolicyRecord) -> dict[str, Any]:
    names = ("setting", "policy", "settings", "key", "world", "dataset", "sources")
    return {name: getattr(record, name) for name in names} | {
        "seeds": record.seeds_S.tolist(),
        "labels": record.labels_ST.tolist(),
        "metrics": {name: values_ST.tolist() for name, values_ST in record.metrics.items()},
        "picks": record.picks_ST,
        "seconds": None if record.seconds_ST is None else np.round(record.seconds_ST, 6).tolist(),
    }


def _from_json(content: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        name=str(content["name"]),
        reference=str(content["reference"]),
        study=dict(content["study"]),
        versions=dict(content["versions"]),
        machines=[dict(each) for each in content["machines"]],
        records=[_record_from_json(each) for each in content["policies"]],
    )


def _record_from_json(content: Mapping[str, Any]) -> PolicyRecord:
    seeds_S = np.array(content["seeds"], dtype=np.int64)
    labels_ST = np.array(content["labels"], dtype=float)
    metrics = {str(name): np.array(values, dtype=float) for name, values in content["metrics"].items()}
    seconds = content["seconds"]
    seconds_ST = None if seconds is None else np.array(seconds, dtype=float)
    shape, picks = (len(seeds_S), labels_ST.shape[-1]), [list(map(str, row)) for row in content["picks"]]
    arrays = [labels_ST, *metrics.values(), *([] if seconds_ST is None else [seconds_ST])]
    if not all(array.shape == shape for array in arrays) or {len(row) for row in picks} != {shape[1]}:
        raise ValueError(f"the arrays of {content['policy']} have different numbers of seeds or rounds")
    if len(np.unique(seeds_S)) != len(seeds_S) or len(picks) != len(seeds_S):
        raise ValueError(f"the seeds of {content['policy']} are not distinct")
    known = {f"{split}/{metric}{ending}" for split in SPLITS for metric in METRICS for ending in ("", "_se")}
    texts = {name: str(content[name]) for name in ("setting", "policy", "key", "world", "dataset")}
    return PolicyRecord(
        **texts,
        settings=dict(content["settings"]),
        sources=dict(content["sources"]),
        seeds_S=seeds_S,
        labels_ST=labels_ST,
        metrics={name: values_ST for name, values_ST in metrics.items() if name in known},
        picks_ST=picks,
        seconds_ST=seconds_ST,
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not finite")
