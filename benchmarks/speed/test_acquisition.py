"""BAL-PM's acquisition at the paper's number of prompts: the index once, then one batch for each variant.

92,000 pairs of 14,700 prompts, D 384, 12,000 labels bought, 320 picks, one thread as in a worker.
Run: tox -e speed -- benchmarks/speed/test_acquisition.py
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from harness.datasets.simulated import Simulated
from harness.policies.bal_pm import BalPm
from harness.policies.policy import PoolIndex, PoolView
from harness.streams import stream

LABELS, PICKS = 12_000, 320
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "as_coded, no shift": {"variant": "as_coded", "shift_features": False},
    "as_coded": {"variant": "as_coded"},
}


@pytest.fixture(scope="module")
def view() -> Iterator[PoolView]:
    """A late round of a study, with the index built and its seconds printed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = Simulated.model_validate({"preset": "tldr_like"}).build(lambda *_: None).splits["pool"].pairs
    index, order = PoolIndex(pool), stream(0, "speed").numpy().permutation(len(pool))
    started = time.perf_counter()
    points = len(index.neighbours)
    print(f"\nneighbour index of {points:,} prompts: {time.perf_counter() - started:.1f} s, once")
    rewards_KR = 0.1 * torch.randn(5, len(pool.response_features_RD), generator=stream(0, "rewards").torch())
    yield PoolView(index, np.sort(order[LABELS:]), order[:LABELS], rewards_KR, 1)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", VARIANTS)
def test_one_batch(benchmark: Any, view: PoolView, name: str) -> None:
    policy = BalPm.model_validate(VARIANTS[name])
    selection = benchmark.pedantic(policy.select, args=(view, PICKS, stream(0)), rounds=3, warmup_rounds=1)
    assert len(selection.pairs_B) == PICKS
