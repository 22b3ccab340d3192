"""A Dask cluster of processes of this machine, for tests of what happens when parts of it die."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[3]
SECONDS = 120  # for anything that is waited for


class DaskCluster:
    """A scheduler and workers, each with a nanny. Use it as a context.

    Attributes:
        address: of the scheduler.
        workers: the nannies.
    """

    def __init__(self, directory: Path, workers: int = 0, environment: dict[str, str] | None = None) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        place = directory / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", place, environment=environment)
        wait_for(lambda: place.exists() and place.stat().st_size)  # the file exists before it is written
        self.address: str = json.loads(place.read_text())["address"]
        self.workers = [self.add_worker() for _ in range(workers)]

    def __enter__(self) -> "DaskCluster":
        return self

    def __exit__(self, *error: object) -> None:
        for process in [*self.workers, self.scheduler]:
            kill_tree(process)

    def add_worker(
        self, *options: object, prefix: tuple[object, ...] = (), environment: dict[str, str] | None = None
    ) -> subprocess.Popen:
        """Start one more worker of one thread and wait until it is there."""
        before = len(self.pids())
        threads = ("--nthreads", "1", "--memory-limit", "0", "--local-directory", self._directory / "dask")
        process = self._start("worker", self.address, *threads, *options, prefix=prefix, environment=environment)
        wait_for(lambda: len(self.pids()) > before)
        return process

    def pids(self) -> dict[str, int]:
        """Process ids of the workers, by address."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return client.run(os.getpid, on_error="ignore")  # a worker may just be dying

    def lost_tasks(self) -> int:
        """How many tasks were on workers that died."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return client.run_on_scheduler(suspicious)

    def _start(
        self,
        *arguments: object,
        prefix: tuple[object, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen:
        command = [*prefix, sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        path = os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests" / "lib")))
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [str(part) for part in command],
                env=os.environ | {"PYTHONPATH": path} | (environment or {}),
                cwd=self._directory,
                stdout=log,
                stderr=log,
            )


def suspicious(dask_scheduler) -> int:
    """How often tasks were on a worker that died; runs in the scheduler."""
    return sum(prefix.suspicious for prefix in dask_scheduler.task_prefixes.values())


def kill_tree(process: subprocess.Popen) -> None:
    """Kill -9 a process and all that it started."""
    try:
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        family = []
    for number in family:
        kill(number)
    process.wait()


def kill(number: int) -> None:
    """Kill -9 a process, if there is one."""
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL)


def wait_for(ready: Callable[[], object]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + SECONDS
    while not ready():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
