"""EPIG: expected predictive information gain about the answers to target pairs (Bickford Smith et al. 2023).

The mutual information of the answers to a pair and to a target pair, averaged over the targets (2304.08151 eq. 5). The
joint probabilities are means over posterior samples of products of probabilities, one matrix product for all.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from balbench.harness.policies.policy import PoolView, Selection, take_highest
from balbench.harness.policies.targets import TargetPolicy, information
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import LN2, pair_probabilities

BLOCK = 2**17  # numbers of an intermediate array: it should stay in the processor's cache
ROUNDING = 1e-30  # scores this small are squares of rounding: none, and they tie


class Epig(TargetPolicy):
    """Top B by what an answer is expected to tell about the answers to target pairs.

    Attributes:
        target: the split whose pairs the labels should tell about (their features are used, never their answers).
        targets: how many of its pairs, drawn anew each round; all of them where it has no more.
    """

    family: ClassVar[str] = "epig"
    source: ClassVar[str] = "Bickford Smith et al. 2023 (2304.08151) eq. 5"
    cost: ClassVar[str] = "N T K"

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Take the pairs with the highest scores."""
        target_KT = self._target_probabilities(view, stream.child("targets"))
        pool_KU = view.probability_Kn(view.unlabelled_U)
        step = max(1, BLOCK // target_KT.shape[1])
        score_U = torch.cat([information(block_KM, target_KT) for block_KM in pool_KU.split(step, dim=1)])
        return take_highest(view, score_U.where(score_U > ROUNDING, 0).cpu().numpy(), batch_size, (0.0, LN2))

    def _target_probabilities(self, view: PoolView, stream: Stream) -> torch.Tensor:
        """P(first preferred) of the target pairs under each posterior sample, float64 (K, T)."""
        responses_T2 = self.target_responses(view, stream)
        if self.target == "pool":
            return pair_probabilities(view.rewards_KR, responses_T2)
        used_R, place_T2 = torch.unique(responses_T2, return_inverse=True)
        return pair_probabilities(view.model.rewards_KR(view.splits[self.target].features_RD[used_R]), place_T2)
