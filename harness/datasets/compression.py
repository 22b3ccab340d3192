"""Compressed files, known by their first bytes and not by their names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from balbench.harness.errors import DataError
from balbench.harness.files import cache_directory

MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


def compression(path: Path) -> str | None:
    """Return gz, bz2, xz, zst, or None for a file that is not compressed (an OSError if it cannot be read)."""
    with path.open("rb") as file:
        start = file.read(6)
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading what it holds before it was compressed (an OSError if it cannot be read)."""
    name = compression(path)
    if name == "gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if name == "bz2":
        return bz2.open(path, "rb")
    if name == "xz":
        return cast("IO[bytes]", lzma.open(path, "rb"))
    if name == "zst":
        import pyarrow as pa

        return cast("IO[bytes]", io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return path.open("rb")


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file that is not compressed: the file itself, or a copy in the cache directory.

    Raises:
        DataError: the disk is full, or the cache directory cannot be written.
    """
    if compression(path) is None:
        yield path
        return
    try:
        cache_directory().mkdir(parents=True, exist_ok=True)
        copy = tempfile.NamedTemporaryFile(dir=cache_directory(), prefix=".plain-", suffix=".tmp")  # noqa: SIM115
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error}); set BALBENCH_CACHE to another directory"
        raise DataError(f"{cache_directory()}: {problem}") from None
    with copy:
        with open_plain(path) as file:
            shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        yield Path(copy.name)
