"""Training of batched heads by the recipe of Melo et al. 2024: members step together, each on its own minibatch.

Axes: K members, b pairs of a minibatch, n labelled pairs, S steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Protocol, Self

import torch
import torch.nn.functional as F
from pydantic import Field

from harness.posteriors.posterior import AnsweredPairs, DivergedError, Posterior

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Recipe(Posterior):
    """How heads are trained.

    Attributes:
        epochs, batch: passes over the labels, pairs a minibatch (the last of an epoch may be smaller).
        learning_rate: AdamW's peak rate; up linearly over `warmup` steps from 0, then down to 0.
        betas, epsilon, weight_decay: AdamW's.
        clip: largest norm of a member's gradient.
        evaluate_every: steps between evaluations on the eval split (each epoch's end is evaluated as well).
        patience: evaluations without a strictly lower loss after which a member stops; its best weights are kept.
        repeat_evaluations: as coded by the authors, an evaluation step that ends an epoch is evaluated twice and
            the repeat counts against patience.
    """

    epochs: int = Field(4, ge=1)
    batch: int = Field(32, ge=1)
    learning_rate: float = Field(3e-5, gt=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    warmup: int = Field(5, ge=0)
    evaluate_every: int = Field(100, ge=1)
    patience: int = Field(3, ge=1)
    repeat_evaluations: bool = False


@dataclass
class TrainingLog:
    """What happened: the minibatch losses of each step and every evaluation, both for each member."""

    step_losses: list[torch.Tensor] = field(default_factory=list)
    evaluations: list[tuple[int, torch.Tensor]] = field(default_factory=list)


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: s / warmup while warming up, then down to 0 linearly."""
    if step < warmup:
        return step / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))


def minibatches(order_KEn: torch.Tensor, batch: int) -> Iterable[torch.Tensor]:
    """Cut each epoch's order into minibatches (K, b); the last of an epoch may be smaller."""
    for epoch in range(order_KEn.shape[1]):
        yield from order_KEn[:, epoch].split(batch, dim=1)


