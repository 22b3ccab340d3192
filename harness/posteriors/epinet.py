"""The epinet: a reward head and a small network of its last hidden layer and a random index (2107.08924).

r(x, z) = mu(x) + sigma(h(x), z) + p(x) . z, with index z ~ N(0, I), h the last hidden layer of mu (no gradient flows
into it from sigma), sigma(h, z) = g([h, z]) . z with g a small MLP that is learned, and p fixed random networks.
One z gives one reward function; training removes the disagreement between indices where labels constrain it.

Axes: S indices of a training step, K indices of the posterior, Z dimensions of an index, b responses of a minibatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple, Self

import torch
from pydantic import Field, model_validator

from balbench.harness.pool.feature_table import FeatureTable, table_blocks
from balbench.harness.posteriors.fleet_check import fleets_are_exact
from balbench.harness.posteriors.gaussian import Standardiser
from balbench.harness.posteriors.heads import SCORING_BYTES, Heads
from balbench.harness.posteriors.posterior import DivergedError, FittedPosterior, LabelledPairs
from balbench.harness.posteriors.single_head import SingleHead
from balbench.harness.posteriors.trainable import Minibatch, pair_gradient, pair_logits, pair_loss
from balbench.harness.posteriors.training import train_fleet
from balbench.harness.streams import Stream

PRIOR_HIDDEN = (5, 5)  # small networks, as in the paper's testbed


class Epinet(SingleHead):
    """One head and an epinet on its last hidden layer; K indices drawn once give K reward functions."""

    samples: int = Field(10, ge=1, le=4096)
    """K, the number of indices of the posterior."""
    index_dimension: int = Field(8, ge=1, le=1024)
    """Z, the dimension of an index."""
    indices: int = Field(8, ge=1, le=1024)
    """S, the number of indices of a training step, drawn anew for each step; the loss is their mean."""
    epinet_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (15, 15)
    """Widths of the hidden layers of g."""
    prior_scale: float = Field(1.0, ge=0)
    """Standard deviation over indices of the fixed prior's reward, for a typical response."""

    @model_validator(mode="after")
    def _has_a_hidden_layer(self) -> Self:
        if not self.hidden:
            raise ValueError("epinet works on the last hidden layer; give hidden at least one layer")
        return self

    def fleet_is_exact(self, dimension: int) -> bool:
        """Test training steps of the head and of the epinet's network (see `Posterior.fleet_is_exact`)."""
        head = (dimension, *self.hidden, 1)
        epinet = (self.hidden[-1] + self.index_dimension, *self.epinet_hidden, self.index_dimension, 1)
        return fleets_are_exact((head, epinet), 1, self.batch)

    def trained_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Train heads and epinets of all cells as one program (see `TrainingConfig.trained_fleet`)."""
        alone, device = self.as_ensemble(), trains[0].features_RD.device
        sizes = [self.hidden[-1] + self.index_dimension, *self.epinet_hidden, self.index_dimension]
        generators = [stream.child("epinet").torch() for stream in streams]
        drawn = [Heads.draw([generator], sizes, None, self.activation, self.precision) for generator in generators]
        epinets = Heads.joined(drawn).to(device)
        fixed = [self._fixed(train, stream) for train, stream in zip(trains, streams, strict=True)]
        trainable = _TrainableEpinet(alone.initial_fleet(trains, streams), epinets, fixed, self.indices)
        orders = [alone.orders_KEn(train, stream) for train, stream in zip(trains, streams, strict=True)]
        results = train_fleet(trainable, trains, validation, orders, self)
        return [
            result if isinstance(result, DivergedError) else trainable.model(cell, result)
            for cell, result in enumerate(results)
        ]

    def _fixed(self, train: LabelledPairs, stream: Stream) -> _Fixed:
        """Draw the parts of a cell that training does not change."""
        device = train.features_RD.device
        used_R = torch.unique(train.responses_n2)
        prior = Prior(train.features_RD[used_R], self.index_dimension, self.prior_scale, stream.child("prior"))
        table_RZ = torch.zeros(len(train.features_RD), self.index_dimension, device=device)
        table_RZ[used_R] = prior.values_RZ(train.features_RD[used_R])
        index_KZ = torch.randn(self.samples, self.index_dimension, generator=stream.child("index").torch()).to(device)
        return _Fixed(prior, table_RZ, index_KZ, stream.child("training index").torch())


class _Fixed(NamedTuple):
    """The parts of a cell that training does not change.

    Attributes:
        prior: the fixed random networks.
        prior_RZ: values of the prior for the training responses.
        index_KZ: indices of the posterior.
        generator: source of the indices of training steps.
    """

    prior: Prior
    prior_RZ: torch.Tensor
    index_KZ: torch.Tensor
    generator: torch.Generator


class Prior:
    """Z fixed random networks p: a reward function p(x) . z for each index z, with a given deviation over z."""

    def __init__(self, features_RD: FeatureTable, index_dimension: int, scale: float, stream: Stream) -> None:
        """Draw the networks and scale them to the standard deviation `scale` over the given responses."""
        self._standardise, self._root = Standardiser(features_RD), features_RD.shape[1] ** 0.5
        generators = [stream.child(z).torch() for z in range(index_dimension)]
        sizes = [features_RD.shape[1], *PRIOR_HIDDEN, 1]
        self._networks = Heads.draw(generators, sizes, None, "tanh").to(features_RD.device)
        drawn_RZ = self._drawn_RZ(features_RD)
        size = (drawn_RZ - drawn_RZ.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        # Identical responses differ by rounding only, which must not be scaled up.
        self._factor = scale / float(size) if size > 1e-5 * drawn_RZ.abs().max() else 0.0

    def values_RZ(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return scaled p of each response, (R, Z)."""
        return self._factor * self._drawn_RZ(features_RD)

    def _drawn_RZ(self, features_RD: FeatureTable) -> torch.Tensor:
        return self._networks.rewards_KR(self._standardise(features_RD) * self._root).mT


