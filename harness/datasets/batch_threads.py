"""Batches of texts on several threads, each batch computed by one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import numpy as np

from balbench.harness.datasets.text_encoder import Batch, TextEncoder
from balbench.harness.machine import one_thread

Array = np.ndarray
Model = TypeVar("Model", bound=TextEncoder)
AHEAD = 2  # batches for each thread in progress: the batch that the thread computes, and the next


def batch_threads(model: TextEncoder) -> int:
    """Return how many batches are computed at the same time: as many as torch has threads on a CPU, 1 on a GPU."""
    import torch

    return torch.get_num_threads() if model.device_type == "cpu" else 1


def compute_batches(
    model: Model, compute: Callable[[Model, Batch], Array], batches: Sequence[Batch]
) -> Generator[tuple[Batch, Array], None, None]:
    """Yield each batch with `compute(model, batch)`, in the order of `batches`.

    On a CPU one thread computes a batch from beginning to end: several threads in one matrix product may sum in another
    order, so the last bits of features would depend on the number of cores. A GPU computes one batch after another.

    A caller that stops early must close the iterator. Closing waits for the batches that threads have begun.

    Args:
        model: the encoder or language model; each thread has a replica.
        compute: returns the results of a batch. Its errors are raised here, after the results of earlier batches.
        batches: the batches to compute; at most `AHEAD` for each thread are computed before the caller asks for them.
    """
    if model.device_type != "cpu":
        yield from ((batch, compute(model, batch)) for batch in batches)
        return
    threads = min(batch_threads(model), len(batches))
    replicas: SimpleQueue[Model] = SimpleQueue()
    for _ in range(threads):
        replicas.put(model.replica())

    def compute_one(batch: Batch) -> Array:
        replica = replicas.get()
        try:
            return compute(replica, batch)
        finally:
            replicas.put(replica)

    if batches:
        with one_thread():
            yield from _in_order(compute_one, batches, threads)


def _in_order(
    compute: Callable[[Batch], Array], batches: Sequence[Batch], threads: int
) -> Generator[tuple[Batch, Array], None, None]:
    """Yield the results of a pool of threads in order; cancel what has not begun if the caller stops."""
    import torch

    pending: deque[tuple[Batch, Future[Array]]] = deque()
    # torch has a number of threads for each thread of Python.
    pool = ThreadPoolExecutor(threads, "balbench-batches", torch.set_num_threads, (1,))
    try:
        for batch in batches:
            pending.append((batch, pool.submit(compute, batch)))
            if len(pending) == AHEAD * threads:
                yield _oldest(pending)
        while pending:
            yield _oldest(pending)
    finally:
        pool.shutdown(cancel_futures=True)


def _oldest(pending: deque[tuple[Batch, Future[Array]]]) -> tuple[Batch, Array]:
    batch, future = pending.popleft()
    return batch, future.result()
