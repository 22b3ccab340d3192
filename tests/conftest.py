"""Shared fixtures. Golden files and real data are not part of the project; tests of them skip where unset."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # as in a worker; tests run side by side


@pytest.fixture(scope="session")
def golden() -> Path:
    """The directory of inputs and outputs of the authors' own functions."""
    shared = os.environ.get("BALBENCH_SHARED")
    if not shared:
        pytest.skip("BALBENCH_SHARED is not set: no golden files of the authors' code")
    return Path(shared) / "golden"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The directory of real human preferences."""
    data = os.environ.get("BALBENCH_DATA") or os.environ.get("BALBENCH_SHARED", "")
    if not data:
        pytest.skip("BALBENCH_DATA is not set: no real human preferences")
    return Path(data) if "BALBENCH_DATA" in os.environ else Path(data) / "data"
