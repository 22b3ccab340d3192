"""Latent reward uncertainty: the position of a pair in the tails of the training rewards (Melo et al. 2024, LRU)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from balbench.harness.pool.feature_table import FeatureTable
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.posteriors.single_head import OnTrainedHead, only_used, preferred_weights
from balbench.harness.streams import Stream

SMALLEST_STD = 1e-12  # keeps equal rewards at tail probability 1/2 and all others at 0


class RewardGaussian(NamedTuple):
    """A 1-D Gaussian over rewards."""

    mean: torch.Tensor
    std: torch.Tensor

    @classmethod
    def fitted(cls, reward_n: torch.Tensor, weight_n: torch.Tensor | None = None) -> RewardGaussian:
        """Return mean and unbiased standard deviation of rewards; optional weights are shares of votes."""
        reward_n = reward_n.double()
        weight_n = torch.ones_like(reward_n) if weight_n is None else weight_n
        count = weight_n.sum()
        mean = (weight_n * reward_n).sum() / count
        square = (weight_n * (reward_n - mean) ** 2).sum() / (count - 1).clamp_min(SMALLEST_STD)
        return cls(mean, square.sqrt().clamp_min(SMALLEST_STD))

    def tail_probability(self, reward: torch.Tensor) -> torch.Tensor:
        """Return min(P(X < r), P(X > r)), elementwise, in [0, 1/2]."""
        return torch.special.ndtr(-((reward.double() - self.mean) / self.std).abs())


def tail_score(
    preferred: RewardGaussian, other: RewardGaussian, preferred_N: torch.Tensor, other_N: torch.Tensor
) -> torch.Tensor:
    """Return minus the sum of both tail probabilities of each pair, in [-1, 0]; 0 is far from training rewards."""
    return -(preferred.tail_probability(preferred_N) + other.tail_probability(other_N))


class LatentRewardModel:
    """A head with Gaussians over the rewards of its preferred and other training responses (see `OwnEpistemic`)."""

    epistemic_range = (-1.0, 0.0)

    def __init__(self, heads: Heads, preferred: RewardGaussian, other: RewardGaussian) -> None:
        self._heads, self._preferred, self._other = heads, preferred, other
        self.diagnostics = heads.diagnostics

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the head's rewards, float32 (1, R)."""
        return self._heads.rewards_KR(features_RD)

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the last hidden layer, float32 (R, H)."""
        return self._heads.embedding_RH(features_RD)

    def epistemic_N(
        self, features_RD: FeatureTable, responses_N2: torch.Tensor, rewards_KR: torch.Tensor
    ) -> torch.Tensor:
        """Return `tail_score` of each pair; the response with the higher reward counts as preferred."""
        reward_N2 = rewards_KR[0][responses_N2].double()
        return tail_score(self._preferred, self._other, reward_N2.amax(dim=1), reward_N2.amin(dim=1))


class LatentReward(OnTrainedHead):
    """One head; a pair is uncertain if its two rewards are in the tails of the training rewards.

    Gaussians are fitted to the rewards of the preferred and of the other training responses. An unlabelled pair has no
    preferred response, so the head's own prediction replaces it.
    """

    def fitted(
        self, heads: Heads, train: LabelledPairs, validation: LabelledPairs, stream: Stream
    ) -> LatentRewardModel:
        """Fit the two Gaussians."""
        used = only_used(train)
        responses, preferred, other = preferred_weights(used)
        reward_n = heads.rewards_KR(used.features_RD)[0][responses]
        return LatentRewardModel(
            heads, RewardGaussian.fitted(reward_n, preferred), RewardGaussian.fitted(reward_n, other)
        )
