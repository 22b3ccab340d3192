"""The epinet: a reward head and a small network of its last hidden layer and a random index (2107.08924).

r(x, z) = mu(x) + sigma(h(x), z) + p(x) . z, with index z ~ N(0, I), h the last hidden layer of mu (no gradient flows
into it from sigma), sigma(h, z) = g([h, z]) . z with g a small MLP that is learned, and p fixed random networks.
One z gives one reward function; its disagreement with others is unlearned where answers constrain it.

Axes: S indices of a training step, K indices of the posterior, Z dimensions of an index, b responses of a minibatch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator

from harness.posteriors import training
from harness.posteriors.ensemble import MELO2024
from harness.posteriors.gaussian import Standardiser
from harness.posteriors.heads import SCORING_BYTES, Heads
from harness.posteriors.posterior import AnsweredPairs, FittedPosterior
from harness.posteriors.single_head import SingleHead, only_used
from harness.posteriors.training import Minibatch, pair_gradient, pair_loss
from harness.streams import Stream

PRIOR_HIDDEN = (5, 5)  # small networks, as in the paper's testbed


class Epinet(SingleHead):
    """One head and an epinet on its last hidden layer; K indices drawn once give K reward functions.

    Attributes (and those of `SingleHead` and `Recipe`):
        samples: K.
        index_dimension: Z.
        indices: S, drawn anew for each step; the loss is their mean.
        epinet_hidden: widths of the hidden layers of g.
        prior_scale: standard deviation of the fixed prior's reward over indices, for a typical response.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "melo2024": {name: value for name, value in MELO2024.items() if name != "members"}
    }

    samples: int = Field(10, ge=1, le=4096)
    index_dimension: int = Field(8, ge=1, le=1024)
    indices: int = Field(8, ge=1, le=1024)
    epinet_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (15, 15)
    prior_scale: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _has_a_hidden_layer(self) -> Self:
        if not self.hidden:
            raise ValueError("epinet works on the last hidden layer; give hidden at least one layer")
        return self

    def fit(self, train: AnsweredPairs, validation: AnsweredPairs, stream: Stream) -> FittedPosterior:
        """Train head and epinet together (see `Posterior.fit`)."""
        used, alone, device = only_used(train), self.as_ensemble(), train.features_RD.device
        base = alone.initial_heads(train.features_RD.shape[1], stream)
        sizes = [self.hidden[-1] + self.index_dimension, *self.epinet_hidden, self.index_dimension]
        epinet = Heads.draw([stream.child("epinet").torch()], sizes, None, self.activation)
        prior = Prior(used.features_RD, self.index_dimension, self.prior_scale, stream.child("prior"))
        index_KZ = torch.randn(self.samples, self.index_dimension, generator=stream.child("index").torch()).to(device)
        model = EpinetHeads(base.to(device), epinet.to(device), prior, index_KZ)
        generator = stream.child("training index").torch()

        def draw() -> torch.Tensor:
            return torch.randn(self.indices, self.index_dimension, generator=generator).to(device)

        taught = _Taught(model, prior.values_RZ(used.features_RD), draw)
        training.train(taught, used, validation, alone.orders_KEn(used, stream), self)
        return model


class Prior:
    """Z fixed random networks p: a reward function p(x) . z for each index z, of a given size over z."""

    def __init__(self, features_RD: torch.Tensor, index_dimension: int, scale: float, stream: Stream) -> None:
        """Draw the networks; the size is that over the responses given."""
        self._standardise, self._root = Standardiser(features_RD), features_RD.shape[1] ** 0.5
        generators = [stream.child(z).torch() for z in range(index_dimension)]
        sizes = [features_RD.shape[1], *PRIOR_HIDDEN, 1]
        self._networks = Heads.draw(generators, sizes, None, "tanh").to(features_RD.device)
        drawn_RZ = self._drawn_RZ(features_RD)
        size = (drawn_RZ - drawn_RZ.mean(dim=0)).square().sum(dim=1).mean().sqrt()
        # Of identical responses only rounding differs, which must not be blown up.
        self._factor = scale / float(size) if size > 1e-5 * drawn_RZ.abs().max() else 0.0

    def values_RZ(self, features_RD: torch.Tensor) -> torch.Tensor:
        """p of each response, scaled, (R, Z)."""
        return self._factor * self._drawn_RZ(features_RD)

    def _drawn_RZ(self, features_RD: torch.Tensor) -> torch.Tensor:
        return self._networks.rewards_KR(self._standardise(features_RD) * self._root).mT


