"""What can be trained: stacked members that give losses and gradients for minibatches of pairs.

Axes: K members, b pairs of a minibatch, D features.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F

from balbench.harness.posteriors.posterior import LabelledPairs


def pair_loss(logit: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """-log P(answer) of each pair; `target` is P(first preferred)."""
    return F.binary_cross_entropy_with_logits(logit, target.expand_as(logit), reduction="none")


class Trainable(Protocol):
    """What `train_fleet` trains: K members with stacked parameters."""

    @property
    def members(self) -> int:
        """K."""
        ...

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Tensors of three axes, the first of length K."""
        ...

    def rebuilt(self, parameters: list[torch.Tensor], members: list[int]) -> Self:
        """Return the chosen members with these parameters in place of their own."""
        ...

    def step(self, batch: Minibatch, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Write the gradients of the members' losses; return these, shape (K,)."""
        ...

    def losses(self, pairs: LabelledPairs, members: list[int]) -> torch.Tensor:
        """Mean loss of the chosen members over held-out pairs, shape (len(members),)."""
        ...


class Minibatch(NamedTuple):
    """One minibatch for each member.

    Attributes:
        inputs_KbD: features of the first responses of all its pairs, then of the second ones (2b in all).
        responses_Kb: their rows in the table of responses.
        label_Kb: P(first preferred) of each pair.
        weight_Kb: share of each pair in the member's loss; None where all b pairs count alike.
    """

    inputs_KbD: torch.Tensor
    responses_Kb: torch.Tensor
    label_Kb: torch.Tensor
    weight_Kb: torch.Tensor | None = None


def pair_gradient(
    rewards_Kb: torch.Tensor, label_Kb: torch.Tensor, weight_Kb: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each member (K,), and its gradient by the rewards (K, 2b) of first and then second responses."""
    b = label_Kb.shape[1]
    logit_Kb = rewards_Kb[:, :b] - rewards_Kb[:, b:]
    # torch.sigmoid rounds otherwise at the end of a buffer than inside: a member's bits would depend on its neighbours.
    log_first_Kb = F.logsigmoid(logit_Kb)
    loss_Kb, grad_Kb = (1 - label_Kb) * logit_Kb - log_first_Kb, torch.exp(log_first_Kb) - label_Kb
    if weight_Kb is None:
        loss_K, grad_Kb = loss_Kb.mean(dim=1), grad_Kb / b
    else:
        loss_K, grad_Kb = (loss_Kb * weight_Kb).sum(dim=1), grad_Kb * weight_Kb
    return loss_K, torch.cat([grad_Kb, -grad_Kb], dim=1)
