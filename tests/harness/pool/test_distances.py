"""Distances of pairs, in blocks and for parts of a split."""

from unittest.mock import patch

import numpy as np
import pytest
import torch

from balbench.harness.pool import blocks
from balbench.harness.pool.distances import PoolDistances, pair_distances
from balbench.harness.pool.index import Responses
from balbench.testing.examples import on_disk

FEATURES = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
PAIRS = torch.randint(0, 40, (90, 2), generator=torch.Generator().manual_seed(1))


def slow_distances(features, pairs):
    return torch.stack([(features[a].double() - features[b].double()).square().sum().sqrt() for a, b in pairs])


@pytest.mark.parametrize("pairs_a_block", [1, 7, 1000])
def test_distances_equal_their_definition_for_any_block(pairs_a_block):
    with patch.object(blocks, "BLOCK_BYTES", 24 * 7 * pairs_a_block):
        actual = pair_distances(FEATURES, PAIRS)
    assert actual.dtype == torch.float64
    assert torch.allclose(actual, slow_distances(FEATURES, PAIRS), rtol=1e-12, atol=0)


def test_equal_responses_have_distance_zero_and_no_pairs_have_no_distances():
    assert pair_distances(FEATURES, torch.tensor([[3, 3]])).tolist() == [0]
    assert len(pair_distances(FEATURES, PAIRS[:0])) == 0


def test_features_on_disk_give_the_same_bits(tmp_path):
    assert torch.equal(pair_distances(on_disk(FEATURES, tmp_path), PAIRS), pair_distances(FEATURES, PAIRS))


def test_parts_of_a_split_have_the_same_bits_as_the_split_and_compute_nothing():
    split, chosen = Responses(FEATURES, PAIRS), torch.tensor([5, 2, 80])
    whole = split.distance_N
    with patch("balbench.harness.pool.index.pair_distances", side_effect=AssertionError("computed again")):
        assert torch.equal(split.take(chosen).distance_N, whole[chosen])
        part, used_R = split.take(chosen).on_used_responses()
        assert torch.equal(part.distance_N, whole[chosen])
    assert torch.equal(part.features_RD[part.responses_N2], FEATURES[PAIRS[chosen]])
    assert torch.equal(part.features_RD, FEATURES[used_R])


def test_a_batch_is_compared_with_the_pool():
    distances = PoolDistances(np.arange(100.0))
    assert distances.facts(np.arange(100)) == {"distance_mean": 1.0, "farthest_share": 0.05}
    assert distances.facts(np.array([99, 0])) == {"distance_mean": 1.0, "farthest_share": 0.5}
    assert distances.facts(np.array([99, 98])) == {"distance_mean": 98.5 / 49.5, "farthest_share": 1.0}


def test_pairs_that_all_have_the_same_features_have_no_relative_distance():
    assert PoolDistances(np.zeros(9)).facts(np.arange(2)) == {"farthest_share": 0.0}
