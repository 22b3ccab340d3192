"""Limits of the machine, and settings of a process that make results independent of the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Parts of the error messages of torch on a CPU without free memory, and of the CUDA libraries.
TORCH_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "_STATUS_ALLOC_FAILED")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MKL_CBWR = "MKL_CBWR"


def mkl_mode() -> str:
    """Return the value of MKL_CBWR for processes that train: the user's own, or AUTO.

    With AUTO, MKL selects the kernel of a matrix product independently of the number of products in a batch, so that
    a cell has the same results in a fleet as alone (see `balbench.harness.posteriors.fleet_check`).
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
        # In a container the group's name can be that of the host; the limit is then in the root.
        own_directory = root / group.lstrip("/")
        for directory in [own_directory, *own_directory.parents]:
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
    """Return whether an error means that memory is full (on a CPU, torch has no special type for this error)."""
    if isinstance(error, MemoryError):
        return True
    named = isinstance(error, RuntimeError) and any(words in str(error) for words in TORCH_OUT_OF_MEMORY)
    return named or type(error).__name__ == "OutOfMemoryError"


def duration(seconds: float) -> str:
    """Format seconds: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 cell, 25 cells."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def ranges(numbers: Iterable[int]) -> str:
    """Return distinct integers in ascending order, three or more consecutive integers as a range: 0 to 4, 9."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(texts)


def gib(number: int) -> str:
    """Format a number of bytes in GiB."""
    return f"{number / 2**30:,.1f} GiB"
