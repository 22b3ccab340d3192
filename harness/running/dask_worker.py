"""The code of a Dask worker: it compares versions, finds the data, and runs a task.

Imports stay light, as Dask's scheduler imports this module too.
"""

from __future__ import annotations

import os
import pickle
import platform
import signal
import sys
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from balbench.harness.errors import CELL_ERRORS, BalbenchError, StudyError
from balbench.harness.machine import MKL_CBWR, mkl_mode
from balbench.harness.running.dask_data import DataFiles
from balbench.harness.running.signals import STOPPING
from balbench.harness.source_hash import code_digest

if TYPE_CHECKING:
    from balbench.harness.rounds.task import TaskResult

COMPARED = ("torch", "numpy")  # libraries whose version can change the last digits of a result

_one_at_a_time = threading.Lock()  # a worker with several threads runs one task at a time, because tasks share its data


def dask_setup(worker: object) -> None:
    """Prepare a worker of this machine (Dask's `--preload`): the worker ignores signals."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class RemoteTask:
    """A task that is sent to a worker.

    Attributes:
        task: the pickled Task; a worker unpickles it only if its code is the same.
        data: the data set of the task.
        code: digest of the coordinator's code.
        trust_path: whether the worker uses the data at the coordinator's path, if the data are there.
    """

    task: bytes
    data: DataFiles
    code: str
    trust_path: bool


@dataclass
class TaskReply:
    """A worker's reply to a task.

    Attributes:
        worker: address of the worker.
        versions: see `versions`.
        result: result of the task; None if the code differs, the data are missing, or the task failed.
        error: the error of a failed task; a BalbenchError if no task can continue.
    """

    worker: str
    versions: dict[str, str]
    result: TaskResult | None = None
    error: BaseException | None = None


def perform(remote: RemoteTask) -> TaskReply:
    """Run a task if this worker has the same code and the data. Errors of the task are returned in the reply."""
    from distributed import get_worker

    reply = TaskReply(get_worker().address, versions())
    if reply.versions["balbench"] == remote.code and (path := remote.data.find(remote.trust_path)) is not None:
        try:
            reply.result = _run(remote, path)
        except BalbenchError as error:
            reply.error = type(error)(f"{reply.worker}: {error}")
        except CELL_ERRORS as error:
            reply.error = error
    return reply


def _run(remote: RemoteTask, data: Path) -> TaskResult:
    if "torch" not in sys.modules:  # later changes of the variable have no effect
        os.environ[MKL_CBWR] = mkl_mode()
    from balbench.harness.rounds.worker import work

    try:
        task = pickle.loads(remote.task)
    except (ImportError, AttributeError) as error:
        raise StudyError(f"cannot read a task ({error}); install the study's plug-ins there too") from None
    with _one_at_a_time:
        return work(replace(task, data=data))


@lru_cache
def versions() -> dict[str, str]:
    """Return the versions that results depend on: Python, libraries, and a digest of the code of balbench."""
    libraries = {name: metadata.version(name).partition("+")[0] for name in COMPARED}
    return {"Python": platform.python_version(), **libraries, "balbench": code_digest()}
