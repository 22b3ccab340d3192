"""The choice of the engine that runs a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from balbench.harness.running.engine import Engine
from balbench.harness.running.local_engine import LocalEngine
from balbench.harness.running.placement import Placement


def make_engine(placement: Placement, directory: Path, say: Callable[[str], None]) -> Engine:
    """Make the engine of a placement; `say` is called with lines for the user.

    Raises:
        StudyError: there is no such device or cluster, or Dask is not installed.
    """
    if placement.cluster is None:
        return LocalEngine(placement.devices())
    from balbench.harness.running.dask_engine import cluster_engine

    return cluster_engine(placement.cluster, placement.cluster_device(), directory, say)
