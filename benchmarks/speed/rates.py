"""The operations and bytes of a training step, and a device's rates of both.

Axes: K members, layers of widths i -> o, 2b responses of a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch

import reference

SIDE = 4096  # rows and columns of the matrices that measure a device's rate
COPY_BYTES = 2**28
# Passes over float32 parameters: the forward product reads weights, the backward product writes gradients, clipping
# reads gradients for their norms, AdamW reads weights, gradients and two moments and writes all but the gradients.
PASSES = 1 + 1 + 1 + 7
# Further passes that scale the gradients. A GPU always scales them, because a test would have to wait for the device.
SCALING = 2


class Cost(NamedTuple):
    """Operations and bytes of one step, as programmed."""

    operations: float
    bytes: float


class Rates(NamedTuple):
    """Rates of a device: operations per second in float32 products, bytes read or written per second."""

    operations: float
    bytes: float

    def bounds(self, cost: Cost) -> tuple[float, float]:
        """Lower bounds on the seconds of the products and of the memory traffic."""
        return cost.operations / self.operations, cost.bytes / self.bytes


def training_step(members: int, sizes: tuple[int, ...], batch: int, scales: bool) -> Cost:
    """Cost of one step of all members.

    Args:
        members: K.
        sizes: widths D, hidden, 1.
        batch: b pairs of a minibatch.
        scales: whether gradients are scaled in each step.
    """
    layers = list(pairwise(sizes))
    weights = sum(i * o for i, o in layers)
    deeper = weights - layers[0][0] * layers[0][1]  # the first layer needs no gradient with respect to the features
    responses = 2 * batch
    operations = 2 * responses * (2 * weights + deeper)
    passes = (PASSES + (SCALING if scales else 0)) * weights + deeper
    activations = responses * (3 * sizes[0] + 6 * sum(sizes[1:]))  # gathered, read twice; forward and backward
    return Cost(members * operations, 4 * members * (passes + activations))


def measured(device: torch.device, repeats: int = 5) -> Rates:
    """Measure the rates of a device by the fastest of several large products and copies."""
    left, right, out = (torch.randn(SIDE, SIDE, device=device) for _ in range(3))
    product = shortest(lambda: torch.mm(left, right, out=out), device, repeats)
    source = torch.zeros(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copy = shortest(lambda: target.copy_(source), device, repeats)
    return Rates(2 * SIDE**3 / product, 2 * COPY_BYTES / copy)


def shortest(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of several runs, after one run that is not timed."""

    def run_to_the_end() -> None:
        run()
        synchronize(device)

    run_to_the_end()
    return reference.shortest(run_to_the_end, repeats)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
