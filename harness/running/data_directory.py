"""The data sets of a run: built once, written to the run directory, checked against what the cells need."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from balbench.harness.errors import DataError, StudyError, answer_of, in_one_line
from balbench.harness.files import disk_errors, read_json, write_json
from balbench.harness.pool.contents import Contents, Sizes
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.results import RunDirectory
from balbench.harness.running.progress import Display
from balbench.harness.study.cell import Cell, Protocol

DATA_FACTS = "data.json"  # written last: the data set is whole


def prepare(cells: list[Cell], directory: RunDirectory, display: Display) -> dict[str, int]:
    """Build the data sets that cells need, and check that they hold what is asked of them.

    Returns:
        The pool's number of pairs by the key of the data set.

    Raises:
        BalbenchError: the data are wrong, too few, or cannot be written.
    """
    pool_sizes = {}
    for key, cell in {cell.dataset_key: cell for cell in cells}.items():
        mine = [other for other in cells if other.dataset_key == key]
        if read_json(directory.data(key) / DATA_FACTS) is None:
            check_sizes(mine, answer_of(cell.dataset.sizes, Sizes))  # building may take long
            for line in changed_files(cell, directory):
                display.say(f"note: {line}")
        known = prepare_data(cell, directory, display)
        for warning in known["warnings"]:
            display.say(f"warning: data{f' ({cell.setting})' if cell.setting else ''}: {warning}")
        check_budgets(mine, known["pairs"]["pool"])
        check_needs(mine, directory.data(key))
        for setting in dict.fromkeys(other.setting for other in mine):
            directory.add_lines(setting, known["lines"])
        pool_sizes[key] = known["pairs"]["pool"]
    return pool_sizes


def prepare_data(cell: Cell, directory: RunDirectory, display: Display) -> dict[str, Any]:
    """Build a cell's data set unless it is there; return {"pairs": {split: N}, "lines": reference lines}."""
    place = directory.data(cell.dataset_key)
    known = read_json(place / DATA_FACTS)
    if known is not None and all((place / name).is_file() for name in known["files"]):
        return known
    data = answer_of(cell.dataset.build, PreferenceData, display.data)
    data.check()
    temporary = place.with_name(f".{place.name}.tmp")
    with disk_errors(place):
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        temporary.mkdir(parents=True)
        data.save(temporary)
    files = sorted(path.name for path in temporary.iterdir())
    write_json(temporary / DATA_FACTS, data_facts(data) | {"files": files, "sources": _sources(cell)})
    os.replace(temporary, place)
    return read_json(place / DATA_FACTS)


def changed_files(cell: Cell, directory: RunDirectory) -> list[str]:
    """Return a line for each file of a cell's data set that had other contents in earlier runs of the directory."""
    earlier: set[tuple[str, str, str]] = set()
    for path in directory.data(cell.dataset_key).parent.glob(f"*/{DATA_FACTS}"):
        earlier |= {tuple(source) for source in read_json(path)["sources"]}
    return [
        f"{setting}: {place} changed since the last run in {directory.path}; its cells run again"
        for setting, place, digest in map(tuple, _sources(cell))
        if any(source[:2] == (setting, place) and source[2] != digest for source in earlier)
    ]


def _sources(cell: Cell) -> list[list[str]]:
    return [list(source) for source in answer_of(cell.dataset.sources, tuple)]


def data_facts(data: PreferenceData) -> dict[str, Any]:
    """What is worth knowing of a data set without its arrays."""
    pairs = {name: len(split.pairs) for name, split in data.splits.items()}
    pool = data.splits["pool"].pairs
    return {
        "pairs": pairs,
        "responses": len(pool.response_features_RD),
        "prompts": len(pool.prompt_features_PQ),
        "dimension": pool.response_features_RD.shape[1],
        "lines": data.reference_lines,
        "facts": data.facts,
        "warnings": list(data.warnings),
    }


def check_needs(cells: list[Cell], place: Path) -> None:
    """See that a prepared data set holds what policies and oracles need.

    Raises:
        DataError: with the policy or oracle, what is missing and the remedy.
    """
    data = PreferenceData.load(place, {})
    _check_policies(cells, Contents.of(data))
    for oracle in dict.fromkeys(cell.oracle for cell in cells):
        try:
            oracle.check_records(data.splits["pool"].records)
        except ValueError as error:
            raise DataError(f"oracle: pool: {error}") from None


def check_sizes(cells: list[Cell], sizes: Sizes) -> None:
    """See that a data set of these sizes suffices for the protocol and the policies, before it is built.

    Raises:
        StudyError: the pool is too small.
        DataError: the data lack what a policy needs.
    """
    check_budgets(cells, sizes.pairs)
    with in_one_line(cells[0].dataset.contents.__qualname__):
        contents = cells[0].dataset.contents()
    if contents is not None:
        _check_policies(cells, replace(contents, most_pairs_a_prompt=sizes.most_pairs_a_prompt))


def _check_policies(cells: list[Cell], contents: Contents) -> None:
    for label, policy in {cell.label: cell.policy for cell in cells}.items():
        try:
            policy.check_data(contents)
        except DataError as error:
            raise DataError(f"policy {label}: {error}") from None


def check_budgets(cells: list[Cell], pool_size: int) -> None:
    """See that every round has a pair to buy (the last batch may be smaller).

    Raises:
        StudyError: the pool is too small.
    """
    for protocol in dict.fromkeys(cell.protocol for cell in cells if not cell.policy.acquires_all):
        _check_budget(protocol, pool_size)


def _check_budget(protocol: Protocol, pool_size: int) -> None:
    if protocol.initial > pool_size:
        raise StudyError(f"protocol.initial: {protocol.initial} labels, but the pool has {pool_size} pairs; lower it")
    most = 2 + (pool_size - protocol.initial - 1) // protocol.batch if pool_size > protocol.initial else 1
    if protocol.rounds > most:
        raise StudyError(
            f"protocol.rounds: {protocol.rounds} rounds need {protocol.budget} labels, but the pool has {pool_size} "
            f"pairs; lower rounds to {most} or the batch"
        )


def feature_bytes(place: Path) -> int:
    """Bytes that the response features of all splits of a prepared data set take on a device: as float32."""
    tables = (np.load(path, mmap_mode="r") for path in place.glob("*.response_features_RD.npy"))
    return sum(4 * table.size for table in tables)


def feature_dimension(place: Path) -> int:
    """Length of a response's features in a prepared data set."""
    return read_json(place / DATA_FACTS)["dimension"]
