"""The contract of engines, which run tasks: on this machine (local_engine.py) or on a cluster (dask_engine.py)."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from balbench.harness.rounds.task import Task

if TYPE_CHECKING:
    from balbench.harness.rounds.task import TaskResult


class WorkerDied(Exception):
    """The worker of a task died; rounds that it had not returned are lost."""


class Engine(Protocol):
    """Runs tasks somewhere.

    Attributes:
        where: devices or address, for messages: "cpu", "cuda:0, cuda:1", "tcp://node1:8786".
    """

    where: str

    @property
    def slots(self) -> int:
        """How many tasks can run at once; the number may change."""
        ...

    def free_bytes(self) -> int | None:
        """Return the free memory of the fullest GPU for each of its tasks; None where tasks run on CPUs."""
        ...

    def submit(self, task: Task) -> Future[TaskResult]:
        """Start a task; at most `slots` tasks may run at once.

        The future raises WorkerDied if the worker died, and BalbenchError if no task can run any more. The engine
        sets the task's device and processes, and the device of the result, for messages.
        """
        ...

    def close(self) -> None:
        """End all workers at once, even while they run tasks."""
        ...
