"""BatchBALD: the batch with the largest joint information about the posterior sample (Kirsch et al. 2019, 1906.08158).

The mutual information I(y_1, .., y_B; k) between B labels and the posterior sample k is maximised greedily. A
configuration c is one combination of labels of the b picks so far, P_c is its probability, and w_ck = p(k | c) are the
weights of the samples given c. The gain of one more pair i is its BALD score under these weights, averaged over the
configurations:

    I(y_i; k | y_1 .. y_b) = sum_c P_c h(sum_k w_ck p_ki) - sum_k (sum_c P_c w_ck) h(p_ki),

with h the entropy of a binary label. All 2^b configurations are used for the first picks, then a random sample of
configurations. The gain equals the difference of two joint entropies of the paper's eq. 8, without the cancellation.

The best pair of the whole pool is found exactly for the given configurations. h is concave, so merging configurations
(adding up P_c and P_c w_ck) never lowers a gain. A few merged configurations thus give an upper bound for every pair,
and only pairs whose bound reaches the best known gain are evaluated with more configurations.

Axes: K posterior samples, U unlabelled pairs, M evaluated pairs, C configurations, b picks so far.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy.special import entr

from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, check_range
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import LN2, entropy

MERGED = (1, 16, 128)  # numbers of merged configurations of the bounds, coarse to fine
FEW = 32  # number of candidates below which a finer bound costs more than it saves
PROBES = 8  # number of pairs with the highest bounds whose gains are computed first, to exclude other pairs
BLOCK = 2**16  # entries of an intermediate array, so that it fits in the processor's cache
TINY = np.finfo(np.float64).tiny
ROUNDING = 1e-13  # gains within this difference tie, and gains up to this count as 0
LOG_IMPOSSIBLE = -700.0  # log-probability of a label that is impossible under a posterior sample


class BatchBald(Policy):
    """Greedy choice of the batch whose labels have the largest joint information about the posterior sample.

    The whole pool is searched. The information of a batch is at most log K, so with few posterior samples soon no pair
    has a gain. The rest of the batch is then filled in the order of the BALD scores.
    """

    family: ClassVar[str] = "batch_bald"
    source: ClassVar[str] = "Kirsch et al. 2019 (1906.08158) algorithm 1, eq. 8 and 12"
    cost: ClassVar[str] = "B (N + M samples) K"
    score_range: ClassVar[tuple[float, float]] = (0.0, LN2)

    exact_up_to: int = Field(10, ge=0, le=16)
    """Number of picks whose labels are enumerated in all 2^b configurations; later picks use `samples` of them."""
    samples: int = Field(1000, ge=1, le=10**6)
    """Number of configurations drawn for each pick, equally many from each posterior sample (rounded up to a multiple
    of K)."""
    estimator: Literal["paired", "published"] = "paired"
    """Estimator of the gain for drawn configurations. `published` replaces sum_c P_c w_ck by 1/K, as the paper does.
    `paired` uses the sum over the same configurations, so that the errors of both terms are correlated."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily; scores are the gains.

        Diagnostics are the information of the batch in nats and the number of picks with a gain.
        """
        p_KU = view.probability_Kn(view.unlabelled_U)
        gains = _Gains(p_KU)
        configurations = all_configurations(p_KU[:, :0])
        picks: list[int] = []
        scores: list[float] = []
        while len(picks) < batch_size:
            pick, gain = gains.best(configurations)
            if gain <= ROUNDING:
                break
            picks.append(pick)
            scores.append(gain)
            gains.take(pick)
            configurations = self._configurations(p_KU[:, picks], stream)
        check_range(np.array(scores), self.score_range)
        diagnostics = {"batch_information": configurations.information(), "informative_picks": float(len(picks))}
        rest = gains.by_bald()[: batch_size - len(picks)]
        order = np.array([*picks, *rest], dtype=np.int64)
        return Selection(view.unlabelled_U[order], np.array([*scores, *(0.0 for _ in rest)]), diagnostics)

    def _configurations(self, p_Kb: torch.Tensor, stream: Stream) -> Configurations:
        picks = p_Kb.shape[1]
        if picks <= self.exact_up_to:
            return all_configurations(p_Kb)
        drawn = drawn_configurations(p_Kb, self.samples, stream.child("answers", picks))
        if self.estimator == "published":
            return drawn._replace(weight_K=torch.full_like(drawn.weight_K, 1 / len(p_Kb)))
        return drawn


class Configurations(NamedTuple):
    """Combinations of labels of some pairs.

    Attributes:
        joint_CK: P_c w_ck, the joint probability of configuration and posterior sample; float64, sums to 1.
        weight_K: the weights of the samples, sum_c P_c w_ck or its replacement 1/K.
    """

    joint_CK: torch.Tensor
    weight_K: torch.Tensor

    def information(self) -> float:
        """Return the information of the labels about the posterior sample in nats, in [0, log K].

        It is log K minus the entropy of the posterior sample given the labels.
        """
        remaining = torch.special.entr(self.joint_CK).sum() - torch.special.entr(self.joint_CK.sum(dim=1)).sum()
        return min(max(0.0, math.log(self.joint_CK.shape[1]) - float(remaining)), math.log(self.joint_CK.shape[1]))

    def merged(self, counts: tuple[int, ...]) -> Iterator[Configurations]:
        """Merge configurations with similar weights into groups, and yield the merged configurations.

        In each step the group whose merging loses most information is split, at the mean of the weight that varies most
        within the group.

        Args:
            counts: largest numbers of groups, ascending; one result for each.
        """
        joint_CK = self.joint_CK.cpu().numpy()
        remaining_C = _remaining_entropy(joint_CK)
        groups = [(-math.inf, 0, np.arange(len(joint_CK)))]
        for most in counts:
            while len(groups) < most and groups[0][0] < -ROUNDING:
                rows = heapq.heappop(groups)[2]
                for part in _halves(joint_CK[rows]):
                    loss = _remaining_entropy(joint_CK[rows[part]].sum(axis=0)) - remaining_C[rows[part]].sum()
                    heapq.heappush(groups, (-float(loss), int(rows[part][0]), rows[part]))
            merged_GK = np.stack([joint_CK[rows].sum(axis=0) for _, _, rows in groups])
            yield self._replace(joint_CK=torch.from_numpy(merged_GK).to(self.joint_CK.device))


def _remaining_entropy(joint_CK: Array) -> Array:
    """Return P_c times the entropy of the posterior sample given the configuration c, shape (C,)."""
    return entr(joint_CK).sum(axis=-1) - entr(joint_CK.sum(axis=-1))


def _halves(joint_CK: Array) -> list[Array]:
    """Split configurations in two at the mean of the weight that varies most; return the rows of both parts."""
    probability_C = joint_CK.sum(axis=1)
    weight_CK = joint_CK / np.maximum(probability_C, TINY)[:, None]
    mean_K = joint_CK.sum(axis=0) / max(probability_C.sum(), TINY)
    widest = (probability_C @ (weight_CK - mean_K) ** 2).argmax()
    low_C = weight_CK[:, widest] <= mean_K[widest]
    if low_C.all() or not low_C.any():  # all weights are equal
        low_C = np.arange(len(low_C)) < len(low_C) // 2
    return [np.flatnonzero(low_C), np.flatnonzero(~low_C)]


def all_configurations(p_Kb: torch.Tensor) -> Configurations:
    """Return all 2^b configurations of the labels of b pairs."""
    K, b = p_Kb.shape
    answer_Cb = (torch.arange(2**b, device=p_Kb.device)[:, None] >> torch.arange(b, device=p_Kb.device)) & 1
    joint_CK = (_log_likelihood(answer_Cb.double(), p_Kb) - math.log(K)).exp()
    return Configurations(joint_CK, torch.full_like(joint_CK[0], 1 / K))


def drawn_configurations(p_Kb: torch.Tensor, samples: int, stream: Stream) -> Configurations:
    """Draw labels of b pairs from the posterior samples, equally many from each sample, at least `samples` in
    total."""
    K, b = p_Kb.shape
    each = -(-samples // K)
    uniform = torch.from_numpy(stream.numpy().random((each, K, b))).to(p_Kb.device)
    answer_Cb = (uniform < p_Kb).double().view(each * K, b)
    joint_CK = torch.softmax(_log_likelihood(answer_Cb, p_Kb), dim=1) / (each * K)
    return Configurations(joint_CK, joint_CK.sum(dim=0))


def _log_likelihood(answer_Cb: torch.Tensor, p_Kb: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of configurations under each posterior sample, (C, K)."""
    first_bK, second_bK = (part.log().clamp_min(LOG_IMPOSSIBLE).mT for part in (p_Kb, 1 - p_Kb))
    return answer_Cb @ first_bK + (1 - answer_Cb) @ second_bK


