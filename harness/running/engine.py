"""The contract of engines, which run tasks on this machine (local_engine.py) or on a cluster (dask_engine.py)."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from balbench.harness.rounds.task import Task

if TYPE_CHECKING:
    from balbench.harness.rounds.task import TaskResult


class WorkerDied(Exception):
    """The worker of a task died; rounds that the worker had not returned are lost."""


class Engine(Protocol):
    """Runs tasks on worker processes.

    Attributes:
        location: devices or address, for messages: "cpu", "cuda:0, cuda:1", "tcp://node1:8786".
    """

    location: str

    @property
    def slots(self) -> int:
        """Number of tasks that can run at once; the number can change."""
        ...

    def free_bytes(self) -> int | None:
        """Return the free memory for each task of the fullest GPU; None if tasks run on CPUs."""
        ...

    def submit(self, task: Task) -> Future[TaskResult]:
        """Start a task; at most `slots` tasks can run at once.

        The future raises WorkerDied if the worker died, and BalbenchError if no task can run any more. The engine
        sets device and processes of the task, and the device of the result.
        """
        ...

    def close(self) -> None:
        """End all workers at once, even while they run tasks."""
        ...
