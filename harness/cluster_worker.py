"""What a Dask worker runs: it compares versions, looks for the data, and does the task.

Imports stay light, as Dask's scheduler imports this module too.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import platform
import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import CELL_ERRORS, BalbenchError, StudyError
from harness.files import disk_errors

if TYPE_CHECKING:
    from harness.fleet import Report

DATA_FACTS = "data.json"
COMPARED = ("torch", "numpy")  # whose version may change a result's last digits
STALE_SECONDS = 24 * 3600.0  # after which a half-sent data set is taken for abandoned

_one_at_a_time = threading.Lock()  # a worker of several threads still runs one task, or they would share its data set


def dask_setup(worker: object) -> None:
    """Prepare a worker of this machine (`--preload`): signals are the coordinator's business."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class DataSet:
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
        from harness.datasets.feature_cache import cache_directory

        return cache_directory() / "data" / self.digest[:32]

    def find(self, trust_place: bool) -> Path | None:
        """Where this machine has the data set: at the same path, or in its cache; None where it does not."""
        if trust_place and self.is_at(self.place):
            return self.place
        return self.cache if self.digest and self.is_at(self.cache) else None


def data_set(place: Path) -> DataSet:
    """Describe a data set of this machine, without its digest."""
    facts = (place / DATA_FACTS).read_bytes()
    names = [*json.loads(facts)["files"], DATA_FACTS]
    return DataSet(place, facts, tuple((name, (place / name).stat().st_size) for name in names))


def with_digest(data: DataSet) -> DataSet:
    """Read all bytes of a data set of this machine and hash them."""
    digest = hashlib.sha256()
    for name, size in data.files:
        with (data.place / name).open("rb") as file:
            digest.update(f"{name} {size} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return replace(data, digest=digest.hexdigest())


@dataclass(frozen=True)
class Parcel:
    """A task on its way to a worker.

    Attributes:
        task: the pickled Task; opened only where the code is the same.
        data: its data set.
        code: digest of the coordinator's code.
        trust_place: whether the data may be used where the coordinator has them, if this machine has them there too.
    """

    task: bytes
    data: DataSet
    code: str
    trust_place: bool


@dataclass
class Reply:
    """What came of a parcel.

    Attributes:
        worker: its address.
        versions: see `versions`.
        report: of the task; None where the code differs, the data are missing, or it failed.
        error: why it failed; BalbenchError where the machine is at fault.
    """

    worker: str
    versions: dict[str, str]
    report: Report | None = None
    error: BaseException | None = None


def perform(parcel: Parcel) -> Reply:
    """Do a task on this worker, if it can be done here. What is raised, not returned, is Dask's."""
    from distributed import get_worker

    reply = Reply(get_worker().address, versions())
    if reply.versions["balbench"] == parcel.code and (place := parcel.data.find(parcel.trust_place)) is not None:
        try:
            reply.report = _do(parcel, place)
        except BalbenchError as error:
            reply.error = type(error)(f"{reply.worker}: {error}")
        except CELL_ERRORS as error:
            reply.error = error
    return reply


def _do(parcel: Parcel, place: Path) -> Report:
    from harness.worker import work

    try:
        task = pickle.loads(parcel.task)
    except (ImportError, AttributeError) as error:
        raise StudyError(f"cannot read a task ({error}); install what the study names there too") from None
    with _one_at_a_time:
        _use_one_thread()
        return work(replace(task, data=place))


@lru_cache
def _use_one_thread() -> None:
    """As local workers do: more threads would sum in another order."""
    import torch

    torch.set_num_threads(1)


@lru_cache
def versions() -> dict[str, str]:
    """What results depend on: Python, libraries, and a digest of our own code."""
    found = {name: metadata.version(name).partition("+")[0] for name in COMPARED}
    return {"Python": platform.python_version(), **found, "balbench": _code_digest()}


def _code_digest() -> str:
    digest, packages = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(path for package in ("harness", "oracles") for path in (packages / package).rglob("*.py")):
        digest.update(str(path.relative_to(packages)).encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()


def receive(data: DataSet, token: str, name: str, offset: int, chunk: bytes) -> None:
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


def keep(data: DataSet, token: str) -> None:
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


def _unfinished(data: DataSet, token: str) -> Path:
    return data.cache.with_name(f".{data.cache.name}.{token}.tmp")
