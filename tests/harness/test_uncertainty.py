import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from balbench.harness.uncertainty import pair_probabilities, uncertainty


def slow_entropy(p: float) -> float:
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


@given(arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=st.floats(0, 1)))
def test_by_definition(p_KN):
    actual = uncertainty(torch.from_numpy(p_KN))
    for n, members in enumerate(p_KN.T):
        predictive, aleatoric = slow_entropy(members.mean()), np.mean([slow_entropy(p) for p in members])
        assert actual.predictive_N[n] == pytest.approx(predictive, abs=1e-9)
        assert actual.aleatoric_N[n] == pytest.approx(aleatoric, abs=1e-9)
        assert actual.epistemic_N[n] == pytest.approx(predictive - aleatoric, abs=1e-9)
        assert actual.variance_N[n] == pytest.approx(members.var(), abs=1e-9)
        assert 0 <= actual.epistemic_N[n] <= math.log(2)


def test_members_that_agree_have_no_epistemic_uncertainty():
    assert uncertainty(torch.full((5, 3), 0.3)).epistemic_N.abs().max() < 1e-12


def test_members_that_contradict_each_other_have_ln_2():
    assert uncertainty(torch.tensor([[0.0], [1.0]])).epistemic_N.item() == pytest.approx(math.log(2))


def test_pair_probabilities():
    rewards = torch.tensor([[0.0, 1.0, -2.0]])
    actual = pair_probabilities(rewards, torch.tensor([[1, 0], [2, 1], [0, 0]]))
    assert actual[0].tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(3)), 0.5])
