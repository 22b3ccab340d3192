"""Shared code of EPIG-style policies, which measure the information of a label about the labels of target pairs."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from balbench.harness.errors import DataError
from balbench.harness.policies.policy import Policy, PoolView
from balbench.harness.pool.contents import Contents
from balbench.harness.pool.index import Responses
from balbench.harness.streams import Stream

LEAST = 1e-150  # lower bound of a probability, so that the product of two can be a divisor
IMPOSSIBLE = torch.finfo(torch.float64).eps - 1  # relative excess of an impossible event, with a finite log1p


class TargetPolicy(Policy):
    """A policy with target pairs."""

    target: Literal["eval", "test", "ood", "pool"] = "eval"
    """The split of the target pairs. Their features are used, never their labels."""
    targets: int = Field(1000, ge=1)
    """Number of target pairs, drawn anew each round; all pairs of the split if it has fewer."""

    def check_data(self, contents: Contents) -> None:
        """Check that the data set has the target (errors as in `Policy.check_data`)."""
        if self.target not in contents.splits:
            known = ", ".join(contents.splits)
            raise DataError(f"the data set has no split {self.target!r}; set target to one of {known}")

    def target_pairs(self, view: PoolView, stream: Stream) -> Responses:
        """Draw T target pairs of the target split."""
        split = view.splits[self.target]
        if self.target == "pool":  # noise of the pool's pairs does not depend on the storage order
            chosen = np.argsort(view.index.uniform_N(stream), kind="stable")[: self.targets]
        else:
            chosen = stream.numpy().permutation(len(split.responses_N2))[: self.targets]
        return split.take(torch.from_numpy(chosen).to(split.responses_N2.device))


def information(p_SM: torch.Tensor, q_ST: torch.Tensor) -> torch.Tensor:
    """Return the mutual information of the labels of each candidate and a target, mean over targets, in nats (M,).

    The joint probabilities are means over S posterior samples of products p_s q_s (2304.08151, eq. 5 and appendix).
    Each of the four is computed as a product of marginals plus or minus the covariance c of p_s and q_s. If the samples
    nearly agree, the information is proportional to c^2, and a difference of entropies would be rounding error.
    """
    p_M, q_T = p_SM.mean(dim=0), q_ST.mean(dim=0)
    more_MT = (p_SM - p_M).mT @ ((q_ST - q_T) * (_uncertain(q_T) / len(p_SM)))
    more_MT *= _uncertain(p_M)[:, None]
    less_MT = -more_MT
    total_M = torch.zeros_like(p_M)
    for first_M, second_T, covariance_MT in (
        (p_M, q_T, more_MT),
        (1 - p_M, 1 - q_T, more_MT),
        (p_M, 1 - q_T, less_MT),
        (1 - p_M, q_T, less_MT),
    ):
        apart_MT = first_M.clamp_min(LEAST)[:, None] * second_T.clamp_min(LEAST)
        excess_MT = (covariance_MT / apart_MT).clamp_min_(IMPOSSIBLE)
        total_M += excess_MT.log1p().mul_(excess_MT.add_(1).mul_(apart_MT)).mean(dim=1)
    return total_M.clamp_min(0)


def _uncertain(mean_n: torch.Tensor) -> torch.Tensor:
    """Mask the pairs that some sample is uncertain about; other differences of samples are rounding errors."""
    return (mean_n > 0) & (mean_n < 1)
