"""The data sets of a run: built or read from the cache, and checked against the needs of the cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from balbench.harness.errors import BalbenchError, DataError, StudyError, answer_of, in_one_line
from balbench.harness.files import read_json
from balbench.harness.machine import count
from balbench.harness.pool.contents import Contents, Sizes
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.results import RunDirectory
from balbench.harness.results.records import DATA_FACTS, RunData
from balbench.harness.running.data_cache import built, data_key, data_path, is_complete
from balbench.harness.running.data_facts import has_all_facts, keep_facts, read_facts
from balbench.harness.running.progress import Display
from balbench.harness.study.cell import Cell, Protocol


class PreparedData(NamedTuple):
    """A data set that is ready for the workers.

    Attributes:
        path: the directory of its arrays.
        facts: facts about the data.
    """

    path: Path
    facts: RunData

    @property
    def pool_pairs(self) -> int:
        """Number of pairs of the pool."""
        return self.facts["pairs"]["pool"]


def prepare(cells: list[Cell], directory: RunDirectory, display: Display) -> dict[str, PreparedData]:
    """Build the data sets of cells, and check that the data are sufficient for the cells.

    Returns:
        The data sets by their keys (`Cell.dataset_key`).

    Raises:
        BalbenchError: the data are invalid, too few, or cannot be written.
    """
    prepared = {}
    budgets: dict[str, None] = {}
    for key, cell in {cell.dataset_key: cell for cell in cells}.items():
        users = [other for other in cells if other.dataset_key == key]
        if read_facts(directory.data(key)) is None:
            check_sizes(users, answer_of(cell.dataset.sizes, Sizes))  # checked before the build, which can take long
            for line in changed_files(cell, directory):
                display.say(f"note: {line}")
        prepared[key] = data = prepare_data(cell, directory, display)
        for warning in data.facts["warnings"]:
            display.say(f"warning: data{f' ({cell.setting})' if cell.setting else ''}: {warning}")
        check_budgets(users, data.pool_pairs)
        check_needs(users, data.path)
        budgets |= dict.fromkeys(budget_lines(users, data.pool_pairs, data.facts["pairs"]["eval"]))
    for line in budgets:
        display.say(line)
    return prepared


def restore_facts(cells: list[Cell], directory: RunDirectory, display: Display) -> None:
    """Write facts about data sets that a run with finished cells lacks, for example because a file was deleted.

    The results are complete without these facts, so data that cannot be built any more are only a line.
    """
    for key, cell in {cell.dataset_key: cell for cell in cells}.items():
        if not has_all_facts(directory.data(key)):
            try:
                prepare_data(cell, directory, display)
            except BalbenchError as error:
                display.say(f"note: the facts about held-out pairs cannot be written again: {error}")


def prepare_data(cell: Cell, directory: RunDirectory, display: Display) -> PreparedData:
    """Find a cell's data set in the cache or build it there, and write its facts to the run directory.

    A run uses the data set with which it started as long as that data set is in the cache.

    Raises:
        BalbenchError: the data are invalid, or cannot be written.
    """
    folder = directory.data(cell.dataset_key)
    known = read_facts(folder)
    first_key = known["cache"] if known else ""
    key = first_key if first_key and is_complete(data_path(first_key)) else data_key(cell)
    path = built(cell, key, display)
    if known is not None and known["pair_ids"] != read_json(path / DATA_FACTS)["pair_ids"]:
        raise DataError(
            f"{directory.path}: its data set was deleted and built again with other pairs (by other code of a plug-in "
            "or a library); run the study again in a new directory"
        )
    if known is None or key != first_key or not has_all_facts(folder):
        known = keep_facts(folder, path, _sources(cell))
    return PreparedData(path, known)


def add_lines(cells: list[Cell], directory: RunDirectory) -> None:
    """Store the reference lines of all settings with prepared data sets, for the report."""
    for setting, key in {cell.setting: cell.dataset_key for cell in cells}.items():
        if (facts := read_facts(directory.data(key))) is not None:
            directory.add_lines(setting, facts["lines"])


def changed_files(cell: Cell, directory: RunDirectory) -> list[str]:
    """Return a line for each file of a cell's data set that had other contents in earlier runs of the directory."""
    earlier: set[tuple[str, str, str]] = set()
    for path in directory.data(cell.dataset_key).parent.glob(f"*/{DATA_FACTS}"):
        earlier |= {(setting, location, digest) for setting, location, digest in read_json(path)["sources"]}
    return [
        f"{setting}: {location} changed since the last run in {directory.path}; its cells run again"
        for setting, location, digest in map(tuple, _sources(cell))
        if any(source[:2] == (setting, location) and source[2] != digest for source in earlier)
    ]


def _sources(cell: Cell) -> list[list[str]]:
    return [list(source) for source in answer_of(cell.dataset.sources, tuple)]


def check_needs(cells: list[Cell], path: Path) -> None:
    """Check that a prepared data set is sufficient for policies and oracles.

    Raises:
        DataError: something is missing; the message names the policy or oracle, what is missing, and the remedy.
    """
    data = PreferenceData.load(path, {})
    _check_policies(cells, Contents.of(data))
    for oracle in dict.fromkeys(cell.oracle for cell in cells):
        try:
            oracle.check_records(data.splits["pool"].records)
        except ValueError as error:
            raise DataError(f"oracle: pool: {error}") from None


def check_sizes(cells: list[Cell], sizes: Sizes) -> None:
    """Check, before a data set is built, that its sizes are sufficient for the protocol and the policies.

    Raises:
        StudyError: the pool is too small.
        DataError: the data lack something that a policy needs.
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
    """Check that every round can acquire at least one pair (the last batch can be smaller).

    Raises:
        StudyError: the pool is too small.
    """
    for protocol in dict.fromkeys(cell.protocol for cell in cells if not cell.policy.acquires_all):
        _check_budget(protocol, pool_size)


def budget_lines(cells: list[Cell], pool_pairs: int, eval_pairs: int) -> list[str]:
    """Return a line for each protocol of cells with one data set: the labels of eval beside the labels that are bought.

    All policies have the labels of eval from the start, so a budget that is small in comparison understates the labels
    that a model needs.
    """
    lines = []
    for protocol in dict.fromkeys(cell.protocol for cell in cells if not cell.policy.acquires_all):
        first, last = (protocol.labels_at(number, pool_pairs) for number in (0, protocol.rounds - 1))
        lines.append(
            f"eval holds {count(eval_pairs, 'label')} that training uses to choose weights; "
            f"the budget is {first:,} to {last:,}"
        )
    return lines


def _check_budget(protocol: Protocol, pool_size: int) -> None:
    if protocol.initial > pool_size:
        raise StudyError(f"protocol.initial: {protocol.initial} labels, but the pool has {pool_size} pairs; lower it")
    most = 2 + (pool_size - protocol.initial - 1) // protocol.batch if pool_size > protocol.initial else 1
    if protocol.rounds > most:
        raise StudyError(
            f"protocol.rounds: {protocol.rounds} rounds need {protocol.budget} labels, but the pool has {pool_size} "
            f"pairs; lower rounds to {most} or the batch"
        )


def feature_bytes(path: Path) -> int:
    """Return the bytes of the response features of all splits of a prepared data set as float32."""
    tables = (np.load(file, mmap_mode="r") for file in path.glob("*.response_features_RD.npy"))
    return sum(4 * table.size for table in tables)
