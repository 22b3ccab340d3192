"""Parameters of many members in one flat buffer, and AdamW over it.

Axes: K members, i and o the inputs and outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch.optim.adamw import adamw

# The length of the buffer is a multiple of this number: vectorised code then has no remainder at the end, and a
# member's bits do not depend on the number of members.
MULTIPLE = 64


class MemberStack:
    """Stacked parameters of K members in one buffer: layer after layer, and in each layer member after member.

    Attributes:
        flat: the buffer, with one axis and zeros as padding at the end.
        tensors: parts of the buffer as (K, i, o), in the memory layouts of the original tensors.
    """

    def __init__(self, like: Sequence[torch.Tensor], members: int) -> None:
        """Allocate zeros for `members` members with the shapes (K, i, o) and memory layouts of `like`."""
        layouts = [contiguous(tensor) for tensor in like]
        self._widths = [tensor[0].numel() for tensor in like]
        self._starts = [0, *accumulate(members * width for width in self._widths)]
        length = -(-self._starts[-1] // MULTIPLE) * MULTIPLE
        self.flat = torch.zeros(length, dtype=like[0].dtype, device=like[0].device)
        self.tensors = [
            restore_layout(part.view(members, *layout.shape[1:]), tensor)
            for part, layout, tensor in zip(self.members(0, members), layouts, like, strict=True)
        ]

    @classmethod
    def of(cls, tensors: Sequence[torch.Tensor], members: torch.Tensor | None = None) -> MemberStack:
        """Copy the stacked parameters of all members or of the chosen members."""
        stack = cls(tensors, len(tensors[0]) if members is None else len(members))
        for copy, tensor in zip(stack.tensors, tensors, strict=True):
            copy.copy_(tensor if members is None else tensor[members])
        return stack

    def members(self, start: int, stop: int) -> list[torch.Tensor]:
        """Return the parts of the buffer with consecutive members, one part for each layer."""
        return [
            self.flat[begin + start * width : begin + stop * width]
            for begin, width in zip(self._starts, self._widths, strict=False)
        ]


def contiguous(weight: torch.Tensor) -> torch.Tensor:
    """Return the weight, or its transpose if the transpose is contiguous in memory."""
    return weight if weight.is_contiguous() else weight.transpose(1, 2)


def restore_layout(part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Restore the layout of `like` (inverse of `contiguous`)."""
    return part if like.is_contiguous() else part.transpose(1, 2)


class AdamW:
    """AdamW (Loshchilov and Hutter 2019) over a stack; members can have different learning rates and can be dropped.

    Attributes:
        weights: the parameters, changed by each step.
        gradients: the gradients that a step uses.
    """

    def __init__(self, weights: MemberStack, betas: tuple[float, float], epsilon: float, weight_decay: float) -> None:
        self.weights = weights
        K = len(weights.tensors[0])
        self.gradients, self._mean, self._square = (MemberStack(weights.tensors, K) for _ in range(3))
        self._betas, self._epsilon, self._weight_decay = betas, epsilon, weight_decay
        self._steps = 0

    def keep(self, members: torch.Tensor) -> None:
        """Keep the chosen members only."""
        self.weights, self._mean, self._square = (
            MemberStack.of(stack.tensors, members) for stack in (self.weights, self._mean, self._square)
        )
        self.gradients = MemberStack(self.weights.tensors, len(members))

    def step(self, rates: Sequence[tuple[int, int, float]]) -> None:
        """Take one step.

        Args:
            rates: (start, stop, learning rate) of runs of consecutive members; the runs cover all members.
        """
        stacks = (self.weights, self.gradients, self._mean, self._square)
        for start, stop, rate in rates:
            weights, gradients, mean, square = (
                [stack.flat] if len(rates) == 1 else stack.members(start, stop) for stack in stacks
            )
            steps = [torch.full((), float(self._steps), device=self.weights.flat.device) for _ in weights]
            adamw(
                weights,
                gradients,
                mean,
                square,
                [],
                steps,
                fused=True,
                amsgrad=False,
                maximize=False,
                lr=rate,
                beta1=self._betas[0],
                beta2=self._betas[1],
                eps=self._epsilon,
                weight_decay=self._weight_decay,
            )
        self._steps += 1