class EpinetHeads:
    """A head, its epinet and the prior, with K indices (see `FittedPosterior`)."""

    def __init__(
        self,
        base: Heads,
        epinet: Heads,
        prior: Prior,
        index_KZ: torch.Tensor,
        diagnostics: Mapping[str, float] | None = None,
    ) -> None:
        self.base, self.epinet, self.prior, self.index_KZ = base, epinet, prior, index_KZ
        self.diagnostics = diagnostics or {}

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the reward of each response under each index, shape (K, R), computed in blocks of responses."""
        step = max(256, SCORING_BYTES // (4 * max(w.shape[2] for w in self.base.weights)))
        return torch.cat([self._block_Kb(block_bD) for block_bD in table_blocks(features_RD, step)], dim=1)

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the last hidden layer of the head, float32 (R, H)."""
        return self.base.embedding_RH(features_RD)

    def _block_Kb(self, features_bD: torch.Tensor) -> torch.Tensor:
        hidden_bH = self.base.embedding_RH(features_bD)
        mean_b = self.base.hidden(len(self.base.weights) - 1, 0, hidden_bH)[:, 0]
        rewards_Kb = mean_b + self.index_KZ @ self.prior.values_RZ(features_bD).mT
        for k, index_Z in enumerate(self.index_KZ):
            out = torch.cat([hidden_bH, index_Z.expand(len(hidden_bH), -1)], dim=1)
            for layer in range(len(self.epinet.weights)):
                out = self.epinet.hidden(layer, 0, out)
            rewards_Kb[k] += out @ index_Z
        return rewards_Kb


class _TrainableEpinet:
    """The head and the epinet of each cell in training; each cell is one member (see `Trainable`)."""

    def __init__(self, base: Heads, epinet: Heads, fixed: Sequence[_Fixed], indices: int) -> None:
        self._base, self._epinet, self._fixed, self._indices = base, epinet, fixed, indices
        self.members, self.parameters = base.members, [*base.parameters, *epinet.parameters]

    def rebuilt(self, parameters: list[torch.Tensor], members: list[int]) -> Self:
        own, fixed = len(self._base.parameters), [self._fixed[k] for k in members]
        base, epinet = self._base.rebuilt(parameters[:own]), self._epinet.rebuilt(parameters[own:])
        return type(self)(base, epinet, fixed, self._indices)

    def model(self, k: int, diagnostics: Mapping[str, float] | None = None) -> EpinetHeads:
        """Return the posterior of cell k."""
        fixed, base, epinet = self._fixed[k], self._base.share(k, k + 1), self._epinet.share(k, k + 1)
        return EpinetHeads(base, epinet, fixed.prior, fixed.index_KZ, diagnostics)

    def step(self, batch: Minibatch, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Write gradients of the mean loss over S new indices; return the losses (K,)."""
        base, epinet, index_KSZ = self._base, self._epinet, self._draw()
        K, S, own = *index_KSZ.shape[:2], len(base.parameters)
        layers = base.forward(batch.inputs_KbD)
        epinet_layers = epinet.forward(_all_combinations(layers[-2], index_KSZ))
        sigma_KSb = (epinet_layers[-1].view(K, S, -1, index_KSZ.shape[2]) * index_KSZ[:, :, None]).sum(dim=3)
        prior_KbZ = torch.stack([f.prior_RZ[rows] for f, rows in zip(self._fixed, batch.responses_Kb, strict=True)])
        rewards_KSb = layers[-1].mT + sigma_KSb + index_KSZ @ prior_KbZ.mT
        label_KSb = batch.label_Kb.repeat_interleave(S, dim=0)
        weight_KSb = None if batch.weight_Kb is None else batch.weight_Kb.repeat_interleave(S, dim=0)
        loss_KS, grad_KSb = pair_gradient(rewards_KSb.flatten(0, 1), label_KSb, weight_KSb)
        grad_KSb = grad_KSb.view(K, S, -1) / S
        base.backward(layers, grad_KSb.sum(dim=1)[..., None], gradients[:own])
        grad_KSbZ = grad_KSb[..., None] * index_KSZ[:, :, None]
        epinet.backward(epinet_layers, grad_KSbZ.flatten(1, 2), gradients[own:])
        return loss_KS.view(K, S).mean(dim=1)

    def _draw(self) -> torch.Tensor:
        """Draw new indices (K, S, Z) on the CPU."""
        shape = (self._indices, self._fixed[0].index_KZ.shape[1])
        drawn = torch.stack([torch.randn(shape, generator=fixed.generator) for fixed in self._fixed])
        return drawn.to(self._base.weights[0].device)

    def losses(self, pairs: LabelledPairs, members: list[int]) -> torch.Tensor:
        """Return the mean loss over the K indices of the posterior, for the chosen members."""
        losses = []
        for k in members:
            rewards_KR = self.model(k).rewards_KR(pairs.features_RD)
            losses.append(pair_loss(pair_logits(pairs, rewards_KR), pairs.label_n).mean())
        return torch.stack(losses)


def _all_combinations(hidden_KbH: torch.Tensor, index_KSZ: torch.Tensor) -> torch.Tensor:
    """Combine each hidden layer with each index, (K, S b, H + Z)."""
    S, b = index_KSZ.shape[1], hidden_KbH.shape[1]
    parts = hidden_KbH[:, None].expand(-1, S, -1, -1), index_KSZ[:, :, None].expand(-1, -1, b, -1)
    return torch.cat(parts, dim=3).flatten(1, 2)