def pair_loss(logit: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """-log P(answer) of each pair; `target` is P(first preferred)."""
    return F.binary_cross_entropy_with_logits(logit, target.expand_as(logit), reduction="none")


class Trainable(Protocol):
    """What `train` trains: K members with stacked parameters."""

    @property
    def members(self) -> int:
        """K."""
        ...

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Tensors of three axes, the first of length K."""
        ...

    def clone(self) -> Self:
        """Return a copy."""
        ...

    def copy_members(self, other: Self, chosen_K: torch.Tensor) -> None:
        """Take over the weights of the chosen members."""
        ...

    def step(self, batch: Minibatch, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Write the gradients of the members' mean losses; return these, shape (K,)."""
        ...

    def losses(self, pairs: AnsweredPairs) -> torch.Tensor:
        """Mean loss of each member over held-out pairs, shape (K,)."""
        ...


class Minibatch(NamedTuple):
    """One minibatch for each member.

    Attributes:
        inputs_KbD: features of the first responses of all its pairs, then of the second ones (2b in all).
        responses_Kb: their rows in the table of responses.
        target_Kb: P(first preferred) of each pair.
    """

    inputs_KbD: torch.Tensor
    responses_Kb: torch.Tensor
    target_Kb: torch.Tensor


def pair_gradient(rewards_Kb: torch.Tensor, target_Kb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss of each member (K,), and its gradient by the rewards (K, 2b) of first and then second responses."""
    logit_Kb = rewards_Kb[:, : target_Kb.shape[1]] - rewards_Kb[:, target_Kb.shape[1] :]
    grad_Kb = (torch.sigmoid(logit_Kb) - target_Kb) / target_Kb.shape[1]
    return pair_loss(logit_Kb, target_Kb).mean(dim=1), torch.cat([grad_Kb, -grad_Kb], dim=1)


def train(
    model: Trainable, data: AnsweredPairs, validation: AnsweredPairs, order_KEn: torch.Tensor, recipe: Recipe
) -> TrainingLog:
    """Train in place; at the end the model holds, for each member, the weights of its best evaluation.

    Args:
        model: initial weights.
        data: labelled pairs.
        validation: evaluated at the end of each epoch and each `evaluate_every` steps.
        order_KEn: for each member and epoch the order of the n labelled pairs.
        recipe: the settings.

    Raises:
        DivergedError: the loss is not a number.
    """
    batches = list(minibatches(order_KEn, recipe.batch))
    steps_an_epoch = len(batches) // recipe.epochs
    stepper, selector, log = _Stepper(model, recipe), _Selector(model, recipe.patience), TrainingLog()
    for step, index_Kb in enumerate(batches):
        loss_K = stepper.step(data, index_Kb, recipe.learning_rate * rate_at(step, len(batches), recipe.warmup))
        log.step_losses.append(loss_K)
        done = step + 1
        at_interval, at_epoch = done % recipe.evaluate_every == 0, done % steps_an_epoch == 0
        # As coded, a step that is both is evaluated twice, and the repeat counts against patience.
        for _ in range(at_interval + at_epoch if recipe.repeat_evaluations else at_interval or at_epoch):
            log.evaluations.append((done, model.losses(validation)))
            selector.consider(log.evaluations[-1][1])
        if selector.stopped:
            break
    selector.restore()
    return log


class _Stepper:
    """One optimiser step of all members: forward, backward, clipping by member, AdamW."""

    def __init__(self, model: Trainable, recipe: Recipe) -> None:
        self._model, self._clip = model, recipe.clip
        self._gradients = [torch.empty_like(parameter) for parameter in model.parameters]
        # The fused optimiser is fast on contiguous memory only, so it is given each weight as it lies there.
        parameters = [_as_it_lies(parameter) for parameter in model.parameters]
        for parameter, gradient in zip(parameters, self._gradients, strict=True):
            parameter.grad = _as_it_lies(gradient)
        self._optimiser = torch.optim.AdamW(
            parameters,
            lr=recipe.learning_rate,
            betas=recipe.betas,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    @torch.no_grad()
    def step(self, data: AnsweredPairs, index_Kb: torch.Tensor, rate: float) -> torch.Tensor:
        """Return the minibatch loss of each member before the step, shape (K,)."""
        rows_Kb = data.responses_n2[index_Kb].transpose(1, 2).flatten(1)
        inputs_KbD = data.features_RD.index_select(0, rows_Kb.flatten()).view(*rows_Kb.shape, -1)
        loss_K = self._model.step(Minibatch(inputs_KbD, rows_Kb, data.target_n[index_Kb]), self._gradients)
        self._clip_by_member()
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()
        return loss_K

    def _clip_by_member(self) -> None:
        norms = torch.stack([torch.linalg.vector_norm(gradient, dim=(1, 2)) for gradient in self._gradients])
        scale_K = (self._clip / (norms.norm(dim=0) + 1e-6)).clamp(max=1.0)
        if scale_K.is_cuda or bool((scale_K < 1).any()):
            for gradient in self._gradients:
                gradient.mul_(scale_K[:, None, None])


def _as_it_lies(weight: torch.Tensor) -> torch.Tensor:
    """The weight, or its transpose if that is what is contiguous in memory."""
    return weight.detach() if weight.is_contiguous() else weight.transpose(1, 2)


class _Selector:
    """Keeps each member's best weights and says when all members have run out of patience."""

    def __init__(self, model: Trainable, patience: int) -> None:
        self._model, self._best, self._patience = model, model.clone(), patience
        K, device = model.members, model.parameters[0].device
        self._lowest_K = torch.full((K,), torch.inf, device=device)
        self._since_K = torch.zeros(K, dtype=torch.int64, device=device)

    def consider(self, loss_K: torch.Tensor) -> None:
        if not bool(torch.isfinite(loss_K).all()):
            raise DivergedError("the evaluation loss is not a number: lower the learning rate or look at the features")
        better_K = (loss_K < self._lowest_K) & (self._since_K < self._patience)
        self._since_K = torch.where(better_K, 0, self._since_K + 1)
        self._lowest_K = torch.where(better_K, loss_K, self._lowest_K)
        if bool(better_K.any()):
            self._best.copy_members(self._model, better_K)

    @property
    def stopped(self) -> bool:
        return bool((self._since_K >= self._patience).all())

    def restore(self) -> None:
        self._model.copy_members(self._best, torch.ones_like(self._since_K, dtype=torch.bool))
