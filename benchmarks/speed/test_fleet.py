"""Fleets on one thread: how many cells' trainings a minute, by the size of the fleet, against one cell at a time.

Run: tox -e speed -- benchmarks/speed/test_fleet.py (about three minutes). The heads are those that a CPU trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from harness.posteriors.ensemble import Ensemble
from harness.posteriors.posterior import AnsweredPairs
from harness.streams import stream

SIZES = (1, 2, 4, 8, 16, 32, 64)
HEADS: dict[str, tuple[int, tuple[int, ...], int]] = {  # dimension, hidden, labels
    "16-32-8-1": (16, (32, 8), 320),
    "64-128-32-1": (64, (128, 32), 320),
    "384-256-64-1": (384, (256, 64), 320),
}
Table = dict[str, dict[int, float]]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Collects cells a minute and prints them at the end."""
    found: Table = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    yield found
    torch.set_num_threads(threads)
    print(f"\n\none thread, torch {torch.__version__}; trainings of a cell (5 members) a minute, by cells in the fleet")
    print("| head | labels | " + " | ".join(map(str, SIZES)) + " | best against 1 |")
    print("|---|---|" + "---|" * (len(SIZES) + 1))
    for head, rates in found.items():
        cells = " | ".join(f"{rates[size]:.0f}" for size in SIZES)
        print(f"| {head} | {HEADS[head][2]} | {cells} | {max(rates.values()) / rates[1]:.2f} |")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", HEADS)
def test_fleet(benchmark: Any, table: Table, head: str, size: int) -> None:
    dimension, hidden, labels = HEADS[head]
    posterior = Ensemble(hidden=hidden, members=5)
    features_RD = torch.randn(2 * labels, dimension, generator=stream(0, "features").torch())
    responses_n2 = torch.arange(2 * labels).view(labels, 2)
    trains = [AnsweredPairs(features_RD, responses_n2, torch.ones(labels)) for _ in range(size)]
    few = AnsweredPairs(features_RD, responses_n2[:64], torch.ones(64))
    streams = [stream(seed) for seed in range(size)]
    repeats = max(2, 16 // size)
    benchmark.pedantic(posterior.fit_fleet, args=(trains, few, streams), rounds=repeats, warmup_rounds=1)
    table.setdefault(head, {})[size] = 60 * size / benchmark.stats.stats.min
