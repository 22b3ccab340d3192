"""What policies share that ask what an answer tells about the answers to target pairs (EPIG and its batch form)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from harness.datasets.dataset import Contents
from harness.errors import DataError
from harness.policies.policy import Policy, PoolView
from harness.streams import Stream
from harness.uncertainty import entropy


class TargetPolicy(Policy):
    """A policy with target pairs.

    Attributes:
        target: the split whose pairs the labels should tell about (their features are used, never their answers).
        targets: how many of its pairs, drawn anew each round; all of them where it has no more.
    """

    target: Literal["eval", "test", "ood", "pool"] = "eval"
    targets: int = Field(1000, ge=1)

    def check_data(self, contents: Contents) -> None:
        """Check that the data set has the target (errors as in `Policy.check_data`)."""
        if self.target not in contents.splits:
            known = ", ".join(contents.splits)
            raise DataError(f"the data set has no split {self.target!r} to target; set target to one of {known}")

    def target_responses(self, view: PoolView, stream: Stream) -> torch.Tensor:
        """Draw target pairs: rows (T, 2) of their responses in the target split."""
        split = view.splits[self.target]
        if self.target == "pool":  # whatever the storage order
            chosen = np.argsort(view.index.uniform_N(stream), kind="stable")[: self.targets]
        else:
            chosen = stream.numpy().permutation(len(split.responses_N2))[: self.targets]
        return split.responses_N2[torch.from_numpy(chosen).to(split.responses_N2.device)]


def information(p_SM: torch.Tensor, q_ST: torch.Tensor) -> torch.Tensor:
    """Mutual information of the answers to each candidate and a target, mean over targets, in nats (M,).

    The joint probabilities are means over S posterior samples of products p_s q_s (2304.08151, eq. 5 and appendix).
    """
    both_MT = p_SM.mT @ q_ST / len(p_SM)
    p_M, q_T = p_SM.mean(dim=0), q_ST.mean(dim=0)
    first_MT, second_MT = p_M[:, None] - both_MT, q_T - both_MT
    joint_M = torch.zeros_like(p_M)
    for cell_MT in (both_MT, first_MT, second_MT, 1 - q_T - first_MT):
        joint_M += torch.special.entr(cell_MT.clamp_min(0)).mean(dim=1)
    return (entropy(p_M) + entropy(q_T).mean() - joint_M).clamp_min(0)  # rounding can leave -1e-17
