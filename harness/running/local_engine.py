"""An engine of worker processes on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from loky import ProcessPoolExecutor
from loky.backend import resource_tracker as loky_tracker

from balbench.harness.errors import StudyError
from balbench.harness.machine import worker_environment
from balbench.harness.rounds.task import Task
from balbench.harness.rounds.worker import free_bytes, start_worker, work
from balbench.harness.running.engine import WorkerDied
from balbench.harness.running.signals import starting_processes

if TYPE_CHECKING:
    from balbench.harness.rounds.task import TaskResult


PICK_UP_SECONDS = 5.0  # upper bound; loky takes about a millisecond


@dataclass(eq=False)
class _Slot:
    """A slot for one worker process.

    Attributes:
        name: name of the device in this process.
        device: name of the device in the worker.
        environment: environment variables of the worker.
        executor: an executor of one process, so that the death of a worker affects no other; made at the first task.
        latest: the task that was submitted last.
        dataset_key: the data set that the worker has loaded.
    """

    name: str
    device: str
    environment: dict[str, str]
    executor: ProcessPoolExecutor | None = None
    latest: Future | None = None
    dataset_key: str = ""

    def submit(self, function: Callable, *arguments: Any) -> Future:
        # The trackers of loky and of Python unblock signals when they start, so they start before signals are blocked.
        loky_tracker.ensure_running()
        resource_tracker.ensure_running()
        with starting_processes():
            try:
                self.latest = self._ready().submit(function, *arguments)
            except BrokenProcessPool:  # the worker was killed while it was idle
                self.end(wait=False)
                self.latest = self._ready().submit(function, *arguments)
        return self.latest

    def _ready(self) -> ProcessPoolExecutor:
        if self.executor is None:
            self.executor = ProcessPoolExecutor(
                max_workers=1,
                initializer=start_worker,
                initargs=(os.getpid(),),
                env=worker_environment() | self.environment,
            )
        return self.executor

    def end(self, wait: bool) -> None:
        executor, self.executor, self.dataset_key = self.executor, None, ""
        if executor is not None:
            _picked_up(self.latest)
            executor.shutdown(wait=wait, kill_workers=True)


def _picked_up(future: Future | None) -> None:
    """Wait until loky's thread has taken a task, because an earlier shutdown prints a traceback to standard error."""
    deadline = time.monotonic() + PICK_UP_SECONDS
    while future is not None and not (future.running() or future.done()) and time.monotonic() < deadline:
        time.sleep(0.001)


class LocalEngine:
    """One worker process for each slot; a worker has access to its own GPU only (see Engine)."""

    def __init__(self, devices: Sequence[str]) -> None:
        """Make a slot for each entry of `devices` (cpu or cuda:i); a device listed twice gets two processes."""
        self.location = ", ".join(dict.fromkeys(devices))
        self._sharing = max(
            devices.count(device) for device in devices
        )  # number of workers that share a device, or the CPU's memory
        self._all = [_slot(device) for device in devices]
        self._idle = list(reversed(self._all))

    @property
    def slots(self) -> int:
        """See Engine."""
        return len(self._all)

    def free_bytes(self) -> int | None:
        """See Engine."""
        firsts = {slot.name: slot for slot in self._all if slot.device != "cpu"}
        futures = [slot.submit(free_bytes, slot.device) for slot in firsts.values()]
        try:
            return min(future.result() for future in futures) // self._sharing if futures else None
        except BrokenProcessPool:
            raise StudyError(
                f"device {self.location}: a worker died as it started; try cpu", setting="device"
            ) from None

    def submit(self, task: Task) -> Future[TaskResult]:
        """See Engine."""
        loaded = (slot for slot in self._idle if slot.dataset_key == task.dataset_key)
        slot = next(loaded, self._idle[-1])
        self._idle.remove(slot)
        slot.dataset_key = task.dataset_key
        returned: Future[TaskResult] = Future()
        inner = slot.submit(work, replace(task, device=slot.device, processes=self._sharing))
        inner.add_done_callback(lambda done: self._returned(done, slot, returned))
        return returned

    def _returned(self, inner: Future, slot: _Slot, outer: Future) -> None:
        """Free the slot, then pass on the result; called in a thread of the executor."""
        self._idle.append(slot)
        error = inner.exception()
        if error is not None:
            outer.set_exception(WorkerDied() if isinstance(error, BrokenProcessPool) else error)
            return
        result: TaskResult = inner.result()
        result.device = slot.name
        outer.set_result(result)

    def close(self) -> None:
        """See Engine."""
        for slot in self._all:
            slot.end(wait=True)


def _slot(device: str) -> _Slot:
    """Return a slot on a device of this process; the environment of the worker is set before torch starts there."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return _Slot(device, device, {})
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    name = visible.split(",")[int(number)].strip() if visible else number
    return _Slot(device, "cuda:0", {"CUDA_VISIBLE_DEVICES": name})
