"""What a training step must do, in operations and bytes, and how fast a device does either.

Axes: K members, layers of widths i -> o, 2b responses of a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch

import reference

SIDE = 4096  # of the matrices that a device's rate is measured on
COPY_BYTES = 2**28
# Passes over float32 parameters: the forward product reads weights, the backward one writes gradients, clipping reads
# them for its norms, AdamW reads weights, gradients and two moments and writes all but the gradients.
PASSES, SCALING = 1 + 1 + 1 + 7, 2  # a GPU scales the gradients in any case, to save the question whether it must


class Cost(NamedTuple):
    """Of one step, as programmed."""

    operations: float
    bytes: float


class Rates(NamedTuple):
    """Of a device: operations a second in float32 products, bytes a second read or written."""

    operations: float
    bytes: float

    def bounds(self, cost: Cost) -> tuple[float, float]:
        """Seconds that the products and the traffic take at least."""
        return cost.operations / self.operations, cost.bytes / self.bytes


def training_step(members: int, sizes: tuple[int, ...], batch: int, scales: bool) -> Cost:
    """Cost of one step of all members.

    Args:
        members: K.
        sizes: widths D, hidden, 1.
        batch: b pairs of a minibatch.
        scales: gradients are scaled in each step.
    """
    layers = list(pairwise(sizes))
    weights = sum(i * o for i, o in layers)
    deeper = weights - layers[0][0] * layers[0][1]  # no gradient by the features is needed
    responses = 2 * batch
    operations = 2 * responses * (2 * weights + deeper)
    passes = (PASSES + (SCALING if scales else 0)) * weights + deeper
    activations = responses * (3 * sizes[0] + 6 * sum(sizes[1:]))  # gathered, read twice; forward and backward
    return Cost(members * operations, 4 * members * (passes + activations))


def measured(device: torch.device, repeats: int = 5) -> Rates:
    """Measure a device: a large product and a large copy, the best of some."""
    left, right, out = (torch.randn(SIDE, SIDE, device=device) for _ in range(3))
    product = shortest(lambda: torch.mm(left, right, out=out), device, repeats)
    source = torch.zeros(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    copy = shortest(lambda: target.copy_(source), device, repeats)
    return Rates(2 * SIDE**3 / product, 2 * COPY_BYTES / copy)


def shortest(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Least seconds of some repeats after a first that does not count."""

    def whole() -> None:
        run()
        synchronize(device)

    whole()
    return reference.shortest(whole, repeats)


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
