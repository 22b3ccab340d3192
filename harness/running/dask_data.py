"""Data sets on their way to Dask workers that do not see the coordinator's disk.

Imports stay light, as Dask's scheduler imports this module too.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balbench.harness.errors import BalbenchError
from balbench.harness.files import disk_errors

if TYPE_CHECKING:
    from distributed import Client

DATA_FACTS = "data.json"
STALE_SECONDS = 24 * 3600.0  # after which a half-sent data set is taken for abandoned
CHUNK_BYTES = 32 * 2**20

Say = Callable[[str], None]


@dataclass(frozen=True)
class DataFiles:
    """What a worker must find to use a directory as a data set.

    Attributes:
        place: where the coordinator has it.
        facts: the bytes of its data.json.
        files: names and sizes of all files.
        digest: hash of all bytes; "" until it is needed (a worker does not see `place`).
    """

    place: Path
    facts: bytes
    files: tuple[tuple[str, int], ...]
    digest: str = ""

    def is_at(self, place: Path) -> bool:
        """Whether a directory of this machine holds the data set, whole."""
        try:
            return (place / DATA_FACTS).read_bytes() == self.facts and all(
                (place / name).stat().st_size == size for name, size in self.files
            )
        except OSError:
            return False

    @property
    def cache(self) -> Path:
        """Where this machine keeps the data set if it was sent."""
        from balbench.harness.datasets.feature_cache import cache_directory

        return cache_directory() / "data" / self.digest[:32]

    def find(self, trust_place: bool) -> Path | None:
        """Where this machine has the data set: at the same path, or in its cache; None where it does not."""
        if trust_place and self.is_at(self.place):
            return self.place
        return self.cache if self.digest and self.is_at(self.cache) else None


def data_files(place: Path) -> DataFiles:
    """Describe a data set of this machine, without its digest."""
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
    """Write a piece of a file of a data set that the coordinator sends; pieces come in order.

    Raises:
        BalbenchError: the cache cannot be written.
    """
    place = _unfinished(data, token)
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with (place / name).open("ab" if offset else "wb") as file:
            if file.tell() != offset:
                raise RuntimeError(f"{place / name}: a piece is missing before byte {offset}")
            file.write(chunk)


def keep(data: DataFiles, token: str) -> None:
    """Give a data set that was received whole its name, unless another worker of this machine was faster.

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
        for other in data.cache.parent.glob(".*.tmp"):
            if time.time() - other.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


def _unfinished(data: DataFiles, token: str) -> Path:
    return data.cache.with_name(f".{data.cache.name}.{token}.tmp")


class DataSender:
    """The coordinator's side: sees that workers have the data sets that their tasks need."""

    def __init__(self, client: Client, say: Say) -> None:
        """Send by the client of a cluster, and say what is sent."""
        self._client, self._say = client, say
        self._known: dict[Path, DataFiles] = {}
        self._sending: dict[tuple[str, Path], threading.Lock] = {}
        self._lock = threading.Lock()

    def data_files(self, place: Path) -> DataFiles:
        """What a worker must find to use a directory of this machine; with a digest once it was sent to one."""
        with self._lock:
            if place not in self._known:
                self._known[place] = data_files(place.absolute())
            return self._known[place]

    def send(self, place: Path, worker: str) -> None:
        """See that a worker has a data set.

        A worker that is lost meanwhile is none of our business: Dask gives its task to another, which asks again.

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
        """Call a function on a worker at once, whatever it runs."""
        try:
            return self._client.run(function, *arguments, workers=[worker])[worker]
        except BalbenchError as error:
            raise type(error)(f"{worker}: {error}") from None
