"""A deep ensemble of reward heads on frozen features (Lakshminarayanan et al. 2017; Melo et al. 2024, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field

from balbench.harness.posteriors.fleet_check import fleets_are_exact
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.links import LinkSettings
from balbench.harness.posteriors.posterior import DivergedError, FittedPosterior, LabelledPairs, try_fit
from balbench.harness.posteriors.trainable import Trainable
from balbench.harness.posteriors.training import train_fleet
from balbench.harness.posteriors.training_config import TrainingConfig
from balbench.harness.streams import Stream

T = TypeVar("T")
MELO2024: dict[str, Any] = {
    "members": 5,
    "hidden": (2048, 256),
    "activation": "tanh",
    "weight_std": 0.01,
    "epochs": 4,
    "batch": 32,
    "learning_rate": 3e-5,
    "betas": (0.9, 0.999),
    "epsilon": 1e-8,
    "weight_decay": 0.0,
    "clip": 1.0,
    "warmup": 5,
    "evaluate_every": 100,
    "patience": 3,
}
AUTO: dict[str, Any] = MELO2024 | {
    "hidden": (128, 32),
    "weight_std": 0.1,
    "learning_rate": "auto",
    "evaluate_every": "auto",
    "patience": 10,
}


class Ensemble(LinkSettings, TrainingConfig):
    """K independent MLP heads, trained as one batched program from new initial weights each round."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"melo2024": MELO2024, "auto": AUTO}

    members: int = Field(5, ge=1, le=1024)
    """K, the number of heads."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (2048, 256)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers."""
    weight_std: float = Field(0.01, gt=0)
    """Initial weights are drawn from N(0, weight_std^2), biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    init: Literal["independent", "shared"] = "independent"
    """`independent` initial weights for each member, or `shared` as in the authors' code: member 0 has its own, all
    others have the same, so that they differ by the order of minibatches only."""

    def trained_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Train all members of all cells as one program, then fit the link (see `TrainingConfig.trained_fleet`)."""
        link = self.pair_link(validation)
        data = [link.for_training(train) for train in trains]
        models = self.unlinked_fleet(data, link.for_training(validation), streams)
        return [model if isinstance(model, Exception) else try_fit(link.attached, model) for model in models]

    def unlinked_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> Sequence[FittedPosterior | Exception]:
        """Return the trained posterior of each cell, without its link."""
        return self.train_heads(trains, validation, streams)

    def train_heads(
        self, data: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[Heads | DivergedError]:
        """Train all members of all cells from new initial weights."""
        heads = self.initial_fleet(data, streams)
        orders = [self.orders_KEn(pairs, stream) for pairs, stream in zip(data, streams, strict=True)]
        results = train_fleet(self.trainable(heads, streams), data, validation, orders, self)
        return [
            result if isinstance(result, DivergedError) else self._trained(heads, cell, result)
            for cell, result in enumerate(results)
        ]

    def _trained(self, heads: Heads, cell: int, diagnostics: Mapping[str, float]) -> Heads:
        """Return the members of a cell after training."""
        trained = heads.share(cell * self.members, (cell + 1) * self.members)
        trained.diagnostics = diagnostics
        return trained

    def training_bytes(self, dimension: int) -> int:
        """Count weights, gradients, AdamW's two moments, best weights, and rows and activations of a minibatch."""
        sizes = [dimension, *self.hidden, 1]
        numbers = 5 * sum((i + 1) * o for i, o in pairwise(sizes)) + 4 * self.batch * sum(sizes)
        return 4 * self.members * numbers

    def fleet_is_exact(self, dimension: int) -> bool:
        """Test training steps of the heads (see `Posterior.fleet_is_exact`)."""
        return fleets_are_exact(((dimension, *self.hidden, 1),), self.members, self.batch)

    def trainable(self, heads: Heads, streams: Sequence[Stream]) -> Trainable:
        """Return the model to train: the heads."""
        return heads

    def initial_fleet(self, data: Sequence[LabelledPairs], streams: Sequence[Stream]) -> Heads:
        """Draw initial weights for each cell and join them on the device."""
        dimension, device = data[0].features_RD.shape[1], data[0].features_RD.device

        def draw(stream: Stream) -> Heads:
            return self.initial_heads(dimension, stream).to(device)

        # A GPU would wait while one core draws hundreds of millions of numbers. A CPU worker has one core only.
        return Heads.joined(draw_in_parallel(draw, streams) if device.type == "cuda" else [draw(s) for s in streams])

    def orders_KEn(self, data: LabelledPairs, stream: Stream) -> torch.Tensor:
        """Draw the order of the labelled pairs for each member and epoch."""
        orders = [self._order(len(data.label_n), stream.child("minibatch", k)) for k in range(self.members)]
        return torch.stack(orders).to(data.features_RD.device)

    def initial_heads(self, dimension: int, stream: Stream) -> Heads:
        """Draw the initial weights of a cell's members for inputs with `dimension` features."""
        members = [min(k, 1) if self.init == "shared" else k for k in range(self.members)]
        generators = [stream.child("member", k).torch() for k in members]
        return Heads.draw(generators, [dimension, *self.hidden, 1], self.weight_std, self.activation, self.precision)

    def _order(self, n: int, stream: Stream) -> torch.Tensor:
        generator = stream.torch()
        return torch.stack([torch.randperm(n, generator=generator) for _ in range(self.epochs)])


def draw_in_parallel(draw: Callable[[Stream], T], streams: Sequence[Stream]) -> list[T]:
    """Draw from each stream on one thread for each core (torch releases Python's lock while it draws)."""
    from loky import cpu_count

    with ThreadPoolExecutor(cpu_count()) as threads:
        return list(threads.map(draw, streams))
