"""MC dropout: its gradients, its samples, and that they disagree where nothing was learned."""

import pytest
import torch

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.heads import Dropout, Heads
from balbench.harness.posteriors.mc_dropout import MaskedHeads, McDropout
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.streams import stream

SMALL = {"hidden": [12, 6], "learning_rate": 0.02, "weight_std": 0.3, "epochs": 10}


def heads_of(members: int, activation: str = "tanh") -> Heads:
    generators = [stream(0, k).torch() for k in range(members)]
    return Heads.draw(generators, [5, 12, 6, 1], 0.5, activation)


def keep(members: int, rows: int, rate: float = 0.4) -> Dropout:
    generator = stream(1).torch()
    masks = [(torch.rand(members, rows, units, generator=generator) >= rate).float() for units in (12, 6)]
    return Dropout(masks, 1 / (1 - rate))


def definition(heads: Heads, k: int, inputs: torch.Tensor, dropout: Dropout, row_k: int) -> torch.Tensor:
    """Inverted dropout by its formula: activation x mask / (1 - p), layer by layer."""
    hidden = inputs
    activate = {"tanh": torch.tanh, "relu": torch.relu}[heads.activation]
    for layer in range(2):
        hidden = activate(hidden @ heads.weights[layer][k] + heads.biases[layer][k])
        hidden = hidden * dropout.keep_Kbo[layer][row_k] * dropout.scale
    return (hidden @ heads.weights[2][k] + heads.biases[2][k])[:, 0]


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_rewards_and_gradients_under_dropout_are_those_of_autograd(activation):
    heads, dropout = heads_of(3, activation), keep(3, rows=8)
    inputs = torch.randn(3, 8, 5, generator=stream(2).torch())
    upstream = torch.randn(3, 8, 1, generator=stream(3).torch())
    layers = heads.forward(inputs, dropout)
    gradients = [torch.empty_like(parameter) for parameter in heads.parameters]
    heads.backward(layers, upstream, gradients, dropout)
    for parameter in heads.parameters:
        parameter.requires_grad_()
    rewards = torch.stack([definition(heads, k, inputs[k], dropout, k) for k in range(3)])
    torch.testing.assert_close(layers[-1][..., 0], rewards.detach())
    expected = torch.autograd.grad((rewards * upstream[..., 0]).sum(), heads.parameters)
    for actual, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


def test_a_sample_is_one_mask_for_all_responses_and_belongs_to_one_network():
    heads, masks = heads_of(2), keep(5, rows=1)
    features = torch.randn(700, 5, generator=stream(2).torch())
    actual = MaskedHeads(heads, masks).rewards_KR(features)
    expected = torch.stack([definition(heads, k % 2, features, masks, k) for k in range(5)])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def pairs_along(direction: torch.Tensor, n: int, seed: int) -> LabelledPairs:
    features = torch.randn(2 * n, 5, generator=stream(seed).torch())
    pairs = torch.arange(2 * n).view(n, 2)
    return LabelledPairs(features, pairs, (features[pairs] @ direction).diff(dim=1)[:, 0].lt(0).float())


@pytest.fixture(scope="module")
def data() -> tuple[LabelledPairs, LabelledPairs]:
    direction = torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0])
    return pairs_along(direction, 200, 5), pairs_along(direction, 50, 6)


def test_nothing_left_out_is_the_ensemble_without_disagreement(data):
    train, validation = data
    model = McDropout(**SMALL, samples=3, rate=0.0).fit(train, validation, stream(0))
    rewards = model.rewards_KR(train.features_RD)
    assert torch.equal(rewards[0], rewards[1])
    alone = Ensemble(**SMALL, members=1).fit(train, validation, stream(0))
    torch.testing.assert_close(rewards[:1], alone.rewards_KR(train.features_RD))


def test_more_dropout_disagrees_more(data):
    train, validation = data

    def spread(rate: float) -> float:
        model = McDropout(**SMALL, samples=30, rate=rate).fit(train, validation, stream(0))
        rewards = model.rewards_KR(validation.features_RD)
        return float((rewards[:, ::2] - rewards[:, 1::2]).std(dim=0).mean())

    assert 0 < spread(0.05) < spread(0.2) < spread(0.5)


def test_dropout_is_active_while_training(data):
    train, validation = data
    with_dropout = McDropout(**SMALL, rate=0.5).fit(train, validation, stream(0)).embedding_RH(train.features_RD)
    without = McDropout(**SMALL, rate=0.0).fit(train, validation, stream(0)).embedding_RH(train.features_RD)
    assert (with_dropout - without).abs().max() > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"hidden": []}, "give hidden at least one layer"), ({"members": 3, "samples": 2}, "each of 3 members needs one")],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        McDropout(**settings)
