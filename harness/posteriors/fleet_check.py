"""A self-test of this process: does a cell that trains in a fleet get the same bits as alone?

A CPU's matrix library can compute a slice of a batched product differently when the batch has more slices. MKL does so
for odd layer widths, unless the environment variable MKL_CBWR is set before the library is loaded.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.stack import AdamW, MemberStack
from balbench.harness.posteriors.trainable import Minibatch
from balbench.harness.streams import Stream, stream

CELLS = 3
STEPS = 2  # the second step starts from weights that the optimiser changed
PAIRS = (7, 32)
MEMBERS = (1, 3)
NETWORKS = ((7, 13, 5, 1), (64, 33, 16, 1), (3, 5, 1), (12, 1), (31, 64, 1))  # widths at which MKL is known to differ


@lru_cache(maxsize=64)
def fleets_are_exact(networks: tuple[tuple[int, ...], ...] = (), members: int = 1, pairs: int = 32) -> bool:
    """Return whether training steps of a cell have the same bits in a fleet as alone, on the CPU.

    Several small networks are always tested, followed by the given networks.

    Args:
        networks: layer sizes of each network, with inputs and outputs.
        members: members of a cell.
        pairs: pairs of a minibatch.
    """
    small = all(_is_exact(sizes, K, b) for sizes in NETWORKS for K in MEMBERS for b in PAIRS)
    return small and all(_is_exact(sizes, members, pairs) for sizes in networks)


@torch.no_grad()
def _is_exact(sizes: tuple[int, ...], members: int, pairs: int) -> bool:
    source = stream(0, "fleet check", sizes, members, pairs)
    generators = [source.child("member", k).torch() for k in range(CELLS * members)]
    heads, batch = Heads.draw(generators, sizes, None, "tanh"), _minibatch(len(generators), sizes, pairs, source)
    together = _trained(heads, batch)
    for cell in range(CELLS):
        own = slice(cell * members, (cell + 1) * members)
        own_batch = Minibatch(batch.inputs_KbD[own], batch.responses_Kb[own], batch.label_Kb[own])
        alone = _trained(heads.share(own.start, own.stop), own_batch)
        if not all(torch.equal(a, b[own]) for a, b in zip(alone, together, strict=True)):
            return False
    return True


def _minibatch(members: int, sizes: tuple[int, ...], pairs: int, source: Stream) -> Minibatch:
    generator = source.child("pairs").torch()
    inputs_KbD = torch.randn(members, 2 * pairs, sizes[0], generator=generator)
    label_Kb = torch.rand(members, pairs, generator=generator)
    return Minibatch(inputs_KbD, torch.zeros(members, 2 * pairs, dtype=torch.int64), label_Kb)


def _trained(heads: Heads, batch: Minibatch) -> list[torch.Tensor]:
    """Return gradients and weights after STEPS steps."""
    optimiser = AdamW(MemberStack.of(heads.parameters), betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.01)
    current = heads.rebuilt(optimiser.weights.tensors)
    for _ in range(STEPS):
        current.step(batch, optimiser.gradients.tensors)
        optimiser.step([(0, heads.members, 0.01)])
    return [*optimiser.gradients.tensors, *optimiser.weights.tensors]
