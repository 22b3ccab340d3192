"""Training as one batched program: all members of all cells of a fleet step together, each on its own minibatch.

Axes: C cells, K members (of all cells, cell after cell), b pairs of a minibatch, n labelled pairs, E epochs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from balbench.harness.posteriors.posterior import DivergedError, LabelledPairs
from balbench.harness.posteriors.stack import AdamW, MemberStack
from balbench.harness.posteriors.trainable import Minibatch, Trainable
from balbench.harness.posteriors.training_config import TrainingConfig, evaluations_after, rate_at

DIVERGED = "the evaluation loss is not a number: lower the learning rate or look at the features"


@dataclass
class TrainingLog:
    """What happened: the minibatch losses of each step and every evaluation, both (K,), NaN for who had left."""

    step_losses: list[torch.Tensor] = field(default_factory=list)
    evaluations: list[tuple[int, torch.Tensor]] = field(default_factory=list)


def train(
    model: Trainable, data: LabelledPairs, validation: LabelledPairs, order_KEn: torch.Tensor, config: TrainingConfig
) -> TrainingLog:
    """Train the members of one cell in place (see `train_fleet`).

    Raises:
        DivergedError: the loss is not a number.
    """
    log = TrainingLog()
    (error,) = train_fleet(model, [data], validation, [order_KEn], config, log=log)
    if error:
        raise error
    return log


def train_fleet(
    model: Trainable,
    data: Sequence[LabelledPairs],
    validation: LabelledPairs,
    orders: Sequence[torch.Tensor],
    config: TrainingConfig,
    padded: bool | None = None,
    log: TrainingLog | None = None,
) -> list[DivergedError | None]:
    """Train in place; at the end the model holds, for each member, the weights of its best evaluation.

    A member leaves the program when it runs out of patience, a cell when its steps are done or its loss is not a
    number; what a member computes does not depend on the others.

    Args:
        model: initial weights of the members of all cells, cell after cell.
        data: labelled pairs of each cell, all on one table of features.
        validation: evaluated at the end of each epoch and each `evaluate_every` steps.
        orders: for each cell (K/C, E, n), the order of its labelled pairs for each of its members and epochs.
        config: the settings.
        padded: train cells with differing numbers of labels together, minibatches filled up with pairs of weight 0.
            By default on a GPU only: on a CPU the filling would change the last bits, so there such cells train one
            group after another.
        log: is told what happened.

    Returns:
        For each cell why it failed, or None.
    """
    if padded is None:
        padded = data[0].label_n.is_cuda
    counts = [len(pairs.label_n) for pairs in data]
    everyone = range(len(data))
    groups = [list(everyone)] if padded else [[c for c in everyone if counts[c] == n] for n in dict.fromkeys(counts)]
    errors: list[DivergedError | None] = [None] * len(data)
    for group in groups:
        lessons = MinibatchSchedule([data[c] for c in group], [orders[c] for c in group], config)
        course = TrainingLoop(model, group, model.members // len(data), lessons, config, log)
        for cell in course.run(validation):
            errors[cell] = DivergedError(DIVERGED)
    return errors


def minibatches(order_KEn: torch.Tensor, batch: int) -> Iterable[torch.Tensor]:
    """Cut each epoch's order into minibatches (K, b); the last of an epoch may be smaller."""
    for epoch in range(order_KEn.shape[1]):
        yield from order_KEn[:, epoch].split(batch, dim=1)


