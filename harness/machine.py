"""What this process may use of its machine."""

from __future__ import annotations

import os
from pathlib import Path

# What torch says where a CPU has no memory left, and what the libraries of CUDA say.
TORCH_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "_STATUS_ALLOC_FAILED")


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_memory(own: Path = Path("/proc/self/cgroup"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this process may use: what the machine has, or less where its control group allows less.

    Args:
        own: names the process's groups.
        cgroups: where control groups are mounted (version 1 or 2).
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, file = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        # A container may see its own group as the root, or the names of its host: then its limit stands in the root.
        place = root / group.lstrip("/")
        for directory in [place, *place.parents]:
            if directory == root or root in directory.parents:
                limits.append(_limit(directory / file))
    return min(limit for limit in limits if limit)


def _limit(path: Path) -> int:
    """The limit that a file of a control group sets; 0 for none."""
    try:
        told = path.read_text().strip()
    except OSError:
        return 0
    return int(told) if told.isdecimal() else 0


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left: Python's, or torch's, which on a CPU has no type."""
    if isinstance(error, MemoryError):
        return True
    words = isinstance(error, RuntimeError) and any(told in str(error) for told in TORCH_OUT_OF_MEMORY)
    return words or type(error).__name__ == "OutOfMemoryError"


def duration(seconds: float) -> str:
    """Seconds for a reader: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def gib(number: int) -> str:
    """Bytes for a reader."""
    return f"{number / 2**30:,.1f} GiB"
