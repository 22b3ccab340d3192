"""Copies of data sets for Dask workers that do not see the coordinator's disk.

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

if TYPE_CHECKING:
    from distributed import Client

DATA_FACTS = "data.json"
CHUNK_BYTES = 32 * 2**20

Say = Callable[[str], None]


@dataclass(frozen=True)
class DataFiles:
    """The files of a data set, by which a worker knows whether a directory holds the data set.

    Attributes:
        place: directory of the data set on the coordinator's machine.
        facts: the bytes of its data.json.
        files: names and sizes of all files.
        digest: hash of all bytes; "" until a worker that does not see `place` needs a copy.
    """

    place: Path
    facts: bytes
    files: tuple[tuple[str, int], ...]
    digest: str = ""

    def is_at(self, place: Path) -> bool:
        """Whether a directory of this machine holds the complete data set."""
        try:
            return (place / DATA_FACTS).read_bytes() == self.facts and all(
                (place / name).stat().st_size == size for name, size in self.files
            )
        except OSError:
            return False

    @property
    def cache(self) -> Path:
        """The directory for a copy of the data set on this machine."""
        return cache_directory() / "data" / self.digest[:32]

    def find(self, trust_place: bool) -> Path | None:
        """The directory of the data set on this machine, at the same path or in the cache; None if there is none."""
        if trust_place and self.is_at(self.place):
            return self.place
        return self.cache if self.digest and self.is_at(self.cache) else None


def data_files(place: Path) -> DataFiles:
    """Describe a data set of this machine, without a digest of its bytes."""
    facts = (place / DATA_FACTS).read_bytes()
    names = [*json.loads(facts)["files"], DATA_FACTS]
    return DataFiles(place, facts, tuple((name, (place / name).stat().st_size) for name in names))


def with_digest(data: DataFiles) -> DataFiles:
    """Read all bytes of a data set of this machine and hash them."""
    digest = hashlib.sha256()
    for name, size in data.files:
        with (data.place / name).open("rb") as file:
            digest.update(f"{name} {size} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return replace(data, digest=digest.hexdigest())


def receive(data: DataFiles, token: str, name: str, offset: int, chunk: bytes) -> None:
    """Write a chunk of a file that the coordinator sends; the chunks of a file come in order.

    Raises:
        BalbenchError: the cache cannot be written.
    """
    place = _unfinished(data, token)
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with (place / name).open("ab" if offset else "wb") as file:
            if file.tell() != offset:
                raise RuntimeError(f"{place / name}: a chunk is missing before byte {offset}")
            file.write(chunk)


def keep(data: DataFiles, token: str) -> None:
    """Move a data set that was received completely to its place, unless another worker of this machine has done so.

    Raises:
        BalbenchError: the cache cannot be written.
    """
    place = _unfinished(data, token)
    with disk_errors(data.cache):
        if not data.is_at(data.cache):
            shutil.rmtree(data.cache, ignore_errors=True)  # damaged
            try:
                os.rename(place, data.cache)
            except OSError:
                if not data.is_at(data.cache):
                    raise
        shutil.rmtree(place, ignore_errors=True)
        remove_abandoned(data.cache.parent)


def _unfinished(data: DataFiles, token: str) -> Path:
    return data.cache.with_name(f".{data.cache.name}.{token}.tmp")


class DataSender:
    """Copies data sets from the coordinator to workers that need them."""

    def __init__(self, client: Client, say: Say) -> None:
        """Use the client of a cluster, and call `say` with a line for each copy."""
        self._client, self._say = client, say
        self._known: dict[Path, DataFiles] = {}
        self._sending: dict[tuple[str, Path], threading.Lock] = {}
        self._lock = threading.Lock()

    def data_files(self, place: Path) -> DataFiles:
        """The files of a data set of this machine; with a digest once a worker needed a copy."""
        with self._lock:
            if place not in self._known:
                self._known[place] = data_files(place.absolute())
            return self._known[place]

    def send(self, place: Path, worker: str) -> None:
        """Copy a data set to a worker that does not have it.

        If the worker dies, nothing is to be done: Dask gives its task to another worker, which asks again.

        Raises:
            BalbenchError: the worker's cache cannot be written.
        """
        with self._lock:
            lock = self._sending.setdefault((worker.rpartition(":")[0], place), threading.Lock())
        with lock:  # workers of one host may share a disk
            data = self._digested(place)
            with suppress(OSError, KeyError, ValueError):
                if self._on(worker, data.find, False) is None:
                    self._copy(data, worker)

    def _digested(self, place: Path) -> DataFiles:
        data = self.data_files(place)
        if not data.digest:
            data = with_digest(data)
            with self._lock:
                self._known[place] = data
        return data

    def _copy(self, data: DataFiles, worker: str) -> None:
        megabytes = sum(size for _, size in data.files) / 1e6
        self._say(f"sending the data set {data.place.name} ({megabytes:,.0f} MB) to {worker}")
        token = uuid.uuid4().hex[:8]
        for name, size in data.files:
            with (data.place / name).open("rb") as file:
                for offset in range(0, max(size, 1), CHUNK_BYTES):
                    self._on(worker, receive, data, token, name, offset, file.read(CHUNK_BYTES))
        self._on(worker, keep, data, token)

    def _on(self, worker: str, function: Callable, *arguments: Any) -> Any:
        """Call a function on a worker at once, even while a task runs there."""
        try:
            return self._client.run(function, *arguments, workers=[worker])[worker]
        except BalbenchError as error:
            raise type(error)(f"{worker}: {error}") from None
