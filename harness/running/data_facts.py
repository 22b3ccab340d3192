"""Facts about data sets that a run stores: counts and identifiers of pairs, without the arrays."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from balbench.harness.files import disk_errors, read_json, replacing, write_json
from balbench.harness.pool.distances import pair_distances
from balbench.harness.pool.feature_table import StreamedTable, can_stream, resident
from balbench.harness.pool.pairs import PreferenceData, Split
from balbench.harness.results import HeldOut
from balbench.harness.results.held_out import HELD_OUT, write_held_out
from balbench.harness.results.predictions import predicted_splits
from balbench.harness.results.records import DATA_FACTS, DataFacts, RunData

PAIR_IDS = "pair_ids.json.gz"


def facts_of(data: PreferenceData, kind: str, files: list[str]) -> DataFacts:
    """Return facts about a data set.

    Args:
        data: the data set.
        kind: name of the class of the data set.
        files: names of the files of the data set.
    """
    pool = data.splits["pool"].pairs
    return {
        "kind": kind,
        "pairs": {name: len(split.pairs) for name, split in data.splits.items()},
        "responses": len(pool.response_features_RD),
        "prompts": len(pool.prompt_features_PQ),
        "dimension": pool.response_features_RD.shape[1],
        "pair_ids": hashlib.sha256("\n".join(pool.pair_id_N.tolist()).encode()).hexdigest(),
        "lines": data.reference_lines,
        "facts": data.facts,
        "warnings": list(data.warnings),
        "files": files,
    }


def read_facts(folder: Path) -> RunData | None:
    """Return a run's facts about a data set; None before the data set is built."""
    return read_json(folder / DATA_FACTS)


def has_all_facts(folder: Path) -> bool:
    """Return whether a run has all files of facts; the directory of an older version has no held-out pairs."""
    return (folder / HELD_OUT).is_file() and (folder / DATA_FACTS).is_file()


def keep_facts(folder: Path, data: Path, sources: list[list[str]]) -> RunData:
    """Write a run's facts about a data set, its pool's identifiers, its held-out pairs, and the arrays' location.

    Args:
        folder: directory of the run for the data set.
        data: directory of the data set in the cache.
        sources: setting, path and hash of each data file.

    Raises:
        RunDirectoryError: the directory cannot be written.
    """
    splits = PreferenceData.load(data, {}).splits
    pair_ids = splits["pool"].pairs.pair_id_N.tolist()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / PAIR_IDS) as temporary:
            temporary.write_bytes(gzip.compress(json.dumps(pair_ids).encode(), mtime=0))
    write_held_out(folder, {name: _held_out(splits[name]) for name in predicted_splits(splits)})
    known: DataFacts = read_json(data / DATA_FACTS)
    facts: RunData = {**known, "cache": data.name, "sources": sources}
    write_json(folder / DATA_FACTS, facts)
    return facts


def copy_facts(folder: Path, to: Path) -> None:
    """Copy a run's facts about a data set to another run, unless that run has facts about it.

    Raises:
        RunDirectoryError: the directory cannot be written.
    """
    if folder.is_dir() and not to.exists():
        with disk_errors(to):
            to.parent.mkdir(parents=True, exist_ok=True)
            with replacing(to) as temporary:
                shutil.copytree(folder, temporary)


def _held_out(split: Split) -> HeldOut:
    pairs, cpu = split.pairs, torch.device("cpu")
    array_RD = pairs.response_features_RD
    features_RD = StreamedTable.of(array_RD, cpu) if can_stream(array_RD) else resident(array_RD, cpu)
    distance_N = pair_distances(features_RD, torch.from_numpy(np.asarray(pairs.responses_of_pair_N2)))
    prompt_N = pairs.prompt_of_pair_N.astype(np.int32)
    return HeldOut(split.records.first_share_N, prompt_N, distance_N.float().numpy())
