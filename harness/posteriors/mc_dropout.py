"""MC dropout with consistent masks (Gal and Ghahramani 2016, 1506.02142; Kirsch et al. 2019, 1906.08158).

A head trained with dropout is scored under K masks of its hidden units. A mask is drawn once and applies to all
responses, so that a sample is one reward function and rewards of different responses can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator

from balbench.harness.pool.feature_table import FeatureTable, table_blocks
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.heads import SCORING_BYTES, Dropout, Heads
from balbench.harness.posteriors.posterior import FittedPosterior, LabelledPairs
from balbench.harness.posteriors.trainable import Minibatch, Trainable
from balbench.harness.streams import Stream

Draw = Callable[[Sequence[torch.Generator], int, torch.device], Dropout]


class McDropout(Ensemble):
    """Heads trained with dropout, and K samples of each pair's rewards by masks of their hidden units."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        name: recipe | {"members": 1, "samples": 5, "rate": 0.2} for name, recipe in Ensemble.presets.items()
    }

    members: int = Field(1, ge=1, le=1024)
    """Number of networks; sample k belongs to network k modulo members."""
    samples: int = Field(10, ge=1, le=4096)
    """K, the number of masks."""
    rate: float = Field(0.2, ge=0, lt=1)
    """Probability that a hidden unit is left out, in training and in sampling."""

    @model_validator(mode="after")
    def _has_units_to_leave_out(self) -> Self:
        if not self.hidden:
            raise ValueError("mc_dropout leaves out hidden units; give hidden at least one layer")
        if self.samples < self.members:
            raise ValueError(f"samples is {self.samples}, but each of {self.members} members needs one")
        return self

    def unlinked_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Train all networks of all cells as one program, then draw the masks (see `Ensemble.unlinked_fleet`)."""
        device = trains[0].features_RD.device
        trained = self.train_heads(trains, validation, streams)
        return [
            heads if isinstance(heads, Exception) else MaskedHeads(heads, self._masks(stream, device))
            for heads, stream in zip(trained, streams, strict=True)
        ]

    def trainable(self, heads: Heads, streams: Sequence[Stream]) -> Trainable:
        """Return the model to train: the networks with dropout."""
        generators = [stream.child("dropout", k).torch() for stream in streams for k in range(self.members)]
        return _TrainableDropout(heads, generators, self._draw)

    def _masks(self, stream: Stream, device: torch.device) -> Dropout:
        return self._draw([stream.child("mask", k).torch() for k in range(self.samples)], 1, device)

    def _draw(self, generators: Sequence[torch.Generator], rows: int, device: torch.device) -> Dropout:
        """Draw the units that stay, with one generator for each network or sample, on the CPU for all devices."""
        keep_Kbo = torch.empty(len(generators), rows, sum(self.hidden))
        for keep_bo, generator in zip(keep_Kbo, generators, strict=True):
            keep_bo.uniform_(generator=generator)
        keep_Kbo = keep_Kbo.ge_(self.rate).to(device)
        return Dropout(list(keep_Kbo.split(self.hidden, dim=2)), 1 / (1 - self.rate))


class _TrainableDropout:
    """Heads that are trained with dropout and evaluated without dropout (see `Trainable`)."""

    def __init__(self, heads: Heads, generators: Sequence[torch.Generator], draw: Draw) -> None:
        self._heads, self._generators, self._draw = heads, generators, draw
        self.members, self.parameters = heads.members, heads.parameters

    def rebuilt(self, parameters: list[torch.Tensor], members: list[int]) -> Self:
        return type(self)(self._heads.rebuilt(parameters), [self._generators[k] for k in members], self._draw)

    def step(self, batch: Minibatch, gradients: list[torch.Tensor]) -> torch.Tensor:
        inputs_KbD = batch.inputs_KbD
        return self._heads.step(batch, gradients, self._draw(self._generators, inputs_KbD.shape[1], inputs_KbD.device))

    def losses(self, pairs: LabelledPairs, members: list[int]) -> torch.Tensor:
        return self._heads.losses(pairs, members)


class MaskedHeads:
    """Heads with K masks of their hidden units (see `FittedPosterior`).

    Attributes:
        heads: the networks.
        masks: the units that stay under each sample, (K, 1, o) for each hidden layer.
    """

    def __init__(self, heads: Heads, masks: Dropout) -> None:
        self.heads, self.masks, self.diagnostics = heads, masks, heads.diagnostics

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the reward of each response under each mask, shape (K, R), computed in blocks of responses."""
        samples, networks = len(self.masks.keep_Kbo[0]), len(self.heads.weights[0])
        rewards_KR = torch.empty((samples, len(features_RD)), dtype=torch.float32, device=features_RD.device)
        start, rows = 0, max(256, SCORING_BYTES // (4 * max(w.shape[2] for w in self.heads.weights)))
        for block_bD in table_blocks(features_RD, rows):
            stop = start + len(block_bD)
            for network in range(networks):
                first_bo = self.heads.hidden(0, network, block_bD)  # common to all masks of a network
                for k in range(network, samples, networks):
                    rewards_KR[k, start:stop] = self._rewards(k, network, first_bo)
            start = stop
        return rewards_KR

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the last hidden layer of the first network with all its units, float32 (R, H)."""
        return self.heads.embedding_RH(features_RD)

    def _rewards(self, k: int, network: int, hidden_bo: torch.Tensor) -> torch.Tensor:
        for layer in range(1, len(self.heads.weights)):
            kept_bo = hidden_bo * (self.masks.keep_Kbo[layer - 1][k] * self.masks.scale)
            hidden_bo = self.heads.hidden(layer, network, kept_bo)
        return hidden_bo[:, 0]
