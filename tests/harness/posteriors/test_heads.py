"""The activations of heads: accurate, in place, and independent of an element's position."""

import pytest
import torch

from balbench.harness.posteriors.heads import ACTIVATIONS, tanh_
from balbench.harness.streams import stream

EPSILON = torch.finfo(torch.float32).eps
INPUTS = torch.cat([torch.linspace(-20, 20, 40_001), torch.logspace(-30, 1, 10_000)])


def test_tanh_is_as_accurate_as_float32_for_large_and_for_tiny_inputs():
    expected = torch.tanh(INPUTS.double())
    error = (tanh_(INPUTS.clone()).double() - expected).abs()
    assert (error <= 2 * EPSILON * expected.abs()).all()


def test_tanh_keeps_the_limits_and_not_a_number():
    inputs = torch.tensor([torch.inf, -torch.inf, 0.0, torch.nan])
    assert torch.equal(tanh_(inputs)[:3], torch.tensor([1.0, -1.0, 0.0]))
    assert inputs[3].isnan()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_bits_of_an_element_do_not_depend_on_its_position_or_its_neighbours(name):
    activate = ACTIVATIONS[name][0]
    inputs = torch.randn(300, generator=stream(0, "inputs").torch())
    expected = activate(inputs.clone())
    for start in range(70):
        for length in (1, 7, 16, 33, 128):
            part = slice(start, start + length)
            assert torch.equal(activate(inputs[part].clone()), expected[part])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_derivatives_change_their_first_argument(name):
    activate, through = ACTIVATIONS[name]
    leaf = torch.randn(3, 4, 5, generator=stream(0, "inputs").torch()).requires_grad_()
    plain = {"tanh": torch.tanh, "relu": torch.relu}[name](leaf)
    plain.sum().backward()
    out, gradient = leaf.detach().clone(), torch.ones(3, 4, 5)
    assert activate(out) is out
    torch.testing.assert_close(out, plain.detach())
    assert through(gradient, out) is gradient
    torch.testing.assert_close(gradient, leaf.grad)
