"""Precisions against their definition, and what is trained at them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.matmul import MATMULS, rounded
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.posteriors.trainable import Minibatch
from balbench.harness.streams import stream

BITS = {"tf32": 11, "bf16": 8}  # significant ones


def by_definition(number, bits):
    """The nearest number with so many significant bits; a tie gives both."""
    if number == 0:
        return {0.0}
    fraction, exponent = math.frexp(number)
    scaled = fraction * 2**bits
    near = {math.floor(scaled), math.ceil(scaled)}
    closest = min(abs(scaled - n) for n in near)
    return {math.ldexp(n, exponent - bits) for n in near if abs(scaled - n) == closest}


@pytest.mark.parametrize("precision", BITS)
@given(number=st.floats(min_value=2.0**-100, max_value=2.0**100, width=32), negative=st.booleans())
def test_rounding_is_to_the_nearest(precision, number, negative):
    number = -number if negative else number
    assert rounded(torch.tensor(number), precision).item() in by_definition(number, BITS[precision])


@pytest.mark.parametrize("precision", BITS)
def test_rounding_keeps_what_is_no_number(precision):
    actual = rounded(torch.tensor([math.inf, -math.inf, math.nan, 0.0]), precision)
    assert actual.tolist()[:2] == [math.inf, -math.inf]
    assert actual[2].isnan()
    assert actual[3] == 0


def test_float32_is_left_alone():
    number = torch.tensor([1 / 3])
    assert rounded(number, "float32") is number


@pytest.mark.parametrize("precision", ["float32", *BITS])
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("o", [1, 4])
def test_products_are_those_of_rounded_operands(precision, K, o):
    generator = stream(0).torch()
    bias, left, right = (torch.randn(shape, generator=generator) for shape in ((K, 1, o), (K, 5, 6), (K, 6, o)))
    exact = torch.einsum("kbi,kio->kbo", rounded(left, precision).double(), rounded(right, precision).double())
    products = MATMULS[precision]
    torch.testing.assert_close(products.bmm(left, right).double(), exact, rtol=0, atol=1e-5)
    torch.testing.assert_close(products.baddbmm(bias, left, right, 0.5).double(), 0.5 * exact + bias, rtol=0, atol=1e-5)
    for k in range(K):
        torch.testing.assert_close(
            products.addmm(bias[k], left[k], right[k]).double(), exact[k] + bias[k].double(), rtol=0, atol=1e-5
        )
    out = torch.empty(K, o, 5).transpose(1, 2)
    assert products.bmm(left, right, out=out) is out
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5)


def gradients(precision):
    heads = Heads.draw([stream(k).torch() for k in range(3)], [16, 32, 8, 1], 0.3, "tanh", precision)
    generator = stream(9).torch()
    inputs, target = torch.randn(3, 20, 16, generator=generator), torch.rand(3, 10, generator=generator)
    actual = [torch.empty_like(parameter) for parameter in heads.parameters]
    heads.step(Minibatch(inputs, torch.zeros(3, 20, dtype=torch.int64), target), actual)
    return torch.cat([gradient.flatten() for gradient in actual])


@pytest.mark.parametrize(("precision", "least", "most"), [("tf32", 1e-6, 2e-3), ("bf16", 1e-4, 2e-2)])
def test_gradients_depart_by_what_is_rounded(precision, least, most):
    exact = gradients("float32")
    error = (gradients(precision) - exact).norm() / exact.norm()
    assert least < error < most


@pytest.mark.parametrize("precision", BITS)
def test_a_posterior_is_trained_and_scored_at_its_precision(precision):
    features = torch.randn(60, 16, generator=stream(0).torch())
    responses = torch.arange(60).view(-1, 2)
    pairs = LabelledPairs(features, responses, (features[responses[:, 0], 0] > features[responses[:, 1], 0]).float())
    settings = {"members": 2, "hidden": (8,), "batch": 10, "learning_rate": 0.01, "weight_std": 0.3}
    plain, coarse = (Ensemble(**settings, precision=p).fit(pairs, pairs, stream(1)) for p in ("float32", precision))
    assert not torch.equal(plain.rewards_KR(features), coarse.rewards_KR(features))
    torch.testing.assert_close(plain.rewards_KR(features), coarse.rewards_KR(features), rtol=0, atol=0.05)
    coarse._matmul = MATMULS["float32"]
    assert not torch.equal(
        coarse.rewards_KR(features),
        Ensemble(**settings, precision=precision).fit(pairs, pairs, stream(1)).rewards_KR(features),
    )


@pytest.mark.parametrize("precision", MATMULS)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_is_written_into_an_output_of_either_layout(precision, transposed):
    generator = stream(3).torch()
    left_Kbi, right_Kio = (torch.randn(shape, generator=generator) for shape in ((4, 6, 5), (4, 5, 3)))
    out = torch.full((4, 3, 6), torch.nan).mT if transposed else torch.full((4, 6, 3), torch.nan)
    product_Kbo = MATMULS[precision].bmm(left_Kbi, right_Kio, out=out)
    assert product_Kbo.data_ptr() == out.data_ptr()
    torch.testing.assert_close(out, rounded(left_Kbi, precision) @ rounded(right_Kio, precision))
