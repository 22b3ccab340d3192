import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from balbench.harness.streams import Stream, stream

names = st.lists(st.text(max_size=8), max_size=4)


@given(st.integers(0, 2**40), names)
def test_a_stream_is_a_function_of_its_seed_and_names(seed, path):
    a, b = stream(seed, *path), Stream(seed, tuple(path))
    assert a.numpy().random() == b.numpy().random()
    assert torch.equal(torch.rand(2, generator=a.torch()), torch.rand(2, generator=b.torch()))
    assert a.uniform("x") == b.uniform("x")


@given(names, names)
def test_other_names_give_another_stream(first, second):
    if first != second:
        assert stream(0, *first).numpy().random() != stream(0, *second).numpy().random()


def test_names_are_not_merely_joined():
    assert stream(0, "ab", "c").uniform() != stream(0, "a", "bc").uniform()
    assert stream(1, "x").uniform() != stream(0, "x").uniform()
    assert stream(0, 1).uniform() == stream(0, "1").uniform()


def test_uniforms_are_uniform():
    draws = np.array([stream(0, "draw").uniform(number) for number in range(20_000)])
    histogram, _ = np.histogram(draws, bins=10, range=(0, 1))
    assert histogram.sum() == 20_000
    assert np.abs(histogram - 2_000).max() < 200


def test_drawing_moves_nothing():
    source = stream(5, "policy", 3)
    first = source.numpy().random(4)
    source.uniform("a")
    np.testing.assert_array_equal(source.numpy().random(4), first)
