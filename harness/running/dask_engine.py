"""An engine that runs tasks on a Dask cluster. Dask reschedules the tasks of a worker that dies."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balbench.harness.errors import ClusterError, StudyError
from balbench.harness.machine import worker_environment
from balbench.harness.results import RunDirectory
from balbench.harness.rounds.task import Task
from balbench.harness.rounds.worker import free_bytes
from balbench.harness.running.dask_data import DataSender, Say
from balbench.harness.running.dask_worker import RemoteTask, TaskReply, perform, versions
from balbench.harness.running.engine import WorkerDied
from balbench.harness.running.placement import local_workers
from balbench.harness.running.signals import starting_processes

if TYPE_CHECKING:
    from distributed import Client
    from distributed import Future as DaskFuture

    from balbench.harness.rounds.task import TaskResult

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # a scheduler that does not answer within this time counts as lost
COUNT_SECONDS = 1.0  # time between two counts of the workers
SENDS = 100  # largest number of copies of its data that a task causes, because Dask can choose a new worker each time


def cluster_engine(address: str, device: str, directory: Path, say: Say | None = None) -> ClusterEngine:
    """Connect to a Dask scheduler, or start a cluster on this machine, and wait for the first worker.

    Arguments and errors are those of `connected`.
    """
    engine = connected(address, device, directory, say)
    engine.wait_for_worker()
    return engine


def connected(address: str, device: str, directory: Path, say: Say | None = None) -> ClusterEngine:
    """Connect to a Dask scheduler, or start a cluster on this machine.

    Args:
        address: `tcp://host:port`, `tls://host:port`, or `local:N` for N worker processes on this machine.
        device: "cpu", or "cuda", with which each task uses the resource GPU=1 of its worker.
        directory: the run directory, for the message about a lost cluster.
        say: called with lines for the user; by default lines are printed to standard error.

    Raises:
        StudyError: the address is wrong, no scheduler answers, or Dask is not installed.
    """
    count = local_workers(address)
    distributed = _distributed(address)
    cluster = None
    try:
        with _quiet():
            with starting_processes():
                cluster = _local_cluster(count, device) if count else None
            if cluster is None:
                asyncio.run(_greet(address))
            client = distributed.Client(cluster or address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, MemoryError) as error:  # MemoryError: bytes of another protocol are read as a length
        raise StudyError(
            f"cluster {address}: no scheduler answers there ({type(error).__name__}); start `dask scheduler` and give "
            "the address that it prints",
            setting="cluster",
        ) from None
    return ClusterEngine(client, address, device, directory, cluster, say)


async def _greet(address: str) -> None:
    """Check that a scheduler answers, because a Client that is connected to another service cannot be closed.

    Raises:
        OSError: no program answers in Dask's protocol.
        StudyError: another process of Dask answers, or certificates for tls are missing.
    """
    from distributed.core import rpc
    from distributed.security import Security

    options = Security().get_connection_args("client")
    if address.startswith("tls") and options.get("ssl_context") is None:
        raise StudyError(
            f"cluster {address}: needs certificates; give them in Dask's configuration, distributed.comm.tls",
            setting="cluster",
        )
    async with asyncio.timeout(2 * CONNECT_SECONDS):  # the timeout of rpc limits the connection, not the answer
        async with rpc(address, timeout=CONNECT_SECONDS, connection_args=options) as server:
            kind = (await server.identity())["type"]
    if kind != "Scheduler":
        raise StudyError(
            f"cluster {address}: a Dask {kind.lower()} answers there; give the scheduler's address", setting="cluster"
        )


def _distributed(address: str) -> Any:
    try:
        import distributed
    except ImportError as error:
        raise StudyError(
            f"cluster {address}: needs Dask ({error}); install it with `pip install 'balbench[cluster]'`",
            setting="cluster",
        ) from None
    for name in ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # the engine reports these errors once
    return distributed


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Dask's warning about versions, because the engine compares the relevant versions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _local_cluster(count: int, device: str) -> Any:
    """Start worker processes with one thread and one GPU each; a nanny restarts workers that die."""
    from distributed import Nanny, Scheduler, SpecCluster

    here = {"host": "127.0.0.1", "dashboard": False}
    worker = here | {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    worker["preload"] = [perform.__module__]  # dask_setup
    worker["env"] = worker_environment()
    workers = {number: {"cls": Nanny, "options": _with_gpu(worker, number, device)} for number in range(count)}
    scheduler = {"cls": Scheduler, "options": here | {"port": 0}}
    return SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)


def _with_gpu(worker: dict[str, Any], number: int, device: str) -> dict[str, Any]:
    """Return the options of a worker of this machine with the GPU that the worker uses."""
    if device == "cpu":
        return worker
    import torch

    names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    visible = names.split(",")
    env = worker["env"] | {"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]}
    return worker | {"resources": {"GPU": 1}, "env": env}


@dataclass(eq=False)
class _Job:
    """A task from its submission to its result."""

    task: Task
    result: Future[TaskResult]
    dask: DaskFuture | None = None
    sends: int = 0


class ClusterEngine:
    """An engine on a Dask cluster (see Engine). Closing the engine closes a cluster only if the engine started it."""

    def __init__(
        self,
        client: Client,
        address: str,
        device: str,
        directory: Path,
        cluster: Any = None,
        say: Say | None = None,
        trust_paths: bool = True,
    ) -> None:
        """Wrap a connected client.

        Args:
            client: the client of the cluster.
            address: the cluster's address, for messages.
            device: "cpu" or "cuda".
            directory: the run directory.
            cluster: a cluster to close with the engine.
            say: called with lines for the user.
            trust_paths: whether workers read data at the coordinator's path if the path exists; otherwise each worker
                receives a copy.
        """
        self.location = address
        self._client, self._cluster, self._trust_paths = client, cluster, trust_paths
        self._run = RunDirectory(directory)
        self._device = "cpu" if device == "cpu" else "cuda:0"  # a worker sees one GPU
        self._say = say or (lambda line: print(line, file=sys.stderr))
        self._versions = versions()
        self._seen_versions: set[tuple[str, ...]] = set()
        self._jobs: set[_Job] = set()
        self._sender = DataSender(client, self._say)
        self._lock = threading.Lock()
        self._arrivals = ThreadPoolExecutor(4, thread_name_prefix="balbench-cluster")
        self._slots, self._next_count = 0, 0.0

    @property
    def slots(self) -> int:
        """Number of tasks that can run at once: the present number of workers, or of their GPUs.

        Raises:
            ClusterError: the cluster is gone.
        """
        if time.monotonic() >= self._next_count:
            self._slots, self._next_count = len(self._workers()), time.monotonic() + COUNT_SECONDS
        return self._slots

    def wait_for_worker(self) -> None:
        """Wait until a worker has connected; jobs of a batch system can start much later.

        Raises:
            ClusterError: the cluster is gone.
        """
        if not self.slots:
            kind = "worker" if self._device == "cpu" else "worker with the resource GPU=1"
            self._say(f"the cluster at {self.location} has no {kind} yet; waiting for one")
        while not self.slots:
            time.sleep(COUNT_SECONDS)

    def _workers(self) -> list[str]:
        """Return the addresses of the workers that run tasks; on GPUs, a worker is listed once per GPU."""
        workers = self._call(self._client.scheduler.identity, n_workers=-1)["workers"]
        if self._device == "cpu":
            return list(workers)
        return [address for address, facts in workers.items() for _ in range(int(facts["resources"].get("GPU", 0)))]

    def _call(self, function: Callable, **arguments: Any) -> Any:
        """Call a coroutine of the client.

        Raises:
            ClusterError: the cluster is gone.
        """
        try:
            if self._client.status != "running":
                raise OSError
            return self._client.sync(function, **arguments, callback_timeout=ANSWER_SECONDS)
        except (OSError, AttributeError):  # distributed deletes its attributes when the connection breaks
            raise self._gone() from None

    def _gone(self) -> ClusterError:
        cells = (self._run.header or {"cells": []})["cells"]
        kept, total = sum(self._run.cell(cell["directory"]).count() for cell in cells), sum(c["rounds"] for c in cells)
        return ClusterError(
            f"the cluster at {self.location} is gone; {kept} of {total} rounds are kept in {self._run.path}; "
            "run the same command to resume"
        )

    def free_bytes(self) -> int | None:
        """See Engine; only workers that are connected now are considered.

        Raises:
            ClusterError: the cluster is gone.
        """
        if self._device == "cpu":
            return None
        self.wait_for_worker()
        workers = self._workers()
        try:
            free_of = self._client.run(free_bytes, self._device, workers=sorted(set(workers)))
        except (RuntimeError, AssertionError) as error:  # torch without CUDA, or no GPU
            raise StudyError(
                f"cluster {self.location}: a worker with GPU=1 cannot use a GPU ({error})", setting="cluster"
            ) from None
        return min(free // workers.count(address) for address, free in free_of.items())

    def submit(self, task: Task) -> Future[TaskResult]:
        """See Engine. If a worker dies, Dask runs its task on another worker, at most three times."""
        job = _Job(task, Future())
        self._jobs.add(job)
        self._send(job)
        return job.result

    def _send(self, job: _Job) -> None:
        from distributed.protocol.pickle import dumps

        task = dumps(job.task)
        data = self._sender.data_files(job.task.data)
        remote_task = RemoteTask(task, data, self._versions["balbench"], self._trust_paths)
        resources = None if self._device == "cpu" else {"GPU": 1}
        try:
            job.dask = self._client.submit(perform, remote_task, pure=False, resources=resources)
            job.dask.add_done_callback(lambda _: self._arrived(job))
        except Exception:
            if self._client.status == "running":
                raise
            self._end(job, self._gone())

    def _arrived(self, job: _Job) -> None:
        """Handle the reply in a separate thread, because Dask has only one thread for callbacks."""
        with suppress(RuntimeError):  # the engine is closed
            self._arrivals.submit(self._settle, job)

    def _settle(self, job: _Job) -> None:
        """Pass on the result of a job, or send the job again together with its data."""
        try:
            reply = self._reply(job)
            self._compare(reply)
            if reply.result is not None:
                reply.result.device = reply.worker
            if outcome := reply.result or reply.error:
                self._end(job, outcome)
                return
            job.sends += 1
            if job.sends > SENDS:
                raise ClusterError(f"{job.task.data}: workers of {self.location} lost the data {SENDS} times")
            self._sender.send(job.task.data, reply.worker)
            self._send(job)
        except BaseException as error:
            self._end(job, error)

    def _end(self, job: _Job, outcome: TaskResult | BaseException) -> None:
        self._jobs.discard(job)
        job.dask = None  # Dask forgets the result
        if job.result.done():
            return
        if isinstance(outcome, BaseException):
            job.result.set_exception(outcome)
        else:
            job.result.set_result(outcome)

    def _reply(self, job: _Job) -> TaskReply:
        from distributed import KilledWorker

        assert job.dask is not None
        try:
            return job.dask.result(timeout=ANSWER_SECONDS)
        except KilledWorker:
            raise WorkerDied from None
        except (ImportError, AttributeError) as error:
            raise self._other_code("the scheduler or a worker", f" ({error})") from None
        except BaseException as error:
            if self._client.status != "running" or job.dask.cancelled():
                raise self._gone() from None
            if isinstance(error, OSError):  # the worker died before its result was fetched
                raise WorkerDied from None
            if "deserializ" in str(error):
                raise self._other_code("the scheduler or a worker", f" ({error})") from None
            raise

    def _other_code(self, process: str, reason: str = "") -> StudyError:
        return StudyError(
            f"cluster {self.location}: {process} has other code of balbench than this machine{reason}; install the "
            "same version everywhere",
            setting="cluster",
        )

    def _compare(self, reply: TaskReply) -> None:
        """Report once how versions differ.

        Raises:
            StudyError: the code of balbench differs.
        """
        if reply.versions["balbench"] != self._versions["balbench"]:
            raise self._other_code(f"the worker at {reply.worker}")
        theirs = reply.versions.items()
        others = tuple(f"{name} {version}" for name, version in theirs if version != self._versions[name])
        with self._lock:
            if not others or others in self._seen_versions:
                return
            self._seen_versions.add(others)
        ours = ", ".join(f"{name} {self._versions[name]}" for name in (other.split()[0] for other in others))
        self._say(
            f"warning: {reply.worker} has {', '.join(others)}, this machine {ours}: its results may differ in their "
            "last digits"
        )

    def close(self) -> None:
        """See Engine."""
        self._arrivals.shutdown(wait=False, cancel_futures=True)
        futures = [job.dask for job in list(self._jobs) if job.dask is not None]
        with _quiet(), suppress(Exception):
            if futures and self._client.status == "running":
                self._client.cancel(futures, force=True)
        for part in (self._client, self._cluster):
            if part is not None:
                with _quiet(), suppress(Exception):
                    part.close(timeout=ANSWER_SECONDS / 3)