class _Gains:
    """The remaining pairs and their probabilities, from which gains are computed."""

    def __init__(self, p_KU: torch.Tensor) -> None:
        self._p_UK = p_KU.mT.contiguous()
        self._entropy_UK = entropy(self._p_UK)
        self._left_U = torch.ones(len(self._p_UK), dtype=torch.bool, device=p_KU.device)

    def take(self, pick: int) -> None:
        self._left_U[pick] = False

    def by_bald(self) -> list[int]:
        """Return the remaining pairs, the highest BALD scores first (ties: the lowest number)."""
        left_M = self._left_U.nonzero()[:, 0]
        prior = all_configurations(self._p_UK[:0].mT)
        return left_M[self._gain(prior, left_M).argsort(descending=True, stable=True)].tolist()

    def best(self, configurations: Configurations) -> tuple[int, float]:
        """Return the remaining pair with the highest gain (ties: the lowest number), and its gain."""
        left_M, reached = self._left_U.nonzero()[:, 0], -math.inf
        for merged in configurations.merged(MERGED) if len(configurations.joint_CK) > MERGED[-1] else ():
            bound_M = self._gain(merged, left_M)
            probes = left_M[bound_M.topk(min(PROBES, len(left_M))).indices]
            reached = max(reached, float(self._gain(configurations, probes).max()))
            left_M = left_M[bound_M >= reached - 2 * ROUNDING]
            if len(left_M) <= FEW:
                break
        gain_M = self._gain(configurations, left_M)
        top = gain_M.max()
        first = int((gain_M >= top - ROUNDING).nonzero()[0])
        return int(left_M[first]), float(gain_M[first])

    def _gain(self, configurations: Configurations, pairs_M: torch.Tensor) -> torch.Tensor:
        """Return the gains of pairs; for merged configurations upper bounds of the gains."""
        joint_CK, weight_K = configurations
        probability_C = joint_CK.sum(dim=1)
        weight_KC = (joint_CK / probability_C.clamp_min(TINY)[:, None]).mT.contiguous()
        step = max(1, BLOCK // len(joint_CK))
        expected = [_entropy_(self._p_UK[rows] @ weight_KC) @ probability_C for rows in pairs_M.split(step)]
        return torch.cat(expected) - self._entropy_UK[pairs_M] @ weight_K


def _entropy_(p: torch.Tensor) -> torch.Tensor:
    """Return the entropy of binary labels as `entropy` does, with few passes over memory; p is overwritten."""
    rest = (1 - p).clamp_(TINY, 1)  # p can be slightly above 1 by rounding
    p.clamp_(TINY, 1)
    return p.mul_(p.log()).add_(rest.mul_(rest.log())).neg_()
