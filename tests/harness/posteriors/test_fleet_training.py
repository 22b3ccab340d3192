"""Cells trained together: each has the results of a cell alone, for any neighbours."""

import copy

import pytest
import torch

from balbench.harness.posteriors.ensemble import Ensemble, draw_in_parallel
from balbench.harness.posteriors.epinet import Epinet
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.laplace import Laplace
from balbench.harness.posteriors.mc_dropout import McDropout
from balbench.harness.posteriors.posterior import DivergedError, LabelledPairs
from balbench.harness.posteriors.training import train_fleet
from balbench.harness.rounds.fleet import can_fit_together, fit_cells
from balbench.harness.streams import stream

R, D = 90, 7
FEATURES = torch.randn(R, D, generator=stream(1).torch())
SETTINGS = {"hidden": [13, 5], "learning_rate": 0.02, "weight_std": 0.3, "epochs": 3, "batch": 7, "evaluate_every": 4}
POSTERIORS = {
    "ensemble": Ensemble(members=3, **SETTINGS),
    "one member": Ensemble(members=1, **SETTINGS),
    "impatient": Ensemble(members=3, **(SETTINGS | {"patience": 1, "evaluate_every": 1, "epochs": 8})),
    "relu": Ensemble(members=2, activation="relu", weight_decay=0.1, **SETTINGS),
    "linear": Ensemble(members=2, **(SETTINGS | {"hidden": []})),
    "linked": Ensemble(members=3, link="distance_normalised", **SETTINGS),
    "temperature": Ensemble(members=2, link="distance_temperature", **SETTINGS),
    "automatic": Ensemble(members=2, **(SETTINGS | {"learning_rate": "auto", "evaluate_every": "auto"})),
    "mc_dropout": McDropout(members=2, samples=4, **SETTINGS),
    "epinet": Epinet(samples=4, **SETTINGS),
    "laplace": Laplace(samples=4, **SETTINGS),
}


def pairs(n: int, seed: int) -> LabelledPairs:
    generator = stream(seed, "pairs").torch()
    rows = torch.stack([torch.randperm(R, generator=generator)[:2] for _ in range(n)])
    return LabelledPairs(FEATURES, rows, torch.randint(0, 3, (n,), generator=generator) / 2)


VALIDATION = pairs(31, 99)


def rewards(posterior, trains, first=0) -> list[torch.Tensor]:
    streams = [stream(first + number) for number in range(len(trains))]
    together = can_fit_together(posterior, trains[0])
    return [model.rewards_KR(FEATURES) for model in fit_cells(posterior, trains, VALIDATION, streams, together)]


@pytest.mark.parametrize("counts", [[25] * 8, [25, 25, 18, 25, 1, 18, 33, 25]], ids=["equal", "differing"])
@pytest.mark.parametrize("name", POSTERIORS)
def test_a_cells_bits_do_not_depend_on_its_fleet(name, counts):
    posterior = POSTERIORS[name]
    trains = [pairs(n, seed) for seed, n in enumerate(counts)]
    alone = [rewards(posterior, [train], seed)[0] for seed, train in enumerate(trains)]
    for size in (3, 8):
        for actual, expected in zip(rewards(posterior, trains[:size]), alone, strict=False):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", ["ensemble", "impatient", "relu", "linked"])
def test_filled_up_minibatches_train_as_their_cells_do_alone(name):
    # Adam scales gradients that are only rounding, as those of biases that cancel in a pair, to whole steps.
    posterior = POSTERIORS[name].model_copy(update={"epsilon": 1e-4})
    link = posterior.pair_link(VALIDATION)
    trains = [link.for_training(pairs(n, seed)) for seed, n in enumerate([25, 18, 1, 33, 24])]
    streams = [stream(seed) for seed in range(len(trains))]
    orders = [posterior.orders_KEn(train, each) for train, each in zip(trains, streams, strict=True)]
    models = []
    for padded in (False, True):
        models.append(posterior.initial_fleet(trains, streams))
        results = train_fleet(models[-1], trains, VALIDATION, orders, posterior, padded=padded)
        assert not any(isinstance(result, DivergedError) for result in results)
    apart, together = (model.rewards_KR(FEATURES) for model in models)
    # The last bias has no gradient but rounding, so only differences of rewards agree.
    torch.testing.assert_close(together - together[:, :1], apart - apart[:, :1], rtol=1e-4, atol=1e-5)
    assert not torch.equal(apart, posterior.initial_fleet(trains, streams).rewards_KR(FEATURES))


def test_a_cell_that_diverges_leaves_the_others_alone():
    posterior, trains = POSTERIORS["ensemble"], [pairs(25, seed) for seed in range(3)]
    if not can_fit_together(posterior, trains[0]):
        pytest.skip("on this processor a fleet changes the last bits of its cells")
    expected = rewards(posterior, trains)
    streams = [stream(seed) for seed in range(3)]
    heads = posterior.initial_fleet(trains, streams)
    heads.weights[0][4] = torch.nan  # a member of the second cell
    orders = [posterior.orders_KEn(train, each) for train, each in zip(trains, streams, strict=True)]
    results = train_fleet(heads, trains, VALIDATION, orders, posterior)
    assert [type(result) for result in results] == [dict, DivergedError, dict]
    actual = heads.rewards_KR(FEATURES)
    assert torch.equal(actual[:3], expected[0])
    assert torch.equal(actual[6:], expected[2])


def test_joined_heads_hold_each_part():
    parts = [POSTERIORS["ensemble"].initial_heads(D, stream(seed)) for seed in range(3)]
    joined = Heads.joined(parts)
    for number, part in enumerate(parts):
        actual = joined.share(3 * number, 3 * number + 3)
        for a, b in zip(actual.parameters, part.parameters, strict=True):
            assert torch.equal(a, b)


def test_training_bytes_cover_what_training_allocates():
    posterior = Ensemble(members=5, hidden=[64, 32])
    heads = posterior.initial_fleet([LabelledPairs(torch.zeros(2, 48), torch.zeros(0, 2), torch.zeros(0))], [stream(0)])
    weights = sum(parameter.numel() for parameter in copy.copy(heads).parameters)
    assert posterior.training_bytes(48) > 5 * 4 * weights
    assert Laplace(hidden=[64, 32]).training_bytes(48) == Ensemble(members=1, hidden=[64, 32]).training_bytes(48)


def test_weights_drawn_draw_in_parallel_are_those_drawn_one_after_another():
    posterior, streams = Ensemble(members=2, hidden=(8,)), [stream(seed) for seed in range(7)]
    together = draw_in_parallel(lambda s: posterior.initial_heads(5, s), streams)
    for heads, alone in zip(together, (posterior.initial_heads(5, s) for s in streams), strict=True):
        for actual, expected in zip(heads.parameters, alone.parameters, strict=True):
            assert torch.equal(actual, expected)
