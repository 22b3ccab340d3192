"""The variance from the choice of held-out pairs: its definition. Error rates are in tests/benchmarks/trust."""

from __future__ import annotations

import numpy as np
import pytest

from balbench.harness.metrics import clustered_error, held_out_metrics
from balbench.reports.curves import Curve
from balbench.reports.inversion import savings_path
from balbench.reports.pair_scores import PairScores, pair_scores, pair_variance


@pytest.mark.parametrize("metric", ["log_likelihood", "accuracy", "brier"])
def test_the_mean_of_the_scores_is_the_metric(metric):
    generator = np.random.default_rng(0)
    logit_V, share_V = generator.normal(0, 2, 300), generator.integers(3, size=300) / 2
    expected = held_out_metrics(1 / (1 + np.exp(-logit_V)), share_V, np.arange(300))[metric]
    assert pair_scores(logit_V, share_V, metric).mean() == pytest.approx(expected)


def test_with_one_seed_and_no_noise_of_seeds_the_variance_is_that_of_clusters():
    """Seeds agree on every pair, so all variance is between clusters of pairs."""
    generator = np.random.default_rng(1)
    prompt_N, share_N = generator.integers(40, size=200), generator.integers(2, size=200).astype(float)
    own_N, other_N = generator.normal(size=200), generator.normal(size=200)
    labels = np.array([10.0, 20.0])
    own, other = (
        PairScores([np.stack([each, each])] * 3, share_N, prompt_N, "log_likelihood") for each in (own_N, other_N)
    )
    curves = [
        Curve(labels, np.full((3, 2), pair_scores(each, share_N, "log_likelihood").mean())) for each in (own_N, other_N)
    ]
    variance_H, clusters = pair_variance(savings_path(labels, labels, 20), *curves, own, other)
    difference_N = pair_scores(own_N, share_N, "log_likelihood") - pair_scores(other_N, share_N, "log_likelihood")
    assert clusters == len(np.unique(prompt_N))
    np.testing.assert_allclose(np.sqrt(variance_H), clustered_error(difference_N, prompt_N))


def test_pairs_without_votes_are_left_out():
    share_N = np.array([1.0, np.nan, 0.0, 1.0])
    scores = PairScores([np.zeros((1, 4))], share_N, np.array([7, 3, 9, 9]), "accuracy")
    assert scores.clusters == 2
    assert scores.cluster_parts(0).shape == (1, 2)
    assert scores.cluster_parts(0).sum() == pytest.approx(0)
