"""What a run keeps of its data sets: facts and the names of the pairs, without the arrays."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

from balbench.harness.files import disk_errors, read_json, replacing, write_json
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.results.records import DataFacts, RunData

DATA_FACTS = "data.json"  # written last: the data set is complete
PAIR_IDS = "pair_ids.json.gz"


def facts_of(data: PreferenceData, kind: str, files: list[str]) -> DataFacts:
    """What is worth knowing of a data set without its arrays.

    Args:
        data: the data set.
        kind: name of its class.
        files: names of its files.
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


def read_facts(place: Path) -> RunData | None:
    """What a run keeps of a data set; None before the data set was built."""
    return read_json(place / DATA_FACTS)


def keep_facts(place: Path, data: Path, sources: list[list[str]]) -> RunData:
    """Write what a run keeps of a data set: its facts, the names of the pool's pairs, and where the arrays are.

    Args:
        place: directory of the run for the data set.
        data: directory of the data set in the cache.
        sources: setting, path and hash of each data file.

    Raises:
        RunDirectoryError: the directory cannot be written.
    """
    pair_ids = PreferenceData.load(data, {}).splits["pool"].pairs.pair_id_N.tolist()
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with replacing(place / PAIR_IDS) as temporary:
            temporary.write_bytes(gzip.compress(json.dumps(pair_ids).encode(), mtime=0))
    known: DataFacts = read_json(data / DATA_FACTS)
    facts: RunData = {**known, "cache": data.name, "sources": sources}
    write_json(place / DATA_FACTS, facts)
    return facts
