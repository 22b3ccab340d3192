"""Scoring a pool whose features are larger than memory: a million pairs at D 4096, float16 on disk.

Each head scores in a process of its own, which reports its memory above that of the model. The file (16 GB) repeats one
random block. BALBENCH_STREAM_PAIRS sets another number of pairs.
Run: tox -e speed -- benchmarks/speed/test_streaming.py (about a quarter of an hour)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from balbench.harness.pool.feature_table import StreamedTable
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.streams import stream
from balbench.harness.uncertainty import pair_probabilities, uncertainty
from paper_scale import PeakMemory

PAIRS = int(os.environ.get("BALBENCH_STREAM_PAIRS", 1_000_000))
DIMENSION, BLOCK = 4096, 16384
HEADS: dict[str, tuple[int, tuple[int, ...]]] = {  # members, hidden
    "5 x 4096-128-32-1": (5, (128, 32)),
    "1 x 4096-2048-256-1": (1, (2048, 256)),
}
LIMIT_GIB = 4.0
THREADS = 2
SPARE = 1.5  # free disk space that the test needs, as a multiple of the file


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of features, which is deleted at the end."""
    directory = tmp_path_factory.mktemp("streaming")
    needed, free = 2 * PAIRS * DIMENSION * 2, shutil.disk_usage(directory).free
    if free < SPARE * needed:
        pytest.skip(
            f"{needed / 1e9:.0f} GB of features need {SPARE * needed / 1e9:.0f} GB of disk, {free / 1e9:.0f} free"
        )
    path = directory / "features.npy"
    block_bD = stream(0, "features").numpy().standard_normal((BLOCK, DIMENSION), dtype=np.float32).astype(np.float16)
    try:
        with path.open("wb") as file:
            described = {"descr": "<f2", "fortran_order": False, "shape": (2 * PAIRS, DIMENSION)}
            np.lib.format.write_array_header_1_0(file, described)
            for start in range(0, 2 * PAIRS, BLOCK):
                block_bD[: 2 * PAIRS - start].tofile(file)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("head", HEADS)
def test_streaming(features: Path, head: str) -> None:
    command = [sys.executable, __file__, str(features), head]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\n{head}: {PAIRS:,} pairs in {measured['seconds']:.0f} s, {PAIRS / measured['seconds']:,.0f} pairs/s,"
        f" {features.stat().st_size / measured['seconds'] / 1e6:,.0f} MB/s read; above the model at most"
        f" {measured['resident']:.2f} GiB resident, {measured['anonymous']:.2f} GiB of it anonymous; {THREADS} threads"
    )
    assert measured["resident"] < LIMIT_GIB


def memory_gib(name: str) -> float:
    """GiB of this process's memory, from the kernel (VmRSS: resident now; VmHWM: the peak)."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 2**20


def score(path: Path, head: str) -> dict[str, float]:
    """Score all pairs; return the seconds, and the GiB above the model."""
    torch.set_num_threads(THREADS)
    members, hidden = HEADS[head]
    model = Ensemble(members=members, hidden=hidden, weight_std=0.03).initial_heads(DIMENSION, stream(0, "speed"))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    resident, anonymous = memory_gib("VmRSS"), PeakMemory()
    anonymous.start()
    started = time.perf_counter()
    table = StreamedTable.of(np.load(path, mmap_mode="r"), torch.device("cpu"))
    responses_N2 = torch.arange(len(table)).view(-1, 2)
    uncertainties = uncertainty(pair_probabilities(model.rewards_KR(table), responses_N2))
    assert uncertainties.epistemic_N.shape == (len(table) // 2,)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "resident": memory_gib("VmHWM") - resident, "anonymous": anonymous.stop()}


if __name__ == "__main__":
    print(json.dumps(score(Path(sys.argv[1]), sys.argv[2])))
