"""Atomic writes: after a kill or on a full disk either the old file or the complete new file exists."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from balbench.harness.errors import BalbenchError, RunDirectoryError, shortened

ABANDONED_SECONDS = 24 * 3600.0
DEEPEST = 50  # levels of nesting that `not_finite` searches
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of numpy and of incomplete writes have no number


def cache_directory() -> Path:
    """Return the directory of balbench's caches: BALBENCH_CACHE, or the user's cache directory."""
    import platformdirs

    return Path(os.environ.get("BALBENCH_CACHE") or platformdirs.user_cache_dir("balbench")).expanduser()


def as_path(name: str, value: Any) -> Path:
    """Return a path that a caller gave as text or path.

    Raises:
        BalbenchError: the value is neither, or empty; `name` is the name of the argument.
    """
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise BalbenchError(
            f"{name}: must be a path, not {shortened(repr(value))}; give a text or a Path", setting=name
        )
    if not os.fspath(value):
        raise BalbenchError(f"{name}: is empty; give a path", setting=name)
    return Path(value)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` for a file or a directory, which then replaces `path` in one step.

    After an error, or if the block writes nothing, `path` keeps its old content and no temporary file remains.

    Raises:
        OSError: the path cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        elif temporary.is_dir() and path.is_dir():
            shutil.rmtree(path)
        if temporary.exists():
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if temporary.is_file():
            temporary.unlink()


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files of killed processes from a folder (see `replacing`) when they are a day old."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically (see `replacing`).

    Raises:
        RunDirectoryError: the disk is full or the path cannot be written.
    """
    with disk_errors(path), replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; return None if there is no file.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error}); delete it and run the study again") from None


def not_finite(value: Any, depth: int = 0) -> str | None:
    """Return the dotted path of a NaN or an infinity in plain values; None if all numbers are finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner if depth < DEEPEST else ():
        if (inner_path := not_finite(part, depth + 1)) is not None:
            return f"{name}.{inner_path}".rstrip(".")
    return None


def check_directory(path: Path) -> None:
    """Check that a path is a directory, or can become one.

    Raises:
        RunDirectoryError: the path or a part of it is a file.
    """
    file = next((part for part in (path, *path.parents) if part.is_file()), None)
    if file is not None:
        fault = "is" if file == path else f"{file} is"
        raise RunDirectoryError(f"out {path}: {fault} a file, not a directory; give another directory", setting="out")


class disk_errors:
    """Context manager that turns errors of the disk into a RunDirectoryError of one line.

    Args:
        path: the file or directory that is written.
        remedy: advice that replaces the advice for the kind of error.
    """

    def __init__(self, path: Path, remedy: str = "") -> None:
        self._path, self._remedy = path, remedy

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            kept = "" if error.errno == errno.ENOENT else ", all finished rounds are kept"
            fault = f"cannot be written ({error.strerror or error})"
            remedy = self._remedy or _remedy(error)
            raise RunDirectoryError(f"{self._path}: {fault}; {remedy} and run the same command again{kept}") from None


def _remedy(error: OSError) -> str:
    if error.errno is None or error.errno in FULL:
        return "free some space"
    return (
        "check that no program moves or deletes it" if error.errno == errno.ENOENT else "check its path and permissions"
    )
