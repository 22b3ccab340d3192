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
    """The losses of each step and of each evaluation, both (K,); NaN for members that have stopped."""

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
    (result,) = train_fleet(model, [data], validation, [order_KEn], config, log=log)
    if isinstance(result, DivergedError):
        raise result
    return log


def train_fleet(
    model: Trainable,
    data: Sequence[LabelledPairs],
    validation: LabelledPairs,
    orders: Sequence[torch.Tensor],
    config: TrainingConfig,
    padded: bool | None = None,
    log: TrainingLog | None = None,
) -> list[dict[str, float] | DivergedError]:
    """Train a model in place; at the end the model has, for each member, the weights of its best evaluation.

    A member stops when its patience is used up. A cell stops when all its steps are done or when its evaluation loss
    is not finite. The result of a member does not depend on the other members.

    Args:
        model: initial weights of the members of all cells, cell after cell.
        data: labelled pairs of each cell, all on one table of features.
        validation: pairs for evaluations: before the first step, at the end of each epoch and each `evaluate_every`
            steps.
        orders: for each cell (K/C, E, n), the order of its labelled pairs for each of its members and epochs.
        config: the settings.
        padded: whether to train cells with different numbers of labels together, with pairs of weight 0 as padding of
            their minibatches. The default is True on a GPU only: on a CPU padding would change the last bits, so cells
            with different numbers of labels train one group after another.
        log: a log to which the losses are appended.

    Returns:
        For each cell its diagnostics (see `FittedPosterior`), or the error if training diverged.
    """
    if padded is None:
        padded = data[0].label_n.is_cuda
    counts = [len(pairs.label_n) for pairs in data]
    all_cells = range(len(data))
    groups = [list(all_cells)] if padded else [[c for c in all_cells if counts[c] == n] for n in dict.fromkeys(counts)]
    results: dict[int, dict[str, float] | DivergedError] = {}
    for group in groups:
        schedule = MinibatchSchedule([data[c] for c in group], [orders[c] for c in group], config)
        results |= TrainingLoop(model, group, model.members // len(data), schedule, config, log).run(validation)
    return [results[cell] for cell in all_cells]


def minibatches(order_KEn: torch.Tensor, batch: int) -> Iterable[torch.Tensor]:
    """Cut each epoch's order into minibatches (K, b); the last of an epoch may be smaller."""
    for epoch in range(order_KEn.shape[1]):
        yield from order_KEn[:, epoch].split(batch, dim=1)


class MinibatchSchedule:
    """The minibatches of the members of some cells, step by step.

    Attributes:
        steps: number of steps of each cell.
    """

    def __init__(self, data: Sequence[LabelledPairs], orders: Sequence[torch.Tensor], config: TrainingConfig) -> None:
        """Cut the orders (see `train_fleet`) into minibatches."""
        self._features_RD = data[0].features_RD
        self._responses_n2 = torch.cat([pairs.responses_n2 for pairs in data])
        self._label_n = torch.cat([pairs.label_n for pairs in data])
        scales = [pairs.scale_n for pairs in data if pairs.scale_n is not None]
        self._scale_n = torch.cat(scales) if scales else None
        counts = [len(pairs.label_n) for pairs in data]
        starts = [sum(counts[:c]) for c in range(len(counts))]
        cells = [list(minibatches(order + start, config.batch)) for order, start in zip(orders, starts, strict=True)]
        self.steps = [len(batches) for batches in cells]
        self._weights: list[torch.Tensor] | None = None
        if len(set(counts)) == 1:
            self._rows = [torch.cat(rows) for rows in zip(*cells, strict=True)]
        else:
            self._rows, self._weights = _padded(cells, config.batch)

    def minibatch(self, step: int, members: torch.Tensor | None) -> Minibatch:
        """Return the minibatches of all members or of the chosen members at a step."""
        rows_Kb = self._rows[step] if members is None else self._rows[step][members]
        weight_Kb = None
        if self._weights is not None:
            weight_Kb = self._weights[step] if members is None else self._weights[step][members]
        responses_Kb = self._responses_n2[rows_Kb].transpose(1, 2).flatten(1)
        inputs_KbD = self._features_RD.index_select(0, responses_Kb.flatten()).view(*responses_Kb.shape, -1)
        scale_Kb = None if self._scale_n is None else self._scale_n[rows_Kb]
        return Minibatch(inputs_KbD, responses_Kb, self._label_n[rows_Kb], weight_Kb, scale_Kb)


def _padded(cells: list[list[torch.Tensor]], batch: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return rows and weights (K, batch) of each step for cells with different numbers of minibatches or pairs."""
    rows, weights = [], []
    for step in range(max(len(batches) for batches in cells)):
        rows_K, weights_K = [], []
        for batches in cells:
            cell_Kb = batches[min(step, len(batches) - 1)]
            K, b = cell_Kb.shape
            rows_K.append(torch.cat([cell_Kb, cell_Kb.new_zeros(K, batch - b)], dim=1))
            weights_K.append(torch.zeros(K, batch, device=cell_Kb.device))
            weights_K[-1][:, :b] = 1 / max(b, 1)
        rows.append(torch.cat(rows_K))
        weights.append(torch.cat(weights_K))
    return rows, weights


@dataclass
class _Member:
    """A member and its evaluations so far.

    Attributes:
        row: index of the member in the model.
        slot: index of the member in the minibatch schedule.
        cell: index of the cell.
        steps: number of steps of the cell.
        start_loss: evaluation loss at the initial weights.
        best_loss, best_step: lowest evaluation loss after at least one step, and the step of that evaluation.
        last_loss, last_step: loss and step of the last evaluation.
        waited: number of evaluations since the best one.
    """

    row: int
    slot: int
    cell: int
    steps: int
    start_loss: float = math.nan
    best_loss: float = math.inf
    best_step: int = 0
    last_loss: float = math.nan
    last_step: int = 0
    waited: int = 0

    def record(self, step: int, loss: float) -> bool:
        """Record an evaluation; return whether it is the best so far."""
        self.last_loss, self.last_step = loss, step
        better = loss < self.best_loss
        if better:
            self.best_loss, self.best_step = loss, step
        self.waited = 0 if better else self.waited + 1
        return better


def _diagnostics(members: Sequence[_Member]) -> dict[str, float]:
    """Summarise the training of a cell's members (see `FittedPosterior`)."""

    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(members)

    return {
        "steps": mean(m.last_step for m in members),
        "evaluation_loss_start": mean(m.start_loss for m in members),
        "evaluation_loss_best": mean(m.best_loss for m in members),
        "evaluation_loss_end": mean(m.last_loss for m in members),
        "best_is_initial": mean(m.best_loss >= m.start_loss for m in members),
        "still_improving": mean(m.best_step == m.last_step for m in members),
    }


class TrainingLoop:
    """The training of some cells: the members that still train, and their current weights.

    The model keeps the best weights of each member.
    """

    def __init__(
        self,
        model: Trainable,
        cells: Sequence[int],
        members_per_cell: int,
        schedule: MinibatchSchedule,
        config: TrainingConfig,
        log: TrainingLog | None,
    ) -> None:
        """Copy the initial weights of the members of these cells."""
        self._model, self._schedule, self._config, self._log = model, schedule, config, log
        self._rate = float(config.learning_rate)
        rows = [
            (cell * members_per_cell + k, cell, steps)
            for cell, steps in zip(cells, schedule.steps, strict=True)
            for k in range(members_per_cell)
        ]
        self._members = [_Member(row, slot, cell, steps) for slot, (row, cell, steps) in enumerate(rows)]
        self._active = self._members
        chosen = [member.row for member in self._active]
        weights = MemberStack.of(
            model.parameters, None if chosen == list(range(model.members)) else self._tensor(chosen)
        )
        self._optimiser = AdamW(weights, config.betas, config.epsilon, config.weight_decay)
        self._current = model.rebuilt(weights.tensors, chosen)
        self._slots: torch.Tensor | None = None  # slots of the active members; None while all members are active
        self._diverged: set[int] = set()

    def _tensor(self, indices: Iterable[int]) -> torch.Tensor:
        return torch.tensor(list(indices), dtype=torch.int64, device=self._model.parameters[0].device)

    @torch.no_grad()
    def run(self, validation: LabelledPairs) -> dict[int, dict[str, float] | DivergedError]:
        """Train until all members have stopped; return diagnostics or an error for each cell."""
        self._evaluate_start(validation)
        for step in range(max(self._schedule.steps)):
            self._drop_finished(step)
            if not self._active:
                break
            loss_K = self._step(step)
            if self._log:
                self._log.step_losses.append(self._spread(range(len(self._active)), loss_K))
            self._evaluate(step + 1, validation)
        cells = dict.fromkeys(member.cell for member in self._members)
        return {cell: self._result(cell) for cell in cells}

    def _result(self, cell: int) -> dict[str, float] | DivergedError:
        if cell in self._diverged:
            return DivergedError(DIVERGED)
        diagnostics = _diagnostics([member for member in self._members if member.cell == cell])
        return diagnostics | {"learning_rate": self._rate}

    def _step(self, step: int) -> torch.Tensor:
        """Run forward, backward, clipping by member and AdamW; return the loss of each member before the step."""
        gradients = self._optimiser.gradients.tensors
        loss_K = self._current.step(self._schedule.minibatch(step, self._slots), gradients)
        _clip_by_member(gradients, self._config.clip)
        self._optimiser.step(self._rates(step))
        return loss_K

    def _rates(self, step: int) -> list[tuple[int, int, float]]:
        """Return the learning rate of each run of members with the same number of steps."""
        starts = [i for i, m in enumerate(self._active) if i == 0 or m.steps != self._active[i - 1].steps]
        factors = [rate_at(step, self._active[start].steps, self._config.warmup) for start in starts]
        stops = [*starts[1:], len(self._active)]
        return [(a, b, self._rate * f) for a, b, f in zip(starts, stops, factors, strict=True)]

    def _evaluate_start(self, validation: LabelledPairs) -> None:
        """Evaluate the initial weights; these evaluations do not count against patience."""
        losses = self._current.losses(validation, list(range(len(self._active)))).tolist()
        for member, loss in zip(self._active, losses, strict=True):
            member.start_loss = loss
        self._note_divergence(self._active, losses)

    def _evaluate(self, done: int, validation: LabelledPairs) -> None:
        """Evaluate the members whose evaluation is due, and keep weights that are better than before."""
        times = {m.steps: evaluations_after(done, m.steps, self._config) for m in self._active}
        due = [index for index, member in enumerate(self._active) if times[member.steps]]
        if not due:
            return
        loss_k = self._current.losses(validation, due)
        losses, members = loss_k.tolist(), [self._active[index] for index in due]
        better = [index for index, m, loss in zip(due, members, losses, strict=True) if m.record(done, loss)]
        self._keep(better)
        for member, loss in zip(members, losses, strict=True):
            for _ in range(times[member.steps] - 1):
                member.record(done, loss)
        if self._log:
            self._log.evaluations += [(done, self._spread(due, loss_k))] * max(times.values())
        self._note_divergence(members, losses)

    def _note_divergence(self, members: Sequence[_Member], losses: Sequence[float]) -> None:
        self._diverged |= {m.cell for m, loss in zip(members, losses, strict=True) if not math.isfinite(loss)}

    def _keep(self, indices: list[int]) -> None:
        """Copy the current weights of some active members into the model."""
        if len(indices) == self._model.members:
            for best, current in zip(self._model.parameters, self._current.parameters, strict=True):
                best.copy_(current)
        elif indices:
            source, rows = self._tensor(indices), self._tensor(self._active[index].row for index in indices)
            for best, current in zip(self._model.parameters, self._current.parameters, strict=True):
                best[rows] = current[source]

    def _drop_finished(self, done: int) -> None:
        """Drop finished, early-stopped and diverged members; compact the rest."""
        patience = self._config.patience
        remaining = [
            index
            for index, m in enumerate(self._active)
            if done < m.steps and m.waited < patience and m.cell not in self._diverged
        ]
        if len(remaining) == len(self._active):
            return
        self._active = [self._active[index] for index in remaining]
        if remaining:
            self._optimiser.keep(self._tensor(remaining))
            self._current = self._current.rebuilt(self._optimiser.weights.tensors, remaining)
            self._slots = self._tensor(member.slot for member in self._active)

    def _spread(self, indices: Iterable[int], loss_k: torch.Tensor) -> torch.Tensor:
        """Return the losses (K,) of all members of the model, NaN except for the active members with these indices."""
        loss_K = torch.full((self._model.members,), torch.nan)
        loss_K[[self._active[index].row for index in indices]] = loss_k.cpu()
        return loss_K


def _clip_by_member(gradients: list[torch.Tensor], clip: float) -> None:
    norms = torch.stack([torch.linalg.vector_norm(gradient, dim=(1, 2)) for gradient in gradients])
    scale_K = (clip / (norms.norm(dim=0) + 1e-6)).clamp(max=1.0)
    if scale_K.is_cuda or bool((scale_K < 1).any()):
        for gradient in gradients:
            gradient.mul_(scale_K[:, None, None])