class EpinetHeads:
    """A head, its epinet and the prior, with K indices (see `FittedPosterior`)."""

    def __init__(self, base: Heads, epinet: Heads, prior: Prior, index_KZ: torch.Tensor) -> None:
        self.base, self.epinet, self.prior, self.index_KZ = base, epinet, prior, index_KZ

    def rewards_KR(self, features_RD: torch.Tensor) -> torch.Tensor:
        """Reward of each response under each index, shape (K, R), computed in blocks of responses."""
        step = max(256, SCORING_BYTES // (4 * max(w.shape[2] for w in self.base.weights)))
        return torch.cat([self._block_Kb(block_bD) for block_bD in features_RD.split(step)], dim=1)

    def embedding_RH(self, features_RD: torch.Tensor) -> torch.Tensor:
        """Last hidden layer of the head, float32 (R, H)."""
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


class _Taught:
    """Head and epinet as one member that is trained (see `Trainable`)."""

    members = 1

    def __init__(self, model: EpinetHeads, prior_RZ: torch.Tensor, draw: Callable[[], torch.Tensor]) -> None:
        self._model, self._prior_RZ, self._draw = model, prior_RZ, draw
        self.parameters = [*model.base.parameters, *model.epinet.parameters]

    def clone(self) -> Self:
        model = self._model
        copy = EpinetHeads(model.base.clone(), model.epinet.clone(), model.prior, model.index_KZ)
        return type(self)(copy, self._prior_RZ, self._draw)

    def copy_members(self, other: Self, chosen_K: torch.Tensor) -> None:
        self._model.base.copy_members(other._model.base, chosen_K)
        self._model.epinet.copy_members(other._model.epinet, chosen_K)

    def step(self, batch: Minibatch, gradients: list[torch.Tensor]) -> torch.Tensor:
        """The loss is the mean over S new indices."""
        base, epinet, index_SZ = self._model.base, self._model.epinet, self._draw()
        S, own = len(index_SZ), len(base.parameters)
        layers = base.forward(batch.inputs_KbD)
        inputs = torch.cat(_each_with_each(layers[-2][0], index_SZ), dim=2).flatten(0, 1)[None]
        epinet_layers = epinet.forward(inputs)
        sigma_Sb = (epinet_layers[-1].view(S, -1, index_SZ.shape[1]) @ index_SZ[:, :, None])[..., 0]
        prior_Sb = index_SZ @ self._prior_RZ[batch.responses_Kb[0]].mT
        rewards_Sb = layers[-1][0, :, 0] + sigma_Sb + prior_Sb
        loss_S, grad_Sb = pair_gradient(rewards_Sb, batch.target_Kb.expand(S, -1))
        grad_Sb /= S
        base.backward(layers, grad_Sb.sum(dim=0)[None, :, None], gradients[:own])
        grad_SbZ = grad_Sb[..., None] * index_SZ[:, None]
        epinet.backward(epinet_layers, grad_SbZ.flatten(0, 1)[None], gradients[own:])
        return loss_S.mean(dim=0, keepdim=True)

    def losses(self, pairs: AnsweredPairs) -> torch.Tensor:
        """The mean over the K indices of the posterior."""
        rewards_KR = self._model.rewards_KR(pairs.features_RD)
        logit_Kn = rewards_KR[:, pairs.responses_n2[:, 0]] - rewards_KR[:, pairs.responses_n2[:, 1]]
        return pair_loss(logit_Kn, pairs.target_n).mean()[None]


def _each_with_each(hidden_bH: torch.Tensor, index_SZ: torch.Tensor) -> list[torch.Tensor]:
    S, b = len(index_SZ), len(hidden_bH)
    return [hidden_bH.expand(S, -1, -1), index_SZ[:, None].expand(-1, b, -1)]
