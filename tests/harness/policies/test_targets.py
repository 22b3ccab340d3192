"""Target pairs: which are drawn, and what a data set must have."""

from decimal import Decimal, localcontext
from itertools import product

import numpy as np
import pytest
import torch

from balbench.harness.policies.epig import Epig
from balbench.harness.policies.parbals import ParBaLS
from balbench.harness.policies.targets import information
from balbench.harness.pool.contents import Contents
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of
from support.faults import one_line


@pytest.mark.parametrize("policy", [Epig, ParBaLS])
def test_a_data_set_without_the_target_is_refused(policy):
    contents = Contents(("pool", "eval"))
    policy().check_data(contents)
    policy(target="pool").check_data(contents)
    one_line(
        lambda: policy(target="ood").check_data(contents),
        "no split 'ood'; set target to one of pool, eval",
    )


@pytest.mark.parametrize("target", ["eval", "pool"])
def test_targets_are_pairs_of_the_split_without_repetition_and_anew_for_each_stream(target):
    view = view_of(pool_of())
    policy = Epig(target=target, targets=5)
    first, again, other = (policy.target_pairs(view, stream(seed)).responses_N2 for seed in (0, 0, 1))
    known = {tuple(row) for row in view.splits[target].responses_N2.tolist()}
    assert len({tuple(row) for row in first.tolist()} & known) == 5
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    everything = Epig(target=target, targets=10**6).target_pairs(view, stream(0)).responses_N2
    np.testing.assert_array_equal(np.sort(everything, axis=0), np.sort(view.splits[target].responses_N2, axis=0))


def exact(p_S, q_S):
    """Mutual information of two answers, in sixty digits."""
    with localcontext(prec=60):
        p_S, q_S = ([Decimal(float(value)) for value in values] for values in (p_S, q_S))
        total = Decimal(0)
        for first, second in product((True, False), repeat=2):
            a_S, b_S = (p_S if first else [1 - p for p in p_S]), (q_S if second else [1 - q for q in q_S])
            joint = sum(a * b for a, b in zip(a_S, b_S, strict=True)) / len(a_S)
            apart = sum(a_S) * sum(b_S) / len(a_S) ** 2
            total += joint * (joint / apart).ln() if joint else 0
        return float(total)


@pytest.mark.parametrize("spread", [10.0, 1.0, 0.1, 1e-3, 1e-5])
def test_information_is_exact_however_little_the_samples_disagree(spread):
    """It goes with the fourth power of what they disagree by: 1e-22 at a spread of 1e-5."""
    logits = np.random.default_rng(0).normal(size=(5, 3)) @ np.random.default_rng(1).normal(size=(3, 10))
    p_SM, q_ST = torch.sigmoid(torch.from_numpy(spread * logits)).split(6, dim=1)
    expected = [np.mean([exact(p_S, q_S) for q_S in q_ST.T]) for p_S in p_SM.T]
    np.testing.assert_allclose(information(p_SM, q_ST), expected, rtol=1e-4, atol=0)


def test_information_where_samples_are_certain():
    certain = torch.tensor([[1.0, 0.0, 1.0, 1 - 2**-53], [1.0, 0.0, 0.0, 1.0]]).double()
    expected = [[exact(p_S, q_S) for q_S in certain.T] for p_S in certain.T]
    actual = torch.stack([information(certain, q_S[:, None]) for q_S in certain.T], dim=1)
    np.testing.assert_allclose(actual, expected, atol=1e-15)
