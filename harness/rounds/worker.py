"""The code of a worker process, on this or another machine: it runs rounds of a fleet on one thread.

A worker writes caches only. It returns rounds to the coordinator, which stores them.
"""

from __future__ import annotations

import gc
import os
import platform
import signal
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balbench.harness.errors import DataError
from balbench.harness.files import disk_errors
from balbench.harness.machine import MKL_CBWR, one_thread, out_of_memory
from balbench.harness.rounds.task import Features, Task, TaskResult

if TYPE_CHECKING:
    from balbench.harness.rounds.device_data import DeviceData

WATCH_SECONDS = 1.0


def start_worker(coordinator: int) -> None:
    """Prepare a local worker process, which ignores signals and ends when the coordinator ends.

    Args:
        coordinator: process id of the coordinator.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(coordinator,), daemon=True).start()
    from loky import process_executor

    process_executor._USE_PSUTIL = (
        False  # loky would stop workers whose memory grows by 300 MB, as it does with mapped features
    )


def _end_with(coordinator: int) -> None:
    while os.getppid() == coordinator:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def work(task: Task) -> TaskResult:
    """Run rounds of a fleet on one thread until the task's seconds are over; results depend on the task only.

    Raises:
        BalbenchError: the machine or the input is at fault, so that no cell can continue.
    """
    import torch

    with one_thread():
        result = _work(task)
    if result.out_of_memory and torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()  # frees memory for other processes on this device
    return result


def _work(task: Task) -> TaskResult:
    from balbench.harness.rounds.fleet import advance

    data = _load(task)
    deadline, started = time.monotonic() + task.seconds, False

    def should_continue() -> bool:
        nonlocal started
        first, started = not started, True
        return first or time.monotonic() < deadline

    result = advance(task.cells, task.pasts, data, should_continue)
    result.facts = facts(task.device)
    return result


def _load(task: Task) -> DeviceData:
    try:
        return _device_data(task.data, task.device, task.features, task.processes)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        memory = "the GPU's memory" if task.device.startswith("cuda") else "memory"
        raise DataError(f"{task.data}: the data set does not fit into {memory}; set `features` to streamed") from None


@lru_cache(maxsize=1)
def _device_data(data: Path, device: str, features: Features, processes: int) -> DeviceData:
    import torch

    from balbench.harness.pool.index import PoolIndex
    from balbench.harness.pool.pairs import PreferenceData
    from balbench.harness.rounds.device_data import DeviceData

    loaded = PreferenceData.load(data, {})
    index = data / "index"
    with disk_errors(index):
        index.mkdir(exist_ok=True)
    pool_index = PoolIndex(loaded.splits["pool"].pairs, cache=index)
    return DeviceData(loaded, torch.device(device), pool_index, features, processes)


def facts(device: str) -> dict[str, Any]:
    """Return the machine and versions for a manifest; results are byte-identical only if these are equal."""
    import numpy
    import torch

    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        MKL_CBWR: os.environ.get(MKL_CBWR, ""),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def free_bytes(device: str) -> int | None:
    """Return the free memory of a GPU; None for a CPU."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else None
