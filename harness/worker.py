"""What runs inside a worker process: one cell at a time, on one thread."""

from __future__ import annotations

import os
import platform
import signal
import traceback
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import BalbenchError
from harness.files import disk_errors
from harness.results import RunDirectory
from harness.study import Cell

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Task:
    """A cell and where to run it."""

    cell: Cell
    run: Path
    device: str
    coordinator: int  # process id


def start_worker() -> None:
    """Prepare a worker process: one thread; Ctrl-C is the coordinator's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)


def work(task: Task) -> str | None:
    """Run what is left of a cell; return why it failed, or None.

    Raises:
        BalbenchError: the machine or the run directory is at fault (no cell can go on).
    """
    directory = RunDirectory(task.run)
    log = directory.cell(task.cell.directory)
    with log.lock():  # a worker of a killed coordinator ends its round first
        if log.finished:
            return None
        from harness.loop import run_cell  # here, so that the coordinator stays light

        try:
            world = _world(directory.data(task.cell.dataset_key), task.device)
            run_cell(task.cell, world, log, facts(task.device), go_on=lambda: os.getppid() == task.coordinator)
        except BalbenchError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            log.fail(reason, traceback.format_exc())
            return reason
    return None


@lru_cache(maxsize=1)
def _world(data: Path, device: str) -> Any:
    import torch

    from harness.loop import World
    from harness.pairs import PreferenceData
    from harness.policies.policy import PoolIndex

    loaded = PreferenceData.load(data, {})
    index = data / "index"
    with disk_errors(index):
        index.mkdir(exist_ok=True)
    return World(loaded, torch.device(device), PoolIndex(loaded.splits["pool"].pairs, cache=index))


def facts(device: str) -> dict[str, Any]:
    """What a manifest says of machine and versions: bytes are the same only where these are."""
    import numpy
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return {
        "device": name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }
