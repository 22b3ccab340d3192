"""Copy finished cells from other run directories on this machine, by their keys."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import disk_errors, replacing, write_json
from balbench.harness.machine import count
from balbench.harness.results import CellLog, RunDirectory
from balbench.harness.results.predictions import FILE as PREDICTIONS
from balbench.harness.results.records import Manifest
from balbench.harness.running.data_facts import copy_facts
from balbench.harness.running.known_runs import known_runs
from balbench.harness.study.cell import Cell

COPIED = ("rounds.jsonl", PREDICTIONS, "timings.jsonl", "cell.json")


@dataclass(frozen=True)
class _Source:
    """A finished cell of another run."""

    run: Path
    log: CellLog
    manifest: Manifest


def reuse_cells(cells: Iterable[Cell], directory: RunDirectory, say: Callable[[str], None]) -> list[str]:
    """Copy cells of other runs that are finished, or have more rounds than here, and report the numbers.

    A cell is copied if its key and the source of its plug-ins are the same. Its rounds and timings are copied byte for
    byte, and its manifest names the original directory.

    Args:
        cells: cells that are not finished in `directory`.
        directory: the run directory to copy to.
        say: called with one line for each run from which cells are copied.

    Returns:
        The directories of the cells that were copied.

    Raises:
        RunDirectoryError: `directory` cannot be written.
    """
    needed = {cell.directory: cell for cell in cells}
    sources: dict[str, _Source] = {}
    for run in known_runs() if needed else ():
        if run != directory.path.resolve():
            _find_cells(run, needed, sources)
    copied = [name for name, source in sources.items() if _is_copied(needed[name], source, directory)]
    for name in copied:
        _copy_data_facts(sources[name].run, directory, needed[name].dataset_key)
    for run, number in Counter(sources[name].run for name in copied).items():
        say(f"{count(number, 'finished cell')} copied from {run}")
    return copied


def _find_cells(run: Path, needed: dict[str, Cell], sources: dict[str, _Source]) -> None:
    """Add the needed cells of a run to `sources`, unless an earlier source has as many rounds."""
    with suppress(OSError, RunDirectoryError):  # a run can be deleted or damaged at any time
        for name in needed.keys() & set(os.listdir(run / "cells")):
            log, cell = CellLog(run / "cells" / name), needed[name]
            manifest, facts = log.manifest, log.facts
            if manifest is None or facts is None or facts != cell.facts:
                continue
            known = sources.get(name)
            if known is None or known.manifest["rounds"] < min(manifest["rounds"], cell.rounds):
                sources[name] = _Source(run, log, manifest)


def _is_copied(cell: Cell, source: _Source, directory: RunDirectory) -> bool:
    """Copy a cell unless this directory has as many rounds; return whether the cell was copied."""
    own = directory.cell(cell.directory)
    if own.count() >= min(source.manifest["rounds"], cell.rounds):
        return False
    with disk_errors(own.directory):
        own.directory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(own.directory) as temporary:
            return _copy(source, CellLog(temporary))


def _copy_data_facts(run: Path, directory: RunDirectory, key: str) -> None:
    """Copy a run's facts about a data set, so that this directory can be reported without the arrays."""
    copy_facts(RunDirectory(run).data(key), directory.data(key))


def _copy(source: _Source, to: CellLog) -> bool:
    """Copy the files of a cell; return False, without files, if they are damaged, or changed during the copy."""
    to.directory.mkdir()
    try:
        for name in COPIED:
            shutil.copyfile(source.log.directory / name, to.directory / name)
    except FileNotFoundError:
        shutil.rmtree(to.directory)
        return False
    origin = source.manifest.get("copied_from", str(source.log.directory))
    write_json(to.directory / "manifest.json", {**source.manifest, "copied_from": origin})
    if not _is_intact(to):
        shutil.rmtree(to.directory)
        return False
    return True


def _is_intact(log: CellLog) -> bool:
    try:
        return log.manifest is not None and log.has_predictions()
    except RunDirectoryError:  # the manifest of an earlier version can certify a damaged line
        return False
