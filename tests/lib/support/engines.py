"""An engine in the process of the test, which fails on request."""

from concurrent.futures import Future
from dataclasses import replace

from balbench.harness.rounds.task import Task
from balbench.harness.rounds.worker import work


class InProcess:
    """Runs tasks immediately. An error of `before`, which is called with each task, becomes the error of the future."""

    location = "here"

    def __init__(self, slots=2, before=lambda task: None, seconds=None, free=None):
        self.slots, self.before, self.seconds, self._free = slots, before, seconds, free
        self.tasks: list[Task] = []
        self.closed = False

    def free_bytes(self):
        return self._free

    def submit(self, task):
        self.tasks.append(task)
        future = Future()
        try:
            self.before(task)
            report = work(task if self.seconds is None else replace(task, seconds=self.seconds))
            report.device = "cuda:3"
            future.set_result(report)
        except BaseException as error:
            future.set_exception(error)
        return future

    def close(self):
        self.closed = True
