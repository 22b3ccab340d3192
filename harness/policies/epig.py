"""EPIG: expected predictive information gain about the answers to target pairs (Bickford Smith et al. 2023).

The mutual information of the answers to a pair and to a target pair, averaged over the targets (2304.08151 eq. 5). The
joint probabilities are means over posterior samples of products of probabilities, one matrix product for all.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from harness.policies.parbals import information
from harness.policies.policy import Policy, PoolView, Selection, best
from harness.streams import Stream
from harness.uncertainty import LN2, pair_probabilities

BLOCK = 2**17  # numbers of an intermediate array: it should stay in the processor's cache
ROUNDING = 1e-14  # scores this small are none, and tie


class Epig(Policy):
    """Top B by what an answer is expected to tell about the answers to target pairs.

    Attributes:
        target: the split whose pairs the labels should tell about (their features are used, never their answers).
        targets: how many of its pairs, drawn anew each round; all of them where it has no more.
    """

    family: ClassVar[str] = "epig"
    source: ClassVar[str] = "Bickford Smith et al. 2023 (2304.08151) eq. 5"
    cost: ClassVar[str] = "N T K"

    target: Literal["eval", "test", "ood", "pool"] = "eval"
    targets: int = Field(1000, ge=1)

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Take the pairs with the highest scores.

        Raises:
            ValueError: the data has no split of the name `target`.
        """
        if self.target not in view.splits:
            raise ValueError(f"epig: no split {self.target!r} to target; the data has {', '.join(view.splits)}")
        target_KT = self._target_probabilities(view, stream.child("targets"))
        pool_KU = view.probability_Kn(view.unlabelled_U)
        step = max(1, BLOCK // target_KT.shape[1])
        score_U = torch.cat([information(block_KM, target_KT) for block_KM in pool_KU.split(step, dim=1)])
        return best(view, score_U.where(score_U > ROUNDING, 0).cpu().numpy(), batch_size, (0.0, LN2))

    def _target_probabilities(self, view: PoolView, stream: Stream) -> torch.Tensor:
        """P(first preferred) of the target pairs under each posterior sample, float64 (K, T)."""
        if self.target == "pool":  # whatever the storage order
            return view.probability_Kn(np.argsort(view.index.uniform_N(stream), kind="stable")[: self.targets])
        split = view.splits[self.target]
        chosen = stream.numpy().permutation(len(split.responses_N2))[: self.targets]
        responses_T2 = split.responses_N2[torch.from_numpy(chosen).to(split.responses_N2.device)]
        used_R, place_T2 = torch.unique(responses_T2, return_inverse=True)
        return pair_probabilities(view.model.rewards_KR(split.features_RD[used_R]), place_T2)
