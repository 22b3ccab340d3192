"""Batched reward heads: K small MLPs of the same shape with stacked weights, computed as one program.

Axes: K members, b pairs of a minibatch, R responses, i and o the inputs and outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from balbench.harness.pool.feature_table import FeatureTable, table_blocks
from balbench.harness.posteriors.matmul import MATMULS, Precision
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.posteriors.stack import contiguous, restore_layout
from balbench.harness.posteriors.trainable import Minibatch, pair_gradient, pair_logits, pair_loss

SCORING_BYTES = 64 * 2**20  # largest activation in memory during scoring


def tanh_(tensor: torch.Tensor) -> torch.Tensor:
    """Compute tanh in place; on a CPU by numpy, which is several times faster than torch (docs/measured/speed.md)."""
    if tensor.is_cuda:
        return tensor.tanh_()
    array = tensor.numpy()  # shares the tensor's memory
    np.tanh(array, out=array)
    return tensor


# By name: the activation, and the product of a gradient with the activation's derivative given the output. Both
# functions change their first argument.
ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "tanh": (tanh_, lambda grad, out: torch.ops.aten.tanh_backward.grad_input(grad, out, grad_input=grad)),
    "relu": (torch.relu_, lambda grad, out: grad.mul_(out > 0)),
}


class Dropout(NamedTuple):
    """The hidden units that stay in a step (inverted dropout, Srivastava et al. 2014).

    Attributes:
        keep_Kbo: for each hidden layer 1 if a unit stays and 0 if it is dropped, float32.
        scale: 1 / (1 - p), the factor on units that stay.
    """

    keep_Kbo: list[torch.Tensor]
    scale: float


class Heads:
    """Stacked multilayer perceptrons D -> hidden -> 1 with explicit gradients (without an autograd graph).

    Attributes:
        weights: one (K, i, o) tensor for each layer (the memory can be contiguous as (K, o, i)).
        biases: one (K, 1, o) tensor for each layer.
        diagnostics: diagnostics of the training (see `FittedPosterior`); empty before training.
    """

    def __init__(
        self,
        weights: list[torch.Tensor],
        biases: list[torch.Tensor],
        activation: str,
        precision: Precision = "float32",
    ) -> None:
        self.weights, self.biases, self._matmul = weights, biases, MATMULS[precision]
        self._activate, self._through = ACTIVATIONS[activation]
        self.activation = activation
        self.diagnostics: Mapping[str, float] = {}

    @classmethod
    def draw(
        cls,
        generators: Sequence[torch.Generator],
        sizes: Sequence[int],
        weight_std: float | None,
        activation: str,
        precision: Precision = "float32",
    ) -> Heads:
        """Draw weights from N(0, weight_std^2) and biases from U(+-1/sqrt(fan_in)), with one generator for each member.

        Without a weight_std, the standard deviation of a layer is 1/sqrt(fan_in).
        """
        weights, biases = [], []
        for fan_in, out in pairwise(sizes):
            std = fan_in**-0.5 if weight_std is None else weight_std
            drawn = torch.stack([torch.randn(out, fan_in, generator=g) * std for g in generators])
            # Matrix products are fastest if the longer side is contiguous in memory.
            weights.append(drawn.transpose(1, 2) if out < fan_in else drawn.transpose(1, 2).contiguous())
            limit = fan_in**-0.5
            biases.append(torch.stack([(2 * torch.rand(1, out, generator=g) - 1) * limit for g in generators]))
        return cls(weights, biases, activation, precision)

    @property
    def members(self) -> int:
        """K, the number of members."""
        return len(self.weights[0])

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All tensors, weights first."""
        return [*self.weights, *self.biases]

    def to(self, device: torch.device) -> Heads:
        """Return the heads on a device."""
        return self.rebuilt([parameter.to(device) for parameter in self.parameters])

    def rebuilt(self, parameters: list[torch.Tensor], members: list[int] | None = None) -> Heads:
        """Return heads of the same shape with other parameters.

        Args:
            parameters: new parameters, in the order of the property `parameters`.
            members: indices of the members that the parameters belong to; heads do not use them (see `Trainable`).
        """
        depth = len(self.weights)
        return Heads(parameters[:depth], parameters[depth:], self.activation, self._matmul.precision)

    def share(self, start: int, stop: int) -> Heads:
        """Return consecutive members, which share the memory of these heads."""
        return self.rebuilt([parameter[start:stop] for parameter in self.parameters])

    @classmethod
    def joined(cls, parts: Sequence[Heads]) -> Heads:
        """Join the members of several heads of the same shape; the result is a copy unless there is one part."""
        if len(parts) == 1:
            return parts[0]
        layers = zip(*([contiguous(parameter) for parameter in part.parameters] for part in parts), strict=True)
        joined = zip((torch.cat(tensors) for tensors in layers), parts[0].parameters, strict=True)
        return parts[0].rebuilt([restore_layout(tensor, like) for tensor, like in joined])

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the reward of each response under each member, shape (K, R), computed in blocks of responses."""
        return self._rewards_kR(features_RD, range(self.members))

    def _rewards_kR(self, features_RD: FeatureTable, members: Sequence[int]) -> torch.Tensor:
        widest = max(w.shape[2] for w in self.weights)
        rewards_kR = torch.empty((len(members), len(features_RD)), dtype=torch.float32, device=self.weights[0].device)
        start = 0
        for block_bD in table_blocks(features_RD, max(256, SCORING_BYTES // (4 * widest))):
            for row_R, k in zip(rewards_kR, members, strict=True):
                row_R[start : start + len(block_bD)] = self._member_rewards(k, block_bD)
            start += len(block_bD)
        return rewards_kR

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the last hidden layer of member 0 for each response, shape (R, H); the features if there is none."""
        widest = max(w.shape[2] for w in self.weights)
        rows = max(256, SCORING_BYTES // (4 * widest))
        return torch.cat([self._last_hidden(0, block_bD) for block_bD in table_blocks(features_RD, rows)])

    def hidden(self, layer: int, k: int, inputs_bi: torch.Tensor) -> torch.Tensor:
        """Return the outputs (b, o) of one layer of member k; the outputs of the last layer are rewards."""
        product_bo = self._matmul.addmm(self.biases[layer][k], inputs_bi, self.weights[layer][k])
        return product_bo if layer + 1 == len(self.weights) else self._activate(product_bo)

    def _last_hidden(self, k: int, hidden_bi: torch.Tensor) -> torch.Tensor:
        for layer in range(len(self.weights) - 1):
            hidden_bi = self.hidden(layer, k, hidden_bi)
        return hidden_bi

    def _member_rewards(self, k: int, features_bD: torch.Tensor) -> torch.Tensor:
        return self.hidden(len(self.weights) - 1, k, self._last_hidden(k, features_bD))[:, 0]

    def step(self, batch: Minibatch, gradients: list[torch.Tensor], dropout: Dropout | None = None) -> torch.Tensor:
        """Write the gradients of the members' mean losses; return the losses (K,) (see `Trainable`)."""
        layers = self.forward(batch.inputs_KbD, dropout)
        loss_K, grad_Kb = pair_gradient(layers[-1][..., 0], batch.label_Kb, batch.weight_Kb, batch.scale_Kb)
        self.backward(layers, grad_Kb[..., None], gradients, dropout)
        return loss_K

    def losses(self, pairs: LabelledPairs, members: Sequence[int] | None = None) -> torch.Tensor:
        """Return the mean loss over pairs of all or of the chosen members, shape (K,)."""
        rewards_kR = self._rewards_kR(pairs.features_RD, range(self.members) if members is None else members)
        return pair_loss(pair_logits(pairs, rewards_kR), pairs.label_n).mean(dim=1)

    def forward(self, inputs_Kbi: torch.Tensor, dropout: Dropout | None = None) -> list[torch.Tensor]:
        """Return the inputs of every layer, followed by the rewards (K, b, 1)."""
        layers = [inputs_Kbi]
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            # Units that stay are scaled in the next product, so that `layers` holds the plain activations.
            scale = dropout.scale if dropout and number else 1.0
            layers.append(self._matmul.baddbmm(bias, layers[-1], weight, scale))
            if number + 1 < len(self.weights):
                self._activate(layers[-1])
                if dropout:
                    layers[-1].mul_(dropout.keep_Kbo[number])
        return layers

    def backward(
        self,
        layers: list[torch.Tensor],
        grad_Kb1: torch.Tensor,
        gradients: list[torch.Tensor],
        dropout: Dropout | None = None,
    ) -> None:
        """Write the gradients of all parameters (in their order), given the gradient of the loss by the rewards."""
        depth, grad = len(self.weights), grad_Kb1
        for layer in reversed(range(depth)):
            torch.sum(grad, dim=1, keepdim=True, out=gradients[depth + layer])
            if dropout and layer:
                grad = grad * dropout.scale
            self._matmul.bmm(layers[layer].transpose(1, 2), grad, out=gradients[layer])
            if layer:
                grad = self._matmul.bmm(grad, self.weights[layer].transpose(1, 2))
                if dropout:
                    grad.mul_(dropout.keep_Kbo[layer - 1])
                grad = self._through(grad, layers[layer])
