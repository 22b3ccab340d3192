"""Shared fixtures. Large golden vectors and real data are not part of the project; tests that need them may skip."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from balbench.harness.machine import MKL_CBWR, mkl_mode

os.environ[MKL_CBWR] = mkl_mode()  # the value in workers; torch reads the variable when it is imported

import torch

VECTORS = Path(__file__).parent / "golden" / "vectors"

torch.set_num_threads(1)  # workers use one thread, and tests run in parallel

# Tests have a separate cache and copy no finished cells from other run directories, so a run in a test runs all cells.
os.environ["BALBENCH_CACHE"] = tempfile.mkdtemp(prefix="balbench-tests-")
os.environ["BALBENCH_REUSE"] = "off"
atexit.register(shutil.rmtree, os.environ["BALBENCH_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Reads inputs and outputs of the authors' own functions by name (see tests/golden/vectors/README.md)."""

    def read(name: str) -> dict[str, np.ndarray]:
        path = VECTORS / f"{name}.npz"
        if not path.exists():
            shared = os.environ.get("BALBENCH_SHARED")
            if not shared:
                pytest.skip(f"{name} is one of the large vectors, and BALBENCH_SHARED is not set")
            path = Path(shared) / "golden" / path.name
        with np.load(path) as arrays:
            return dict(arrays)

    return read


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory of real human preferences."""
    data = os.environ.get("BALBENCH_DATA") or os.environ.get("BALBENCH_SHARED", "")
    if not data:
        pytest.skip("BALBENCH_DATA is not set: no real human preferences")
    return Path(data) if "BALBENCH_DATA" in os.environ else Path(data) / "data"
