"""Training the paper's heads, compared with the device's rate of float32 products and its memory bandwidth.

A GPU trains fleets of 1, 5 and 15 cells. A CPU trains one cell, on one thread (as a worker does) and on all threads.
Rates are measured in the same run. Run: tox -e speed -- benchmarks/speed/test_bounds.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import rates
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.matmul import Precision
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.streams import stream

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
LABELS, EPOCHS = 320, 4
HIDDEN = (2048, 256)
# dimension, cells, threads, precision
CASES: list[tuple[int, int, int, Precision]]
if GPU:
    CASES = [(D, C, 1, p) for D in (384, 4096) for C in (1, 5, 15) for p in ("float32", "tf32", "bf16")]
else:
    CASES = [(D, 1, threads, "float32") for D in (384, 4096) for threads in (1, os.cpu_count() or 1)]


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Rows that are printed at the end."""
    rows: list[str] = []
    threads = torch.get_num_threads()
    yield rows
    torch.set_num_threads(threads)
    name = torch.cuda.get_device_name() if GPU else "CPU"
    print(f"\n\n{name}, torch {torch.__version__}; one training step, 5 members a cell, {DEVICE}")
    print("| head | cells | threads | precision | Gop | GB | Gop/s | GB/s | ms: products | traffic | step | share |")
    print("|---|" + "---|" * 11, *rows, sep="\n")


@pytest.mark.parametrize(("dimension", "cells", "threads", "precision"), CASES)
def test_training(
    benchmark: Any, table: list[str], dimension: int, cells: int, threads: int, precision: Precision
) -> None:
    torch.set_num_threads(threads)
    device_rates = rates.measured(DEVICE)
    config = Ensemble(hidden=HIDDEN, epochs=EPOCHS, evaluate_every=10**9, precision=precision)
    features_RD = torch.randn(2 * LABELS, dimension, generator=stream(0, "features").torch()).to(DEVICE)
    responses_n2 = torch.arange(2 * LABELS, device=DEVICE).view(LABELS, 2)
    trains = [LabelledPairs(features_RD, responses_n2, torch.ones(LABELS, device=DEVICE)) for _ in range(cells)]
    few = LabelledPairs(features_RD[:2], responses_n2[:1], trains[0].label_n[:1])
    streams = [stream(seed) for seed in range(cells)]
    steps = EPOCHS * -(-LABELS // config.batch)
    # Two runs differ only in their number of steps; the difference leaves out the time to draw initial weights.
    longer = config.model_copy(update={"epochs": 3 * EPOCHS})

    def run(posterior: Ensemble) -> None:
        posterior.fit_fleet(trains, few, streams)
        rates.synchronize(DEVICE)

    short = rates.shortest(lambda: run(config), DEVICE, 2)
    benchmark.pedantic(run, args=(longer,), rounds=2)
    seconds = (benchmark.stats.stats.min - short) / (2 * steps)
    cost = rates.training_step(5 * cells, (dimension, *HIDDEN, 1), config.batch, scales=GPU)
    products, traffic = device_rates.bounds(cost)
    head = "-".join(map(str, (dimension, *HIDDEN, 1)))
    work = f"{cost.operations / 1e9:.1f} | {cost.bytes / 1e9:.2f} | {device_rates.operations / 1e9:.0f}"
    times = " | ".join(f"{1000 * s:.1f}" for s in (products, traffic, seconds))
    # Products and traffic can overlap on a GPU, so the bound is the longer time; on a CPU the bound is their sum.
    bound = max(products, traffic) if GPU else products + traffic
    table.append(
        f"| {head} | {cells} | {threads} | {precision} | {work} | {device_rates.bytes / 1e9:.1f} | {times} | "
        f"{bound / seconds:.0%} |"
    )
