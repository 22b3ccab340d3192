"""The interface of trainable models: stacked members with losses and gradients for minibatches of pairs.

Axes: K members, b pairs of a minibatch, D features.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F

from balbench.harness.posteriors.posterior import LabelledPairs


def pair_loss(logit: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return -log P(label) of each pair; `target` is P(first preferred)."""
    return F.binary_cross_entropy_with_logits(logit, target.expand_as(logit), reduction="none")


class Trainable(Protocol):
    """A model for `train_fleet`: K members with stacked parameters."""

    @property
    def members(self) -> int:
        """K, the number of members."""
        ...

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Tensors with three axes, the first of length K."""
        ...

    def rebuilt(self, parameters: list[torch.Tensor], members: list[int]) -> Self:
        """Return the members with these indices, with new parameters."""
        ...

    def step(self, batch: Minibatch, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Write the gradients of the members' losses; return the losses, shape (K,)."""
        ...

    def losses(self, pairs: LabelledPairs, members: list[int]) -> torch.Tensor:
        """Return the mean loss of the chosen members over held-out pairs, shape (len(members),)."""
        ...


class Minibatch(NamedTuple):
    """One minibatch for each member.

    Attributes:
        inputs_KbD: features of the first responses of all pairs, then of the second responses (2b rows).
        responses_Kb: rows of these responses in the table of responses.
        label_Kb: P(first preferred) of each pair.
        weight_Kb: weight of each pair in the member's loss; None if all b pairs have the same weight.
        scale_Kb: factor of each pair's logit; None for 1.
    """

    inputs_KbD: torch.Tensor
    responses_Kb: torch.Tensor
    label_Kb: torch.Tensor
    weight_Kb: torch.Tensor | None = None
    scale_Kb: torch.Tensor | None = None


def pair_logits(pairs: LabelledPairs, rewards_kR: torch.Tensor) -> torch.Tensor:
    """Return the logits (k, n) of pairs in training, given the rewards of their responses."""
    logit_kn = rewards_kR[:, pairs.responses_n2[:, 0]] - rewards_kR[:, pairs.responses_n2[:, 1]]
    return logit_kn if pairs.scale_n is None else logit_kn * pairs.scale_n


def pair_gradient(
    rewards_Kb: torch.Tensor,
    label_Kb: torch.Tensor,
    weight_Kb: torch.Tensor | None = None,
    scale_Kb: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each member (K,) and its gradient by the rewards (K, 2b) of first, then second responses."""
    b = label_Kb.shape[1]
    logit_Kb = rewards_Kb[:, :b] - rewards_Kb[:, b:]
    if scale_Kb is not None:
        logit_Kb = logit_Kb * scale_Kb
    # torch.sigmoid rounds differently at the end of a buffer, so a member's bits would depend on its neighbours.
    log_first_Kb = F.logsigmoid(logit_Kb)
    loss_Kb, grad_Kb = (1 - label_Kb) * logit_Kb - log_first_Kb, torch.exp(log_first_Kb) - label_Kb
    if weight_Kb is None:
        loss_K, grad_Kb = loss_Kb.mean(dim=1), grad_Kb / b
    else:
        loss_K, grad_Kb = (loss_Kb * weight_Kb).sum(dim=1), grad_Kb * weight_Kb
    if scale_Kb is not None:
        grad_Kb = grad_Kb * scale_Kb
    return loss_K, torch.cat([grad_Kb, -grad_Kb], dim=1)
