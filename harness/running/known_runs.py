"""The list of run directories on this machine: the cache has a small file for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import cache_directory, disk_errors, read_json, write_json


def remember(run: Path) -> None:
    """Add a run directory to the list. Nothing happens if the cache cannot be written."""
    path = run.resolve()
    entry = _folder() / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    with suppress(RunDirectoryError):
        with disk_errors(entry):
            entry.parent.mkdir(parents=True, exist_ok=True)
        if not entry.exists():
            write_json(entry, {"path": str(path)})


def known_runs() -> Iterator[Path]:
    """Yield the listed run directories that still exist."""
    for entry in sorted(_folder().glob("*.json")):
        with suppress(RunDirectoryError, KeyError, TypeError, OSError):
            path = Path(read_json(entry)["path"])
            if (path / "study.json").is_file():
                yield path


def is_running(run: Path) -> bool:
    """Return whether a process uses a run directory now."""
    lock = FileLock(run / "lock")
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # the directory belongs to another user
        return False


def _folder() -> Path:
    return cache_directory() / "runs"
