"""Tanh in place by numpy, compared with torch's, for the shapes of hidden layers in training and in scoring.

Run: tox -e speed -- benchmarks/speed/test_activations.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from balbench.harness.machine import one_thread
from balbench.harness.posteriors.heads import tanh_
from balbench.harness.streams import stream

SHAPES = [(30, 64, 128), (30, 64, 32), (3183, 128), (5, 64, 2048)]
FUNCTIONS = {"torch": torch.tanh_, "numpy": tanh_}
Table = dict[tuple[int, ...], dict[str, float]]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Nanoseconds for an element, printed at the end."""
    measured: Table = {shape: {} for shape in SHAPES}
    yield measured
    print(
        f"\n\n1 thread, torch {torch.__version__}; nanoseconds for an element\n| shape | torch | numpy |\n|---|---|---|"
    )
    for shape, times in measured.items():
        print(f"| {' x '.join(map(str, shape))} | {times['torch']:.2f} | {times['numpy']:.2f} |")


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tanh(benchmark: Any, table: Table, shape: tuple[int, ...], name: str) -> None:
    inputs = torch.randn(shape, generator=stream(0, "inputs").torch())

    def copies() -> tuple[tuple[torch.Tensor], dict[str, Any]]:
        return (inputs.clone(),), {}

    with one_thread():
        benchmark.pedantic(FUNCTIONS[name], setup=copies, rounds=50, warmup_rounds=5)
    table[shape][name] = 1e9 * benchmark.stats.stats.min / inputs.numel()
