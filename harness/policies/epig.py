"""EPIG: expected predictive information gain about the labels of target pairs (Bickford Smith et al. 2023).

The score is the mutual information of the labels of a pair and of a target pair, averaged over the targets (2304.08151
eq. 5). The joint probabilities are means over posterior samples of products of probabilities, all in one matrix
product.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from balbench.harness.policies.policy import PoolView, Selection, take_highest
from balbench.harness.policies.targets import TargetPolicy, information
from balbench.harness.posteriors.posterior import pair_probability
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import LN2

BLOCK = 2**17  # entries of an intermediate array, so that it fits in the processor's cache
ROUNDING = 1e-30  # scores up to this are squares of rounding errors and count as 0


class Epig(TargetPolicy):
    """Top B by the expected information of a label about the labels of target pairs."""

    family: ClassVar[str] = "epig"
    source: ClassVar[str] = "Bickford Smith et al. 2023 (2304.08151) eq. 5"
    cost: ClassVar[str] = "N T K"
    score_range: ClassVar[tuple[float, float]] = (0.0, LN2)

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the pairs with the highest scores."""
        target_KT = self._target_probabilities(view, stream.child("targets"))
        pool_KU = view.probability_Kn(view.unlabelled_U)
        step = max(1, BLOCK // target_KT.shape[1])
        score_U = torch.cat([information(block_KM, target_KT) for block_KM in pool_KU.split(step, dim=1)])
        return take_highest(view, score_U.where(score_U > ROUNDING, 0).cpu().numpy(), batch_size, self.score_range)

    def _target_probabilities(self, view: PoolView, stream: Stream) -> torch.Tensor:
        """Return P(first preferred) of the target pairs under each posterior sample, float64 (K, T)."""
        targets = self.target_pairs(view, stream)
        if self.target == "pool":
            return pair_probability(view.model, targets, view.rewards_KR)
        targets, _ = targets.on_used_responses()
        return pair_probability(view.model, targets, view.model.rewards_KR(targets.features_RD))
