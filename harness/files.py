"""Writing and reading small files so that a kill or a full disk leaves no half of one behind."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

from balbench.harness.errors import RunDirectoryError

DEEPEST = 50  # nesting that `not_finite` looks into
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # numpy and short writes give no number at all


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file at once: the old one or the new one is there, never a part.

    Raises:
        RunDirectoryError: the disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(value, file, indent=1, allow_nan=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a JSON file, or None where there is none.

    Raises:
        RunDirectoryError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error}); delete it and run the study again") from None


def not_finite(value: Any, depth: int = 0) -> str | None:
    """Where plain values hold a NaN or an infinity, as a dotted path; None where they do not."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner if depth < DEEPEST else ():
        if (where := not_finite(part, depth + 1)) is not None:
            return f"{name}.{where}".rstrip(".")
    return None


def check_directory(path: Path) -> None:
    """See that a path is, or can become, a directory.

    Raises:
        RunDirectoryError: it or a part of it is a file.
    """
    file = next((part for part in (path, *path.parents) if part.is_file()), None)
    if file is not None:
        what = "is" if file == path else f"{file} is"
        raise RunDirectoryError(f"{path}: {what} a file, not a directory; give another --out")


class disk_errors:
    """Context that turns a full or read-only disk into one clear line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            kept = "" if error.errno == errno.ENOENT else ", all finished rounds are kept"
            raise RunDirectoryError(
                f"{self._path}: cannot be written ({error.strerror or error}); {_remedy(error)} and run the same "
                f"command again{kept}"
            ) from None


def _remedy(error: OSError) -> str:
    if error.errno is None or error.errno in FULL:
        return "free some space"
    return "see that nobody moves or deletes it" if error.errno == errno.ENOENT else "check its path and permissions"
