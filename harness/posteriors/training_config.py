"""Settings of the training of heads (Melo et al. 2024), with the schedules of learning rates and evaluations."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from balbench.harness.posteriors.matmul import Precision
from balbench.harness.posteriors.posterior import FittedPosterior, LabelledPairs, Posterior, fit_diagnostics, unwrap
from balbench.harness.streams import Stream, stream

LEARNING_RATES = (3e-4, 1e-3, 3e-3)  # of `learning_rate: auto`
LEAST_INTERVAL, MOST_EVALUATIONS = 5, 80  # of `evaluate_every: auto`
Fraction = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(Posterior):
    """The settings of training, for all posteriors with heads."""

    version: ClassVar[int] = 2
    epochs: int = Field(4, ge=1)
    """Passes over the labels."""
    batch: int = Field(32, ge=1)
    """Pairs of a minibatch; the last one of an epoch may be smaller."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = 3e-5
    """Peak learning rate of AdamW: it rises linearly from 0 over `warmup` steps, then falls linearly to 0. `auto`:
    the one of 3e-4, 1e-3 and 3e-3 with the lowest loss on the eval split after training on the initial set. A cell
    chooses once, with a fixed stream, so all policies of a seed have the same rate."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    epsilon: float = Field(1e-8, gt=0)
    """Term in the denominator of AdamW."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of a member's gradient; larger gradients are scaled down to this norm."""
    warmup: int = Field(5, ge=0)
    """Steps in which the learning rate rises."""
    evaluate_every: Annotated[int, Field(ge=1)] | Literal["auto"] = 100
    """Steps between evaluations on the eval split; the end of each epoch is evaluated as well. `auto`: 5, or as many
    as give 80 evaluations in trainings of more than 400 steps."""
    patience: int = Field(3, ge=1)
    """A member stops after this many evaluations without a strictly lower loss; its best weights are kept."""
    repeat_evaluations: bool = False
    """As in the authors' code: an evaluation step that ends an epoch is evaluated twice, and the repeat counts against
    patience."""
    precision: Precision = "float32"
    """Precision of the operands of the heads' matrix products, in training and in scoring. Weights, sums and the
    optimiser are float32."""

    def fit(self, train: LabelledPairs, validation: LabelledPairs, stream: Stream) -> FittedPosterior:
        """Train a fleet of one cell (see `Posterior.fit`)."""
        return unwrap(self.fit_fleet([train], validation, [stream])[0])

    def tuned(self, initial: LabelledPairs, validation: LabelledPairs) -> Self:
        """Choose the learning rate if it is automatic (see `Posterior.tuned`); the first of equal rates is chosen."""
        if self.learning_rate != "auto":
            return self
        candidates = [self.model_copy(update={"learning_rate": rate}) for rate in LEARNING_RATES]
        return min(candidates, key=lambda candidate: candidate._eval_loss(initial, validation))

    def _eval_loss(self, train: LabelledPairs, validation: LabelledPairs) -> float:
        """Return the mean over members of the lowest loss on the eval split; infinite if training diverges."""
        (model,) = self.fit_fleet([train], validation, [stream(0, "learning rate")])
        if isinstance(model, Exception):
            return math.inf
        return fit_diagnostics(model)["evaluation_loss_best"]

    def evaluations(self, labels: int) -> int:
        """Count the evaluations of a training that does not stop early, the one of the initial weights included."""
        steps_an_epoch = math.ceil(labels / self.batch)
        steps = self.epochs * steps_an_epoch
        interval = evaluation_interval(steps, self)
        both = 0 if self.repeat_evaluations else steps // math.lcm(interval, steps_an_epoch)
        return 1 + steps // interval + self.epochs - both

    def fit_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Train all cells as one program (see `Posterior.fit_fleet`).

        If the learning rate is still `auto` (see `tuned`), each cell is tuned on its own labels and trains alone.
        """
        if self.learning_rate != "auto":
            return self.trained_fleet(trains, validation, streams)
        return [
            self.tuned(train, validation).trained_fleet([train], validation, [stream])[0]
            for train, stream in zip(trains, streams, strict=True)
        ]

    @abstractmethod
    def trained_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Train all cells at one learning rate as one program (see `Posterior.fit_fleet`)."""


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Return the factor on the learning rate: step / warmup during warm-up, then linearly down to 0."""
    if step < warmup:
        return step / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))


def evaluation_interval(steps: int, config: TrainingConfig) -> int:
    """Return the number of steps between evaluations in a training of `steps` steps."""
    automatic = max(LEAST_INTERVAL, -(-steps // MOST_EVALUATIONS))
    return automatic if config.evaluate_every == "auto" else config.evaluate_every


def evaluations_after(step: int, steps: int, config: TrainingConfig) -> int:
    """Return the number of evaluations after `step` of `steps` steps: at intervals and at the end of each epoch."""
    at_interval = step % evaluation_interval(steps, config) == 0
    at_epoch = step % (steps // config.epochs) == 0
    # In the authors' code a step at both times is evaluated twice, and the repeat counts against patience.
    return at_interval + at_epoch if config.repeat_evaluations else int(at_interval or at_epoch)
