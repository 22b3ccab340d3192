"""Training of batched heads by the recipe of Melo et al. 2024: members step together, each on its own minibatch.

Axes: K members, b pairs of a minibatch, n labelled pairs, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from harness.posteriors.heads import Dropout, Heads
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


def evaluation_loss(heads: Heads, pairs: AnsweredPairs) -> torch.Tensor:
    """Mean loss of each member over pairs, shape (K,)."""
    rewards_KR = heads.rewards_KR(pairs.features_RD)
    logit_Kn = rewards_KR[:, pairs.responses_n2[:, 0]] - rewards_KR[:, pairs.responses_n2[:, 1]]
    return pair_loss(logit_Kn, pairs.target_n).mean(dim=1)


def train(
    heads: Heads,
    data: AnsweredPairs,
    validation: AnsweredPairs,
    order_KEn: torch.Tensor,
    recipe: Recipe,
    dropout: Callable[[int], Dropout] | None = None,
) -> TrainingLog:
    """Train in place; at the end the heads hold, for each member, the weights of its best evaluation.

    Evaluations leave no unit out.

    Args:
        heads: initial weights.
        data: labelled pairs.
        validation: evaluated at the end of each epoch and each `evaluate_every` steps.
        order_KEn: for each member and epoch the order of the n labelled pairs.
        recipe: the settings.
        dropout: given a number of responses, draws the units that stay in a step.

    Raises:
        DivergedError: the loss is not a number.
    """
    batches = list(minibatches(order_KEn, recipe.batch))
    steps_an_epoch = len(batches) // recipe.epochs
    stepper, selector, log = _Stepper(heads, recipe, dropout), _Selector(heads, recipe.patience), TrainingLog()
    for step, index_Kb in enumerate(batches):
        loss_K = stepper.step(data, index_Kb, recipe.learning_rate * rate_at(step, len(batches), recipe.warmup))
        log.step_losses.append(loss_K)
        done = step + 1
        at_interval, at_epoch = done % recipe.evaluate_every == 0, done % steps_an_epoch == 0
        # As coded, a step that is both is evaluated twice, and the repeat counts against patience.
        for _ in range(at_interval + at_epoch if recipe.repeat_evaluations else at_interval or at_epoch):
            log.evaluations.append((done, evaluation_loss(heads, validation)))
            selector.consider(log.evaluations[-1][1])
        if selector.stopped:
            break
    selector.restore()
    return log


class _Stepper:
    """One optimiser step of all members: forward, backward, clipping by member, AdamW."""

    def __init__(self, heads: Heads, recipe: Recipe, dropout: Callable[[int], Dropout] | None) -> None:
        self._heads, self._clip, self._dropout = heads, recipe.clip, dropout
        self._gradients = [torch.empty_like(parameter) for parameter in heads.parameters]
        # The fused optimiser is fast on contiguous memory only, so it is given each weight as it lies there.
        parameters = [_as_it_lies(parameter) for parameter in heads.parameters]
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
        K, b = index_Kb.shape
        responses_Kb2 = data.responses_n2[index_Kb]
        rows = torch.cat([responses_Kb2[..., 0], responses_Kb2[..., 1]], dim=1)
        inputs = data.features_RD.index_select(0, rows.flatten()).view(K, 2 * b, -1)
        dropout = self._dropout(2 * b) if self._dropout else None
        layers = self._heads.forward(inputs, dropout)
        logit_Kb = layers[-1][:, :b, 0] - layers[-1][:, b:, 0]
        target_Kb = data.target_n[index_Kb]
        grad_Kb = (torch.sigmoid(logit_Kb) - target_Kb) / b
        grad_Kb1 = torch.cat([grad_Kb, -grad_Kb], dim=1)[..., None]
        self._heads.backward(layers, grad_Kb1, self._gradients, dropout)
        self._clip_by_member()
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()
        return pair_loss(logit_Kb, target_Kb).mean(dim=1)

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

    def __init__(self, heads: Heads, patience: int) -> None:
        self._heads, self._best, self._patience = heads, heads.clone(), patience
        K, device = len(heads.weights[0]), heads.weights[0].device
        self._lowest_K = torch.full((K,), torch.inf, device=device)
        self._since_K = torch.zeros(K, dtype=torch.int64, device=device)

    def consider(self, loss_K: torch.Tensor) -> None:
        if not bool(torch.isfinite(loss_K).all()):
            raise DivergedError("the evaluation loss is not a number: lower the learning rate or look at the features")
        better_K = (loss_K < self._lowest_K) & (self._since_K < self._patience)
        self._since_K = torch.where(better_K, 0, self._since_K + 1)
        self._lowest_K = torch.where(better_K, loss_K, self._lowest_K)
        if bool(better_K.any()):
            self._best.copy_members(self._heads, better_K)

    @property
    def stopped(self) -> bool:
        return bool((self._since_K >= self._patience).all())

    def restore(self) -> None:
        self._heads.copy_members(self._best, torch.ones_like(self._since_K, dtype=torch.bool))
