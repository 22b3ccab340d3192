"""BALD of pairs against botorch, whose preference model is a Gaussian process with the probit in the place of ours."""

import pytest
import torch

from balbench.harness.uncertainty import uncertainty

SAMPLES = 100_000


def test_bald_of_many_samples_is_that_of_the_gaussian_posterior():
    why = "cross-checks need `pip install .[cross-checks]`"
    preference = pytest.importorskip("botorch.acquisition.preference", reason=why)
    pairwise_gp = pytest.importorskip("botorch.models.pairwise_gp", reason=why)
    torch.manual_seed(0)
    points_RD = torch.rand(10, 2, dtype=torch.float64)
    worth_R = 4 * points_RD.sum(dim=1)
    pairs_N2 = torch.combinations(torch.arange(10))
    known_n2 = pairs_N2[::9]
    better = worth_R[known_n2[:, 0]] > worth_R[known_n2[:, 1]]
    model = pairwise_gp.PairwiseGP(points_RD, torch.where(better[:, None], known_n2, known_n2.flip(1)))
    acquisition = preference.PairwiseBayesianActiveLearningByDisagreement(model, num_samples=SAMPLES)
    with torch.no_grad():
        theirs_N = acquisition(points_RD[pairs_N2])
        posterior = model.posterior(points_RD)
        rewards_KR = torch.distributions.MultivariateNormal(
            posterior.mean[:, 0], posterior.covariance_matrix + 1e-8 * torch.eye(10)
        ).sample((SAMPLES,))
    gap_KN = rewards_KR[:, pairs_N2[:, 0]] - rewards_KR[:, pairs_N2[:, 1]]
    ours_N = uncertainty(torch.special.ndtr(gap_KN)).epistemic_N
    assert theirs_N.max() > 0.1
    assert theirs_N.max() > 2 * theirs_N.min()
    torch.testing.assert_close(ours_N, theirs_N, atol=4e-3, rtol=0)  # five standard errors of either
