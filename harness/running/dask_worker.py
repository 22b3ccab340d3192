"""What a Dask worker runs: it compares versions, looks for the data, and does the task.

Imports stay light, as Dask's scheduler imports this module too.
"""

from __future__ import annotations

import hashlib
import pickle
import platform
import signal
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from balbench.harness.errors import CELL_ERRORS, BalbenchError, StudyError
from balbench.harness.running.dask_data import DataSet

if TYPE_CHECKING:
    from balbench.harness.rounds.fleet import TaskResult

COMPARED = ("torch", "numpy")  # whose version may change a result's last digits

_one_at_a_time = threading.Lock()  # a worker of several threads still runs one task, or they would share its data set


def dask_setup(worker: object) -> None:
    """Prepare a worker of this machine (`--preload`): signals are the coordinator's business."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


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
    report: TaskResult | None = None
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


def _do(parcel: Parcel, place: Path) -> TaskResult:
    from balbench.harness.rounds.worker import work

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
    digest, packages = hashlib.sha256(), Path(__file__).parents[2]
    for path in sorted(path for package in ("harness", "oracles") for path in (packages / package).rglob("*.py")):
        digest.update(str(path.relative_to(packages)).encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()