class MinibatchSchedule:
    """The labelled pairs of some cells and the minibatches in which their members see them.

    Attributes:
        steps: of each cell.
    """

    def __init__(self, data: Sequence[LabelledPairs], orders: Sequence[torch.Tensor], config: TrainingConfig) -> None:
        self._features_RD = data[0].features_RD
        self._responses_n2 = torch.cat([pairs.responses_n2 for pairs in data])
        self._target_n = torch.cat([pairs.label_n for pairs in data])
        counts = [len(pairs.label_n) for pairs in data]
        starts = [sum(counts[:c]) for c in range(len(counts))]
        found = [list(minibatches(order + start, config.batch)) for order, start in zip(orders, starts, strict=True)]
        self.steps = [len(batches) for batches in found]
        self._weights: list[torch.Tensor] | None = None
        if len(set(counts)) == 1:
            self._rows = [torch.cat(rows) for rows in zip(*found, strict=True)]
        else:
            self._rows, self._weights = _padded(found, config.batch)

    def minibatch(self, step: int, members: torch.Tensor | None) -> Minibatch:
        """The minibatches of all or of the chosen members at a step."""
        rows_Kb = self._rows[step] if members is None else self._rows[step][members]
        weight_Kb = None
        if self._weights is not None:
            weight_Kb = self._weights[step] if members is None else self._weights[step][members]
        responses_Kb = self._responses_n2[rows_Kb].transpose(1, 2).flatten(1)
        inputs_KbD = self._features_RD.index_select(0, responses_Kb.flatten()).view(*responses_Kb.shape, -1)
        return Minibatch(inputs_KbD, responses_Kb, self._target_n[rows_Kb], weight_Kb)


