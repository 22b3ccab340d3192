"""The cache of data sets: each data set is built once on a machine, and all runs use it."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from balbench.harness.errors import RunDirectoryError, answer_of
from balbench.harness.files import cache_directory, disk_errors, read_json, remove_abandoned, replacing, write_json
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.results.records import DATA_FACTS, DataFacts
from balbench.harness.running.data_facts import facts_of
from balbench.harness.running.known_runs import is_running, known_runs
from balbench.harness.running.progress import Display
from balbench.harness.source_hash import development_digest
from balbench.harness.study.cell import Cell, digest

CACHE_REMEDY = "free some space or set BALBENCH_CACHE to another directory"
COMPARED = ("torch", "numpy")  # libraries whose version can change the last digits of features


@dataclass(frozen=True)
class CachedData:
    """A data set in the cache.

    Attributes:
        key: name of its directory.
        path: the directory.
        facts: facts about the data; None if the directory is incomplete.
        size: bytes on disk.
        last_used: seconds since the epoch.
    """

    key: str
    path: Path
    facts: DataFacts | None
    size: int
    last_used: float


def data_path(key: str) -> Path:
    """Return the directory of a data set in the cache."""
    return cache_directory() / "data" / key


def data_key(cell: Cell) -> str:
    """Return a hash of all that determines the bytes of a cell's data set, with code of plug-ins and versions."""
    plug_ins = {name: source for name, source in cell.sources.items() if name.startswith("datasets ")}
    versions = {name: metadata.version(name) for name in COMPARED} | {"machine": platform.machine()}
    return digest([cell.dataset_key, plug_ins, versions, development_digest()])[:32]


def is_complete(path: Path) -> bool:
    """Return whether a directory has a data set with all its files."""
    facts: DataFacts | None = read_json(path / DATA_FACTS)
    return facts is not None and all((path / name).is_file() for name in facts["files"])


def built(cell: Cell, key: str, display: Display) -> Path:
    """Return the directory of a cell's data set, after building the data set if necessary.

    If several processes need the same data set, one builds it and the others wait.

    Raises:
        BalbenchError: the data are invalid, or cannot be written.
    """
    path = data_path(key)
    if not is_complete(path):
        with _locked(path, display):
            if not is_complete(path):
                _build(cell, path, display)
    with suppress(OSError):  # the cache can belong to another user
        os.utime(path / DATA_FACTS)
    return path


def _build(cell: Cell, path: Path, display: Display) -> None:
    data = answer_of(cell.dataset.build, PreferenceData, display.data)
    data.check()
    remove_abandoned(path.parent)
    with disk_errors(path, CACHE_REMEDY), replacing(path) as temporary:
        temporary.mkdir()
        data.save(temporary)
        files = sorted(file.name for file in temporary.iterdir())
        write_json(temporary / DATA_FACTS, facts_of(data, type(cell.dataset).__name__, files))


@contextmanager
def _locked(path: Path, display: Display) -> Iterator[None]:
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    with disk_errors(path, CACHE_REMEDY):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            display.say("another run builds the same data set; waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def cached_data() -> list[CachedData]:
    """Return the data sets in the cache, the most recently used first."""
    folder = cache_directory() / "data"
    entries = [_entry(path) for path in folder.glob("[!.]*") if path.is_dir()]
    return sorted(entries, key=lambda entry: -entry.last_used)


def _entry(path: Path) -> CachedData:
    facts = path / DATA_FACTS
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    last_used = (facts if facts.is_file() else path).stat().st_mtime
    return CachedData(path.name, path, read_json(facts), size, last_used)


def remove(entries: list[CachedData]) -> list[CachedData]:
    """Delete data sets that no running study uses; a run that needs one later builds it again.

    Returns:
        The data sets that were deleted.

    Raises:
        RunDirectoryError: a directory cannot be deleted.
    """
    used = set(_used_now())
    removed = [entry for entry in entries if entry.key not in used]
    for entry in removed:
        with disk_errors(entry.path):
            shutil.rmtree(entry.path)
            entry.path.with_name(f"{entry.key}.lock").unlink(missing_ok=True)
    return removed


def older_than(days: float) -> list[CachedData]:
    """Return the data sets that were not used for a number of days."""
    return [entry for entry in cached_data() if time.time() - entry.last_used > days * 86400]


def _used_now() -> Iterator[str]:
    for run in known_runs():
        if is_running(run):
            for path in run.glob(f"data/*/{DATA_FACTS}"):
                with suppress(RunDirectoryError, KeyError, TypeError):
                    yield read_json(path)["cache"]
