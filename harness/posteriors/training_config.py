"""Settings of the training of heads (Melo et al. 2024), with the schedules of learning rates and evaluations."""

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
    """The settings of training, for all posteriors with heads."""

    epochs: int = Field(4, ge=1)
    """Passes over the labels."""
    batch: int = Field(32, ge=1)
    """Pairs of a minibatch; the last one of an epoch may be smaller."""
    learning_rate: float = Field(3e-5, gt=0)
    """Peak learning rate of AdamW: it rises linearly from 0 over `warmup` steps, then falls linearly to 0."""
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
    evaluate_every: int = Field(100, ge=1)
    """Steps between evaluations on the eval split; the end of each epoch is evaluated as well."""
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

    @abstractmethod
    def fit_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Train all cells as one program (see `Posterior.fit_fleet`)."""


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Return the factor on the learning rate: step / warmup during warm-up, then linearly down to 0."""
    if step < warmup:
        return step / warmup
    return max(0.0, (steps - step) / max(1, steps - warmup))


def evaluations_after(step: int, steps: int, config: TrainingConfig) -> int:
    """Return the number of evaluations after `step` of `steps` steps: at intervals and at the end of each epoch."""
    at_interval, at_epoch = step % config.evaluate_every == 0, step % (steps // config.epochs) == 0
    # In the authors' code a step at both times is evaluated twice, and the repeat counts against patience.
    return at_interval + at_epoch if config.repeat_evaluations else int(at_interval or at_epoch)
