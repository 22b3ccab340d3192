"""How much memory there is."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def machine_bytes() -> int:
    """Memory that this process may use: the machine's, or less where it runs in a container that says so."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(found, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return found


def gib(number: int) -> str:
    """Bytes for a reader."""
    return f"{number / 2**30:,.1f} GiB"
