"""The limits of the machine, and the settings of a process whose results must not depend on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Error messages of torch when a CPU has no memory left, and of the CUDA libraries.
TORCH_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "_STATUS_ALLOC_FAILED")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MKL_CBWR = "MKL_CBWR"


def mkl_mode() -> str:
    """Return the value of MKL_CBWR for processes that train: the user's own, or AUTO.

    MKL then chooses the kernel of a matrix product without regard to the number of products in a batch, so that a
    cell has the same results in a fleet as alone (see `balbench.harness.posteriors.fleet_check`).
    """
    return os.environ.get(MKL_CBWR) or "AUTO"


def worker_environment() -> dict[str, str]:
    """Return the environment variables of a process that trains; they must be set before torch is imported."""
    return dict.fromkeys(THREAD_VARIABLES, "1") | {MKL_CBWR: mkl_mode()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Let numpy, scipy and torch (if it is imported) compute on one thread.

    More threads sum in another order, so results would depend on the number of cores.
    """
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    with threadpool_limits(1):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(threads)


def usable_memory(own: Path = Path("/proc/self/cgroup"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes of memory that this process may use: the machine's, or the limit of its control group.

    Args:
        own: the file that names the process's groups.
        cgroups: the directory where control groups are mounted (version 1 or 2).
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, file = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        # A container may see its own group as the root, or the host's names; its limit is then in the root.
        place = root / group.lstrip("/")
        for directory in [place, *place.parents]:
            if directory == root or root in directory.parents:
                limits.append(_limit(directory / file))
    return min(limit for limit in limits if limit)


def _limit(path: Path) -> int:
    """Return the limit in a file of a control group; 0 if there is none."""
    try:
        text = path.read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory is full: Python's, or torch's (without its own type on a CPU)."""
    if isinstance(error, MemoryError):
        return True
    named = isinstance(error, RuntimeError) and any(words in str(error) for words in TORCH_OUT_OF_MEMORY)
    return named or type(error).__name__ == "OutOfMemoryError"


def duration(seconds: float) -> str:
    """Seconds for a reader: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def gib(number: int) -> str:
    """Format a number of bytes in GiB."""
    return f"{number / 2**30:,.1f} GiB"
