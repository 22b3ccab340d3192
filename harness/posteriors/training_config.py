"""The training config of Melo et al. 2024: its settings, its learning rates, its evaluations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from balbench.harness.posteriors.matmul import Precision
from balbench.harness.posteriors.posterior import FittedPosterior, LabelledPairs, Posterior, unwrap
from balbench.harness.streams import Stream

Fraction = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(Posterior):
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
        precision: of the operands of the heads' matrix products, in training and in scoring (harness/posteriors/
            products.py); weights, sums and the optimiser are float32.
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
    precision: Precision = "float32"

    def fit(self, train: LabelledPairs, validation: LabelledPairs, stream: Stream) -> FittedPosterior:
        """Train a fleet of one cell (see `Posterior.fit`)."""
        return unwrap(self.fit_fleet([train], validation, [stream])[0])

    @abstractmethod
    def fit_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Train all cells as one program (see `Posterior.fit_fleet`)."""


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: s / warmup while warming up, then down to 0 linearly."""
    if step < warmup:
        return step / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))


def evaluations_after(step: int, steps: int, config: TrainingConfig) -> int:
    """How often the eval split is looked at after `step` steps of `steps`: at intervals and at each epoch's end."""
    at_interval, at_epoch = step % config.evaluate_every == 0, step % (steps // config.epochs) == 0
    # As coded, a step that is both is evaluated twice, and the repeat counts against patience.
    return at_interval + at_epoch if config.repeat_evaluations else int(at_interval or at_epoch)
