"""Target pairs: which are drawn, and what a data set must have."""

import numpy as np
import pytest
import torch

from harness.datasets.dataset import Contents
from harness.policies.epig import Epig
from harness.policies.parbals import ParBaLS
from harness.streams import stream
from support.faults import one_line
from support.worlds import pool_of, view_of


@pytest.mark.parametrize("policy", [Epig, ParBaLS])
def test_a_data_set_without_the_target_is_refused(policy):
    contents = Contents(("pool", "eval"))
    policy().check_data(contents)
    policy(target="pool").check_data(contents)
    one_line(
        lambda: policy(target="ood").check_data(contents), "no split 'ood' to target; set target to one of pool, eval"
    )


@pytest.mark.parametrize("target", ["eval", "pool"])
def test_targets_are_pairs_of_the_split_without_repetition_and_anew_for_each_stream(target):
    view = view_of(pool_of())
    policy = Epig(target=target, targets=5)
    first, again, other = (policy.target_responses(view, stream(seed)) for seed in (0, 0, 1))
    known = {tuple(row) for row in view.splits[target].responses_N2.tolist()}
    assert len({tuple(row) for row in first.tolist()} & known) == 5
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    everything = Epig(target=target, targets=10**6).target_responses(view, stream(0))
    np.testing.assert_array_equal(np.sort(everything, axis=0), np.sort(view.splits[target].responses_N2, axis=0))
