"""The epinet: its gradients, its samples, and that they disagree where nothing was learned."""

import pytest
import torch
import torch.nn.functional as F

from balbench.harness.posteriors.epinet import Epinet, EpinetHeads, Prior, _Fixed, _TrainableEpinet
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.posteriors.trainable import Minibatch
from balbench.harness.streams import stream

SMALL = {"hidden": [12, 6], "learning_rate": 0.02, "weight_std": 0.3, "epochs": 20, "epinet_hidden": [7]}
Z = 3


def pairs_along(direction: torch.Tensor, n: int, seed: int, scale: float = 1.0) -> LabelledPairs:
    features = scale * torch.randn(2 * n, 5, generator=stream(seed).torch())
    pairs = torch.arange(2 * n).view(n, 2)
    return LabelledPairs(features, pairs, (features[pairs] @ direction).diff(dim=1)[:, 0].lt(0).float())


DIRECTION = torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0])
TRAIN, VALIDATION = pairs_along(DIRECTION, 200, 5), pairs_along(DIRECTION, 50, 6)


def model_of() -> EpinetHeads:
    base = Heads.draw([stream(0).torch()], [5, 12, 6, 1], 0.5, "tanh")
    epinet = Heads.draw([stream(1).torch()], [6 + Z, 7, Z], None, "tanh")
    index_KZ = torch.randn(4, Z, generator=stream(2).torch())
    return EpinetHeads(base, epinet, Prior(TRAIN.features_RD, Z, 0.7, stream(3)), index_KZ)


def definition(model: EpinetHeads, features: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """mu(x) + g([stop_gradient(h), z]) . z + p(x) . z, for one index."""
    hidden = features
    for layer in range(2):
        hidden = torch.tanh(hidden @ model.base.weights[layer][0] + model.base.biases[layer][0])
    mean = (hidden @ model.base.weights[2][0] + model.base.biases[2][0])[:, 0]
    out = torch.cat([hidden.detach(), index.expand(len(hidden), -1)], dim=1)
    out = torch.tanh(out @ model.epinet.weights[0][0] + model.epinet.biases[0][0])
    out = out @ model.epinet.weights[1][0] + model.epinet.biases[1][0]
    return mean + out @ index + model.prior.values_RZ(features) @ index


def test_rewards_are_those_of_the_definition():
    model = model_of()
    features = torch.randn(700, 5, generator=stream(4).torch())
    expected = torch.stack([definition(model, features, index) for index in model.index_KZ])
    torch.testing.assert_close(model.rewards_KR(features), expected, rtol=1e-4, atol=1e-5)


def test_a_step_has_the_loss_and_the_gradients_of_autograd():
    model, indices = model_of(), torch.randn(5, Z, generator=stream(6).torch())
    prior_RZ = model.prior.values_RZ(TRAIN.features_RD)
    trainable = _TrainableEpinet(
        model.base, model.epinet, [_Fixed(model.prior, prior_RZ, model.index_KZ, stream(6).torch())], len(indices)
    )
    rows = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    target = torch.tensor([1.0, 0.0, 0.5, 1.0])
    gradients = [torch.empty_like(parameter) for parameter in trainable.parameters]
    actual = trainable.step(Minibatch(TRAIN.features_RD[rows][None], rows[None], target[None]), gradients)
    for parameter in trainable.parameters:
        parameter.requires_grad_()
    rewards = torch.stack([definition(model, TRAIN.features_RD[rows], index) for index in indices])
    logit = rewards[:, :4] - rewards[:, 4:]
    loss = F.binary_cross_entropy_with_logits(logit, target.expand(5, -1))
    torch.testing.assert_close(actual[0], loss.detach())
    for actual, expected in zip(gradients, torch.autograd.grad(loss, trainable.parameters), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_the_prior_has_the_size_asked_for():
    index = torch.randn(4000, 8, generator=stream(7).torch())
    rewards = index @ Prior(TRAIN.features_RD, 8, 0.7, stream(3)).values_RZ(TRAIN.features_RD).mT
    spread = (rewards - rewards.mean(dim=1, keepdim=True)).square().mean().sqrt()
    assert float(spread) == pytest.approx(0.7, rel=0.03)


def test_answers_shrink_the_disagreement_and_what_is_far_from_them_keeps_it():
    few = LabelledPairs(TRAIN.features_RD, TRAIN.responses_n2[:4], TRAIN.label_n[:4])

    def spread(train: LabelledPairs, probe: LabelledPairs) -> float:
        rewards = Epinet(**SMALL, samples=40).fit(train, VALIDATION, stream(0)).rewards_KR(probe.features_RD)
        first, second = probe.responses_n2.T
        return float(torch.sigmoid(rewards[:, first] - rewards[:, second]).std(dim=0).mean())

    assert spread(TRAIN, VALIDATION) < 0.8 * spread(few, VALIDATION)


def test_the_prior_makes_samples_disagree():
    def spread(scale: float) -> float:
        epinet = Epinet(**(SMALL | {"epochs": 1, "learning_rate": 1e-6}), prior_scale=scale, samples=20)
        rewards = epinet.fit(TRAIN, VALIDATION, stream(0)).rewards_KR(TRAIN.features_RD)
        return float((rewards[:, ::2] - rewards[:, 1::2]).std(dim=0).mean())

    assert spread(3.0) > spread(1.0) > spread(0.0) > 0


def test_identical_responses_have_no_prior():
    same = torch.ones(10, 5)
    assert torch.equal(Prior(same, 4, 1.0, stream(0)).values_RZ(same), torch.zeros(10, 4))


def test_a_head_without_hidden_layers_is_refused():
    with pytest.raises(ValueError, match="give hidden at least one layer"):
        Epinet(hidden=[])
