"""Copies of data sets for Dask workers without access to the coordinator's disk.

Imports stay light, as Dask's scheduler imports this module too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balbench.harness.errors import BalbenchError
from balbench.harness.files import cache_directory, disk_errors, remove_abandoned
from balbench.harness.results.records import DATA_FACTS

if TYPE_CHECKING:
    from distributed import Client

CHUNK_BYTES = 32 * 2**20

Say = Callable[[str], None]


@dataclass(frozen=True)
class DataFiles:
    """The files of a data set, with which a worker checks whether a directory has the data set.

    Attributes:
        path: directory of the data set on the coordinator's machine.
        facts: the bytes of data.json.
        files: names and sizes of all files.
        digest: hash of all bytes; "" until a worker without access to `path` needs a copy.
    """

    path: Path
    facts: bytes
    files: tuple[tuple[str, int], ...]
    digest: str = ""

    def is_at(self, path: Path) -> bool:
        """Return whether a directory of this machine has the complete data set."""
        try:
            return (path / DATA_FACTS).read_bytes() == self.facts and all(
                (path / name).stat().st_size == size for name, size in self.files
            )
        except OSError:
            return False

    @property
    def cache(self) -> Path:
        """The directory for a copy of the data set on this machine."""
        return cache_directory() / "data" / self.digest[:32]

    def find(self, trust_path: bool) -> Path | None:
        """Return the directory of the data set on this machine, `path` or one in the cache; None if there is none."""
        if trust_path and self.is_at(self.path):
            return self.path
        return self.cache if self.digest and self.is_at(self.cache) else None


def data_files(path: Path) -> DataFiles:
    """Describe a data set of this machine, without a digest of its bytes."""
    facts = (path / DATA_FACTS).read_bytes()
    names = [*json.loads(facts)["files"], DATA_FACTS]
    return DataFiles(path, facts, tuple((name, (path / name).stat().st_size) for name in names))


def with_digest(data: DataFiles) -> DataFiles:
    """Return the description of a data set of this machine with the digest of its bytes."""
    digest = hashlib.sha256()
    for name, size in data.files:
        with (data.path / name).open("rb") as file:
            digest.update(f"{name} {size} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return replace(data, digest=digest.hexdigest())


def receive(data: DataFiles, token: str, name: str, offset: int, chunk: bytes) -> None:
    """Write a chunk of a file that the coordinator sends; the chunks of a file arrive in order.

    Raises:
        BalbenchError: the cache cannot be written.
    """
    folder = _unfinished(data, token)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("ab" if offset else "wb") as file:
            if file.tell() != offset:
                raise RuntimeError(f"{folder / name}: a chunk is missing before byte {offset}")
            file.write(chunk)


def keep(data: DataFiles, token: str) -> None:
    """Move a completely received data set into the cache, unless another worker of this machine has already done so.

    Raises:
        BalbenchError: the cache cannot be written.
    """
    folder = _unfinished(data, token)
    with disk_errors(data.cache):
        if not data.is_at(data.cache):
            shutil.rmtree(data.cache, ignore_errors=True)  # removes a damaged copy
            try:
                os.rename(folder, data.cache)
            except OSError:
                if not data.is_at(data.cache):
                    raise
        shutil.rmtree(folder, ignore_errors=True)
        remove_abandoned(data.cache.parent)


def _unfinished(data: DataFiles, token: str) -> Path:
    return data.cache.with_name(f".{data.cache.name}.{token}.tmp")


class DataSender:
    """Copies data sets from the coordinator to workers that need them."""

    def __init__(self, client: Client, say: Say) -> None:
        """Store the client of a cluster; `say` is called with a line for each copy."""
        self._client, self._say = client, say
        self._known: dict[Path, DataFiles] = {}
        self._sending: dict[tuple[str, Path], threading.Lock] = {}
        self._lock = threading.Lock()

    def data_files(self, path: Path) -> DataFiles:
        """Describe a data set of this machine; the digest is known after a worker has needed a copy."""
        with self._lock:
            if path not in self._known:
                self._known[path] = data_files(path.absolute())
            return self._known[path]

    def send(self, path: Path, worker: str) -> None:
        """Copy a data set to a worker that does not have it.

        If the worker dies, the error is ignored: Dask reschedules its task on another worker, which requests a copy.

        Raises:
            BalbenchError: the worker's cache cannot be written.
        """
        with self._lock:
            lock = self._sending.setdefault((worker.rpartition(":")[0], path), threading.Lock())
        with lock:  # workers of one host may share a disk
            data = self._digested(path)
            with suppress(OSError, KeyError, ValueError):
                if self._on(worker, data.find, False) is None:
                    self._copy(data, worker)

    def _digested(self, path: Path) -> DataFiles:
        data = self.data_files(path)
        if not data.digest:
            data = with_digest(data)
            with self._lock:
                self._known[path] = data
        return data

    def _copy(self, data: DataFiles, worker: str) -> None:
        megabytes = sum(size for _, size in data.files) / 1e6
        self._say(f"sending the data set {data.path.name} ({megabytes:,.0f} MB) to {worker}")
        token = uuid.uuid4().hex[:8]
        for name, size in data.files:
            with (data.path / name).open("rb") as file:
                for offset in range(0, max(size, 1), CHUNK_BYTES):
                    self._on(worker, receive, data, token, name, offset, file.read(CHUNK_BYTES))
        self._on(worker, keep, data, token)

    def _on(self, worker: str, function: Callable, *arguments: Any) -> Any:
        """Call a function on a worker immediately, even while a task runs there."""
        try:
            return self._client.run(function, *arguments, workers=[worker])[worker]
        except BalbenchError as error:
            raise type(error)(f"{worker}: {error}") from None
