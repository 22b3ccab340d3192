"""What may be used of a machine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from balbench.harness.machine import (
    THREAD_VARIABLES,
    duration,
    mkl_mode,
    one_thread,
    out_of_memory,
    ranges,
    usable_memory,
    worker_environment,
)


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


def test_a_worker_has_one_thread_and_the_users_own_mkl_mode(monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    assert worker_environment()["MKL_CBWR"] == "AUTO"
    assert {worker_environment()[name] for name in THREAD_VARIABLES} == {"1"}
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert worker_environment()["MKL_CBWR"] == mkl_mode() == "AVX2"


def test_one_thread_limits_numpy_and_torch_and_restores_them():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    pools = [pool["num_threads"] for pool in threadpool_info()]
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        assert torch.get_num_threads() == 2
        assert [pool["num_threads"] for pool in threadpool_info()] == pools
    finally:
        torch.set_num_threads(before)


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
        actual = self.limits(
            tmp_path, "0::/a/b\n", a__b__memory_max="max\n", a__memory_max="70000\n", memory_max="90000"
        )
        assert actual == 70000

    def test_a_container_sees_its_limit_at_the_root(self, tmp_path):
        assert self.limits(tmp_path, "0::/of/the/host\n", memory_max="12345\n") == 12345

    def test_no_limit(self, tmp_path):
        assert self.limits(tmp_path, "0::/\n", memory_max="max\n") == self.MACHINE

    def test_version_1(self, tmp_path):
        (tmp_path / "cgroup/memory/a").mkdir(parents=True)
        (tmp_path / "cgroup/memory/memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
        (tmp_path / "cgroup/memory/a/memory.limit_in_bytes").write_text("4096\n")
        assert self.limits(tmp_path, "3:cpu,cpuacct:/a\n2:memory:/a\n") == 4096


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([1, 0], "0, 1"), ([9, 0, 2, 1], "0 to 2, 9"), (range(20), "0 to 19")]
)
def test_ranges(numbers, text):
    assert ranges(numbers) == text
