"""The counts of operations and bytes with which the speed benchmarks compare a training step."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import rates
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.trainable import Minibatch
from balbench.harness.streams import stream


@pytest.mark.parametrize("sizes", [(16, 32, 8, 1), (40, 30, 1), (12, 1)])
def test_operations_are_those_of_the_products(sizes):
    K, b = 3, 7
    heads = Heads.draw([stream(k).torch() for k in range(K)], sizes, 0.1, "tanh")
    batch = Minibatch(torch.zeros(K, 2 * b, sizes[0]), torch.zeros(K, 2 * b, dtype=torch.int64), torch.zeros(K, b))
    with FlopCounterMode(display=False) as counter:
        heads.step(batch, [torch.empty_like(parameter) for parameter in heads.parameters])
    assert rates.training_step(K, sizes, b, scales=False).operations == counter.get_total_flops()


def test_traffic_is_that_of_passes_over_the_weights():
    """The layers are large, so that all traffic besides the weights is negligible."""
    cost = rates.training_step(1, (10_000, 10_000, 1), 1, scales=False)
    assert cost.bytes / (4 * 10_000**2) == pytest.approx(10, rel=0.01)
    assert rates.training_step(1, (10_000, 10_000, 1), 1, scales=True).bytes / (4 * 10_000**2) == pytest.approx(
        12, rel=0.01
    )


def test_bounds_follow_from_the_rates_of_the_device():
    assert rates.Rates(100.0, 10.0).bounds(rates.Cost(50.0, 20.0)) == (0.5, 2.0)
