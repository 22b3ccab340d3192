"""The batched program against one member after another with torch.nn and AdamW."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.fleet_check import fleets_are_exact
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.posterior import DivergedError, LabelledPairs
from balbench.harness.posteriors.training import TrainingLog, minibatches, train, train_fleet
from balbench.harness.posteriors.training_config import rate_at
from balbench.harness.streams import stream

D, R = 6, 80
ACTIVATION = {"tanh": nn.Tanh, "relu": nn.ReLU}


def data(n: int, seed: int) -> LabelledPairs:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(R, D, generator=generator)
    pairs = torch.stack([torch.randperm(R, generator=generator)[:2] for _ in range(n)])
    return LabelledPairs(features, pairs, torch.randint(0, 3, (n,), generator=generator) / 2)


def plain_member(heads: Heads, k: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for weight, bias in zip(heads.weights, heads.biases, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[2])
        linear.weight.data, linear.bias.data = weight[k].T.clone(), bias[k, 0].clone()
        layers += [linear, ACTIVATION[heads.activation]()]
    return nn.Sequential(*layers[:-1])


def plain_loss(model: nn.Module, pairs: LabelledPairs, rows: torch.Tensor) -> torch.Tensor:
    first, second = (model(pairs.features_RD[pairs.responses_n2[rows, side]])[:, 0] for side in (0, 1))
    return F.binary_cross_entropy_with_logits(first - second, pairs.label_n[rows])


def plain_training(
    model: nn.Module, pairs: LabelledPairs, validation: LabelledPairs, order: torch.Tensor, config
) -> list[float]:
    """The config for one member: keep the best weights on the validation pairs; stop after `patience` evaluations."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    batches = [rows for epoch in order for rows in epoch.split(config.batch)]
    best, best_state, waiting, losses = float("inf"), None, 0, []
    for step, rows in enumerate(batches):
        loss = plain_loss(model, pairs, rows)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.param_groups[0]["lr"] = config.learning_rate * rate_at(step, len(batches), config.warmup)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % config.evaluate_every == 0 or (step + 1) % (len(batches) // config.epochs) == 0:
            with torch.no_grad():
                actual = plain_loss(model, validation, torch.arange(len(validation.label_n))).item()
            waiting = 0 if actual < best else waiting + 1
            if actual < best:
                best, best_state = actual, {name: value.clone() for name, value in model.state_dict().items()}
            if waiting >= config.patience:
                break
    model.load_state_dict(best_state)
    return losses


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(
    ("n", "settings"), [(50, {}), (70, {"weight_decay": 0.1, "clip": 0.05}), (33, {"learning_rate": 0.1})]
)
def test_every_member_trains_as_if_alone(activation, n, settings):
    config = Ensemble(
        hidden=[16, 8],
        members=3,
        activation=activation,
        weight_std=0.4,
        epochs=6,
        evaluate_every=2,
        patience=2,
        **({"learning_rate": 0.02} | settings),
    )
    pairs, validation = data(n, 0), data(40, 1)
    heads = config.initial_heads(D, stream(0))
    order = torch.stack([config._order(n, stream(0, k)) for k in range(3)])
    members = [plain_member(heads, k) for k in range(3)]
    log = train(heads, pairs, validation, order, config)
    batched = torch.stack(log.step_losses)
    for k, member in enumerate(members):
        alone = plain_training(member, pairs, validation, order[k], config)
        torch.testing.assert_close(batched[: len(alone), k], torch.tensor(alone), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            rewards = member(pairs.features_RD)[:, 0]
        actual = heads.rewards_KR(pairs.features_RD)[k]
        torch.testing.assert_close(actual - actual[0], rewards - rewards[0], rtol=1e-3, atol=1e-4)


def test_members_that_run_out_of_patience_keep_their_best_weights_while_others_go_on():
    config = Ensemble(
        hidden=[16], members=4, weight_std=0.5, epochs=40, learning_rate=0.05, patience=1, evaluate_every=1
    )
    pairs, validation = data(20, 0), data(20, 1)
    heads = config.initial_heads(D, stream(0))
    log = train(heads, pairs, validation, torch.stack([config._order(20, stream(0, k)) for k in range(4)]), config)
    history = torch.stack([loss for _, loss in log.evaluations])
    stops = [next(i for i in range(1, len(history)) if history[i, k] >= history[:i, k].min()) for k in range(4)]
    assert len(set(stops)) > 1
    assert len(history) == max(stops) + 1
    best = torch.stack([history[:stop, k].min() for k, stop in enumerate(stops)])
    torch.testing.assert_close(heads.losses(validation), best, rtol=1e-4, atol=1e-6)


def test_gradients_are_autograds():
    heads = Ensemble(hidden=[7, 5], members=2, weight_std=0.5).initial_heads(D, stream(0))
    inputs, grad = torch.randn(2, 9, D), torch.randn(2, 9, 1)
    gradients = [torch.empty_like(p) for p in heads.parameters]
    heads.backward(heads.forward(inputs), grad, gradients)
    leaves = [p.clone().requires_grad_() for p in heads.parameters]
    hidden = inputs
    for layer in range(3):
        hidden = torch.baddbmm(leaves[3 + layer], hidden, leaves[layer])
        hidden = torch.tanh(hidden) if layer < 2 else hidden
    for actual, theirs in zip(gradients, torch.autograd.grad(hidden, leaves, grad), strict=True):
        torch.testing.assert_close(actual, theirs)


def test_the_learning_rate_follows_the_recipe():
    assert [rate_at(step, 20, 5) for step in (0, 1, 5, 20)] == [0, 0.2, 1, 0]
    assert rate_at(12, 20, 5) == pytest.approx(8 / 15)
    assert rate_at(3, 4, 5) == 0.6  # shorter than the warm-up


def test_minibatches_keep_the_last_partial_one():
    order = torch.arange(2 * 3 * 10).view(2, 3, 10)
    sizes = [tuple(batch.shape) for batch in minibatches(order, 4)]
    assert sizes == [(2, 4), (2, 4), (2, 2)] * 3


def test_shared_initial_weights_are_the_authors_way():
    apart = Ensemble(hidden=[8], members=4).initial_heads(D, stream(0))
    shared = Ensemble(hidden=[8], members=4, init="shared").initial_heads(D, stream(0))
    assert not torch.equal(apart.weights[0][1], apart.weights[0][2])
    assert torch.equal(shared.weights[0][1], shared.weights[0][2])
    assert torch.equal(shared.weights[0][1], shared.weights[0][3])
    assert not torch.equal(shared.weights[0][0], shared.weights[0][1])


def test_a_members_bits_do_not_depend_on_its_neighbours():
    if not fleets_are_exact(((D, 16, 8, 1),)):
        pytest.skip("on this processor a batch of products changes the last bits of its parts")
    pairs, validation = data(60, 0), data(30, 1)
    five, two = (
        Ensemble(hidden=[16, 8], members=members, learning_rate=0.02).fit(pairs, validation, stream(0))
        for members in (5, 2)
    )
    assert torch.equal(five.rewards_KR(pairs.features_RD)[:2], two.rewards_KR(pairs.features_RD))


def trained(learning_rate: float, **settings):
    """An ensemble's diagnostics, and its loss history (evaluations, members) with the initial losses first."""
    config = Ensemble(hidden=[16], members=4, weight_std=0.5, learning_rate=learning_rate, **settings)
    pairs, validation = data(40, 0), data(30, 1)
    heads = config.initial_heads(D, stream(0).child("x"))
    start = heads.losses(validation)
    orders = torch.stack([config._order(40, stream(0, k)) for k in range(4)])
    log = TrainingLog()
    (diagnostics,) = train_fleet(heads, [pairs], validation, [orders], config, log=log)
    return diagnostics, torch.stack([start, *(loss for _, loss in log.evaluations)]), log


@pytest.mark.parametrize("learning_rate", [1e-3, 0.05, 1.0, 1e6])
@pytest.mark.parametrize("repeat", [False, True])
def test_diagnostics_follow_their_definitions(learning_rate, repeat):
    settings = {"epochs": 12, "patience": 3, "evaluate_every": 1, "repeat_evaluations": repeat}
    diagnostics, history, log = trained(learning_rate, **settings)
    steps, ends, bests, initial, improving = [], [], [], [], []
    for losses in history.T.tolist():
        after = [(log.evaluations[i][0], loss) for i, loss in enumerate(losses[1:]) if not math.isnan(loss)]
        best = min(loss for _, loss in after)
        steps.append(after[-1][0])
        ends.append(after[-1][1])
        bests.append(best)
        initial.append(best >= losses[0])
        improving.append(next(step for step, loss in after if loss == best) == after[-1][0])
    assert diagnostics == pytest.approx(
        {
            "steps": np.mean(steps),
            "evaluation_loss_start": history[0].mean().item(),
            "evaluation_loss_best": np.mean(bests),
            "evaluation_loss_end": np.mean(ends),
            "best_is_initial": np.mean(initial),
            "still_improving": np.mean(improving),
            "learning_rate": learning_rate,
        }
    )


def test_diagnostics_name_a_learning_rate_that_is_too_high_or_too_low():
    high, _, _ = trained(1e6, epochs=3)
    assert high["best_is_initial"] == 1
    low, _, _ = trained(1e-4, epochs=3)
    assert (low["best_is_initial"], low["still_improving"]) == (0, 1)
    assert low["evaluation_loss_end"] == low["evaluation_loss_best"] < low["evaluation_loss_start"]


def test_the_evaluation_of_initial_weights_does_not_change_what_is_trained():
    """With one evaluation, at the end, the model has the weights after the last step, even if they are worse."""
    config = Ensemble(hidden=[16], members=2, weight_std=0.5, learning_rate=1e3, epochs=1, evaluate_every=99)
    pairs, validation = data(40, 0), data(30, 1)
    model = config.fit(pairs, validation, stream(0))
    assert model.diagnostics["best_is_initial"] == 1
    assert model.losses(validation).mean().item() == pytest.approx(model.diagnostics["evaluation_loss_best"])


def test_initial_weights_without_a_finite_loss_diverge_at_once():
    config = Ensemble(hidden=[4], members=1)
    heads = config.initial_heads(D, stream(0))
    heads.weights[0][0, 0, 0] = torch.nan
    with pytest.raises(DivergedError):
        train(heads, data(9, 0), data(9, 1), config._order(9, stream(0))[None], config)
