"""What may be used of a machine."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from balbench.harness.machine import out_of_memory, usable_cores, usable_memory


def test_errors_of_a_memory_that_is_full():
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**58, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**58, dtype=np.uint8)
    assert out_of_memory(of_torch.value)
    assert out_of_memory(of_numpy.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert not out_of_memory(OSError("DefaultCPUAllocator: can't allocate memory"))


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert usable_cores() == 9


class TestUsableMemory:
    MACHINE = usable_memory(own=Path("/nonexistent"))

    def limits(self, tmp_path, own, **files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_max", ".max")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return usable_memory(tmp_path / "own", tmp_path / "cgroup")

    def test_of_the_machine(self, tmp_path):
        assert self.MACHINE > 2**28
        assert usable_memory(tmp_path / "none", tmp_path) == self.MACHINE

    def test_the_lowest_limit_of_all_groups_above(self, tmp_path):
        found = self.limits(
            tmp_path, "0::/a/b\n", a__b__memory_max="max\n", a__memory_max="70000\n", memory_max="90000"
        )
        assert found == 70000

    def test_a_container_sees_its_limit_at_the_root(self, tmp_path):
        assert self.limits(tmp_path, "0::/of/the/host\n", memory_max="12345\n") == 12345

    def test_no_limit(self, tmp_path):
        assert self.limits(tmp_path, "0::/\n", memory_max="max\n") == self.MACHINE

    def test_version_1(self, tmp_path):
        (tmp_path / "cgroup/memory/a").mkdir(parents=True)
        (tmp_path / "cgroup/memory/memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
        (tmp_path / "cgroup/memory/a/memory.limit_in_bytes").write_text("4096\n")
        assert self.limits(tmp_path, "3:cpu,cpuacct:/a\n2:memory:/a\n") == 4096
