"""The data sets of a study whose cells repeat another run: those of that run, whose pair numbers its cells recorded."""

from __future__ import annotations

from pathlib import Path

from balbench.harness.errors import RunDirectoryError, answer_of
from balbench.harness.results import RunDirectory
from balbench.harness.results.records import RunData
from balbench.harness.running.data_cache import data_path, is_complete
from balbench.harness.running.data_facts import copy_facts, read_facts
from balbench.harness.study.cell import Cell
from balbench.harness.study.study import Study


def keep_source_data(study: Study, directory: RunDirectory) -> None:
    """Give a run directory the facts about the data sets of another run (see `Study.source_data`).

    `prepare` then takes the arrays of these data sets from the cache, or builds them and checks that the pool has the
    same pairs.

    Raises:
        RunDirectoryError: there are no facts about a data set, or data files have changed and the arrays are gone.
    """
    cells = {cell.dataset_key: cell for cell in study.cells}
    for key, folder in study.source_data.items():
        facts = read_facts(folder)
        if facts is None:
            raise RunDirectoryError(f"{folder}: has no facts about the data set; run the study again")
        _check_files(cells[key], facts, folder)
        copy_facts(folder, directory.data(key))


def _check_files(cell: Cell, facts: RunData, folder: Path) -> None:
    """Check that the arrays are in the cache, or can be built from unchanged files."""
    if is_complete(data_path(facts["cache"])):
        return
    known = {(setting, digest) for setting, _, digest in facts["sources"]}
    for setting, location, digest in answer_of(cell.dataset.sources, tuple):
        if (setting, digest) not in known:
            raise RunDirectoryError(
                f"{setting}: {location} changed since {folder.parents[1]} ran, and its data set is not in the "
                "cache; restore the file, or run the study again in a new directory"
            )