def _padded(found: list[list[torch.Tensor]], batch: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Rows and weights (K, batch) of each step, where the cells' minibatches differ in number and size."""
    rows, weights = [], []
    for step in range(max(len(batches) for batches in found)):
        rows_K, weights_K = [], []
        for batches in found:
            mine_Kb = batches[min(step, len(batches) - 1)]
            K, b = mine_Kb.shape
            rows_K.append(torch.cat([mine_Kb, mine_Kb.new_zeros(K, batch - b)], dim=1))
            weights_K.append(torch.zeros(K, batch, device=mine_Kb.device))
            weights_K[-1][:, :b] = 1 / max(b, 1)
        rows.append(torch.cat(rows_K))
        weights.append(torch.cat(weights_K))
    return rows, weights


@dataclass
class _Member:
    """A member in training.

    Attributes:
        row, slot: its place in the model and in the lessons.
        cell, steps: its cell, and how many steps that takes.
        lowest, since: its lowest evaluation loss, and how many evaluations ago that was.
    """

    row: int
    slot: int
    cell: int
    steps: int
    lowest: float = math.inf
    since: int = 0

    def improves(self, loss: float) -> bool:
        """Take note of an evaluation; say whether it is the best so far."""
        better = loss < self.lowest
        self.lowest, self.since = (loss, 0) if better else (self.lowest, self.since + 1)
        return better


class TrainingLoop:
    """Some cells in training: who is still there with which weights; the best ones are kept in the model."""

    def __init__(
        self,
        model: Trainable,
        cells: Sequence[int],
        each: int,
        lessons: MinibatchSchedule,
        config: TrainingConfig,
        log: TrainingLog | None,
    ) -> None:
        self._model, self._lessons, self._recipe, self._log = model, lessons, config, log
        of_cell = zip(cells, lessons.steps, strict=True)
        rows = [(cell * each + k, cell, steps) for cell, steps in of_cell for k in range(each)]
        self._present = [_Member(row, slot, cell, steps) for slot, (row, cell, steps) in enumerate(rows)]
        members = [member.row for member in self._present]
        everyone = members == list(range(model.members))
        weights = MemberStack.of(model.parameters, None if everyone else self._index(members))
        self._optimiser = AdamW(weights, config.betas, config.epsilon, config.weight_decay)
        self._now = model.rebuilt(weights.tensors, members)
        self._slots: torch.Tensor | None = None  # who is left, once somebody has gone

    def _index(self, numbers: Iterable[int]) -> torch.Tensor:
        return torch.tensor(list(numbers), dtype=torch.int64, device=self._model.parameters[0].device)

    @torch.no_grad()
    def run(self, validation: LabelledPairs) -> set[int]:
        """Train until nobody is left; return the cells whose loss is not a number."""
        failed: set[int] = set()
        for step in range(max(self._lessons.steps)):
            loss_K = self._step(step)
            if self._log:
                self._log.step_losses.append(self._spread(range(len(self._present)), loss_K))
            failed |= self._evaluate(step + 1, validation)
            self._drop_finished(step + 1, failed)
            if not self._present:
                break
        return failed

    def _step(self, step: int) -> torch.Tensor:
        """Forward, backward, clipping by member, AdamW; return the loss of each member before the step."""
        gradients = self._optimiser.gradients.tensors
        loss_K = self._now.step(self._lessons.minibatch(step, self._slots), gradients)
        _clip_by_member(gradients, self._recipe.clip)
        self._optimiser.step(self._rates(step))
        return loss_K

    def _rates(self, step: int) -> list[tuple[int, int, float]]:
        """Learning rates of runs of members that train equally long."""
        starts = [i for i, m in enumerate(self._present) if i == 0 or m.steps != self._present[i - 1].steps]
        factors = [rate_at(step, self._present[start].steps, self._recipe.warmup) for start in starts]
        stops = [*starts[1:], len(self._present)]
        return [(a, b, self._recipe.learning_rate * f) for a, b, f in zip(starts, stops, factors, strict=True)]

    def _evaluate(self, done: int, validation: LabelledPairs) -> set[int]:
        """Evaluate whose turn it is and keep the weights that are better than before; return cells that diverged."""
        times = {m.steps: evaluations_after(done, m.steps, self._recipe) for m in self._present}
        due = [place for place, member in enumerate(self._present) if times[member.steps]]
        if not due:
            return set()
        loss_k = self._now.losses(validation, due)
        losses = loss_k.tolist()
        better = [place for place, loss in zip(due, losses, strict=True) if self._present[place].improves(loss)]
        self._keep(better)
        for place, loss in zip(due, losses, strict=True):
            for _ in range(times[self._present[place].steps] - 1):
                self._present[place].improves(loss)
        if self._log:
            self._log.evaluations += [(done, self._spread(due, loss_k))] * max(times.values())
        return {self._present[place].cell for place, loss in zip(due, losses, strict=True) if not math.isfinite(loss)}

    def _keep(self, places: list[int]) -> None:
        """Copy the present weights of some members into the model."""
        if len(places) == self._model.members:
            for best, now in zip(self._model.parameters, self._now.parameters, strict=True):
                best.copy_(now)
        elif places:
            here, rows = self._index(places), self._index(self._present[place].row for place in places)
            for best, now in zip(self._model.parameters, self._now.parameters, strict=True):
                best[rows] = now[here]

    def _drop_finished(self, done: int, failed: set[int]) -> None:
        """Let go who is done, out of patience or in a failed cell; the rest move together."""
        patience = self._recipe.patience
        left = [
            place
            for place, m in enumerate(self._present)
            if done < m.steps and m.since < patience and m.cell not in failed
        ]
        if len(left) == len(self._present):
            return
        self._present = [self._present[place] for place in left]
        if left:
            self._optimiser.keep(self._index(left))
            self._now = self._now.rebuilt(self._optimiser.weights.tensors, left)
            self._slots = self._index(member.slot for member in self._present)

    def _spread(self, places: Iterable[int], loss_k: torch.Tensor) -> torch.Tensor:
        loss_K = torch.full((self._model.members,), torch.nan)
        loss_K[[self._present[place].row for place in places]] = loss_k.cpu()
        return loss_K


def _clip_by_member(gradients: list[torch.Tensor], clip: float) -> None:
    norms = torch.stack([torch.linalg.vector_norm(gradient, dim=(1, 2)) for gradient in gradients])
    scale_K = (clip / (norms.norm(dim=0) + 1e-6)).clamp(max=1.0)
    if scale_K.is_cuda or bool((scale_K < 1).any()):
        for gradient in gradients:
            gradient.mul_(scale_K[:, None, None])
