"""Feature density: Gaussian discriminant analysis on the last hidden layer (DDU, Mukhoti et al. 2021), for pairs.

Epistemic uncertainty of a response is -log q(z), q(z) = sum_c q(z | c) q(c), with one Gaussian for each of the classes
preferred and not preferred (2102.11582, algorithm 1). The uncertainty of a pair is the sum over its two responses.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from balbench.harness.pool.feature_table import FeatureTable, table_blocks
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.posteriors.single_head import OnTrainedHead, only_used, preferred_weights
from balbench.harness.streams import Stream

ROWS = 16384
LEAST_VARIANCE = 1e-12  # variance in each direction; keeps densities finite if all features are equal


class ClassGaussian:
    """A Gaussian fitted to weighted points; shrinkage of the covariance allows fewer points than dimensions."""

    def __init__(self, points_nH: torch.Tensor, weight_n: torch.Tensor) -> None:
        points_nH, count = points_nH.double(), weight_n.sum()
        H = points_nH.shape[1]
        self.mean_H = (weight_n[:, None] * points_nH).sum(dim=0) / count
        centred_nH = (points_nH - self.mean_H) * weight_n.sqrt()[:, None]
        covariance_HH = centred_nH.mT @ centred_nH / count
        share, variance = oas_shrinkage(covariance_HH, float(count)), float(covariance_HH.diagonal().mean())
        self.covariance_HH = (1 - share) * covariance_HH
        self.covariance_HH.diagonal().add_(share * variance + 1e-6 * variance + LEAST_VARIANCE)
        self._cholesky_HH = torch.linalg.cholesky(self.covariance_HH)
        self._constant = -self._cholesky_HH.diagonal().log().sum() - H / 2 * math.log(2 * math.pi)

    def log_density(self, points_nH: torch.Tensor) -> torch.Tensor:
        """Return log q(z | c), float64 (n,)."""
        centred_Hn = (points_nH.double() - self.mean_H).mT
        white_Hn = torch.linalg.solve_triangular(self._cholesky_HH, centred_Hn, upper=False)
        return self._constant - (white_Hn**2).sum(dim=0) / 2


def oas_shrinkage(covariance_HH: torch.Tensor, count: float) -> float:
    """Return the share of the scaled identity in a covariance of `count` points (oracle approximating shrinkage).

    Chen et al. 2010 (0907.4698) eq. 23 without its terms in 2 / H, as in scikit-learn's `oas`.
    """
    H = len(covariance_HH)
    square, trace_square = float((covariance_HH**2).sum()), float(covariance_HH.trace()) ** 2
    spread = (count + 1) * (square - trace_square / H)
    return 1.0 if spread <= 0 else min(1.0, (square + trace_square) / spread)


class FeatureDensityModel:
    """A head with densities of the last hidden layer of its training responses (see `OwnEpistemic`)."""

    epistemic_range = (-math.inf, math.inf)

    def __init__(self, heads: Heads, preferred: ClassGaussian, other: ClassGaussian) -> None:
        self._heads, self._classes, self.diagnostics = heads, (preferred, other), heads.diagnostics
        self.centre, self.spread = 0.0, 1.0

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the head's rewards, float32 (1, R)."""
        return self._heads.rewards_KR(features_RD)

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the last hidden layer, float32 (R, H)."""
        return self._heads.embedding_RH(features_RD)

    def log_density_R(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return log q(z) of responses, float64 (R,), computed in blocks; q(c) is 1/2 for both classes."""
        parts = []
        for block_bD in table_blocks(features_RD, ROWS):
            embedding_bH = self._heads.embedding_RH(block_bD)
            both_2b = torch.stack([density.log_density(embedding_bH) for density in self._classes])
            parts.append(torch.logsumexp(both_2b, dim=0) - math.log(2))
        return torch.cat(parts)

    def epistemic_N(
        self, features_RD: FeatureTable, responses_N2: torch.Tensor, rewards_KR: torch.Tensor
    ) -> torch.Tensor:
        """Return minus the summed log densities of each pair's responses, float64 (N,)."""
        score_N = -self.log_density_R(features_RD)[responses_N2].sum(dim=1)
        return (score_N - self.centre) / self.spread


class FeatureDensity(OnTrainedHead):
    """One head; a pair is uncertain if its last hidden layer has low density among the training responses."""

    scale: Literal["raw", "standardised"] = "raw"
    """`raw` scores are in nats and increase with the width of the last hidden layer. `standardised` scores have mean 0
    and variance 1 over the training pairs, so that a weight against another score (beta of BAL-PM) means the same in
    all rounds and for all widths."""

    def fitted(
        self, heads: Heads, train: LabelledPairs, validation: LabelledPairs, stream: Stream
    ) -> FeatureDensityModel:
        """Fit the two Gaussians."""
        used = only_used(train)
        responses, preferred, other = preferred_weights(used)
        points_nH = heads.embedding_RH(used.features_RD)[responses]
        model = FeatureDensityModel(heads, ClassGaussian(points_nH, preferred), ClassGaussian(points_nH, other))
        if self.scale == "standardised":
            score_n = model.epistemic_N(used.features_RD, used.responses_n2, heads.rewards_KR(used.features_RD))
            model.centre, model.spread = float(score_n.mean()), float(score_n.std(correction=0)) or 1.0
        return model
