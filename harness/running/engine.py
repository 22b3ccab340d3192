"""Where tasks run: worker processes of this machine. (A cluster is another engine, harness/running/dask_engine.py.)"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from balbench.harness.rounds.worker import Task

if TYPE_CHECKING:
    from balbench.harness.rounds.fleet import TaskResult


class WorkerDied(Exception):
    """The worker of a task was lost, and what it did not return yet."""


class Engine(Protocol):
    """Runs tasks somewhere.

    Attributes:
        where: what they run on, for people: "cpu", "cuda:0, cuda:1", an address.
    """

    where: str

    @property
    def slots(self) -> int:
        """How many tasks can run at once; it may change."""
        ...

    def free_bytes(self) -> int | None:
        """Return the free memory of the fullest GPU for each of its tasks; None where tasks run on CPUs."""
        ...

    def submit(self, task: Task) -> Future[TaskResult]:
        """Start a task, of which no more than `slots` may run at once.

        The future raises WorkerDied where the worker was lost, BalbenchError where no task can go on. The engine
        sets the task's device and processes, and the report's device, for messages.
        """
        ...

    def close(self) -> None:
        """End all workers now, whatever they do."""
        ...
