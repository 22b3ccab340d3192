"""BatchBALD: the batch whose answers together tell most about the posterior sample (Kirsch et al. 2019, 1906.08158).

The information I(y_1, .., y_B; k) of B answers about which of the K posterior samples holds is maximised greedily. A
configuration c is one way to answer the b picks so far, P_c its probability, w_ck = p(k | c) the samples' weights after
it. The gain of one more pair i is its BALD score under these weights, averaged over the configurations:

    I(y_i; k | y_1 .. y_b) = sum_c P_c h(sum_k w_ck p_ki) - sum_k (sum_c P_c w_ck) h(p_ki),

with h the entropy of a binary answer. All 2^b configurations are gone through while there are few, then a sample of
them is. This is the difference of two joint entropies of the paper's eq. 8, without their cancellation.

The best pair of the whole pool is found exactly for the configurations at hand. h is concave, so joining
configurations (adding up P_c and P_c w_ck) can only raise the gain: few joint configurations give an upper bound for
every pair, and only pairs whose bound reaches the best gain found so far are looked at with more of them.

Axes: K posterior samples, U unlabelled pairs, M pairs looked at, C configurations, b picks so far.
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

JOINT = (1, 16, 128)  # numbers of joint configurations of the bounds, coarse to fine
FEW = 32  # pairs that are not worth another bound
PROBES = 8  # pairs with the highest bounds, whose gains are computed before the others are sifted
BLOCK = 2**16  # numbers of an intermediate array: it should stay in the processor's cache
TINY = np.finfo(np.float64).tiny
ROUNDING = 1e-13  # gains this close are equal; gains this small are none
LOG_OF_NEVER = -700.0  # the log-probability of an answer that a posterior sample rules out


class BatchBald(Policy):
    """Greedily the batch whose answers jointly tell most about the posterior sample.

    The whole pool is searched. Once no pair has a gain left (with few posterior samples the answers soon tell which
    one holds: the information of a batch is at most log K), the batch is filled in the order of the BALD scores.

    Attributes:
        exact_up_to: picks whose answers are gone through in all 2^b configurations; `samples` of them afterwards.
        samples: number of configurations drawn anew for each pick, in equal parts by each posterior sample (rounded
            up to a multiple of K).
        estimator: of the gain where configurations are drawn. `published` takes 1/K for sum_c P_c w_ck, as the paper
            does; `paired` (default) the sum over the same configurations, so that both terms err alike.
    """

    family: ClassVar[str] = "batch_bald"
    source: ClassVar[str] = "Kirsch et al. 2019 (1906.08158) algorithm 1, eq. 8 and 12"
    cost: ClassVar[str] = "B (N + M samples) K"

    exact_up_to: int = Field(10, ge=0, le=16)
    samples: int = Field(1000, ge=1, le=10**6)
    estimator: Literal["paired", "published"] = "paired"

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily; scores are the gains, notes the batch's information (nats) and the picks with gain."""
        p_KU = view.probability_Kn(view.unlabelled_U)
        pool = _Gains(p_KU)
        now = all_configurations(p_KU[:, :0])
        picks: list[int] = []
        scores: list[float] = []
        while len(picks) < batch_size:
            pick, gain = pool.best(now)
            if gain <= ROUNDING:
                break
            picks.append(pick)
            scores.append(gain)
            pool.take(pick)
            now = self._configurations(p_KU[:, picks], stream)
        check_range(np.array(scores), (0.0, LN2))
        notes = {"batch_information": now.information(), "informative_picks": float(len(picks))}
        rest = pool.by_bald()[: batch_size - len(picks)]
        order = np.array([*picks, *rest], dtype=np.int64)
        return Selection(view.unlabelled_U[order], np.array([*scores, *(0.0 for _ in rest)]), notes)

    def _configurations(self, p_Kb: torch.Tensor, stream: Stream) -> Configurations:
        picks = p_Kb.shape[1]
        if picks <= self.exact_up_to:
            return all_configurations(p_Kb)
        drawn = drawn_configurations(p_Kb, self.samples, stream.child("answers", picks))
        if self.estimator == "published":
            return drawn._replace(weight_K=torch.full_like(drawn.weight_K, 1 / len(p_Kb)))
        return drawn


class Configurations(NamedTuple):
    """Ways to answer some pairs.

    Attributes:
        joint_CK: P_c w_ck, the probability of a configuration together with a posterior sample; float64, sums to 1.
        weight_K: the samples' weights, sum_c P_c w_ck or what stands for it.
    """

    joint_CK: torch.Tensor
    weight_K: torch.Tensor

    def information(self) -> float:
        """Information of the answers about the posterior sample in nats: log K less the entropy left, in [0, log K]."""
        left = torch.special.entr(self.joint_CK).sum() - torch.special.entr(self.joint_CK.sum(dim=1)).sum()
        return min(max(0.0, math.log(self.joint_CK.shape[1]) - float(left)), math.log(self.joint_CK.shape[1]))

    def joined(self, counts: tuple[int, ...]) -> Iterator[Configurations]:
        """Join configurations of like weights into at most each of these numbers of them (ascending).

        The group whose joining loses most information is split, at the mean of the weight that varies most in it.
        """
        joint_CK = self.joint_CK.cpu().numpy()
        left_C = _entropy_left(joint_CK)
        groups = [(-math.inf, 0, np.arange(len(joint_CK)))]
        for most in counts:
            while len(groups) < most and groups[0][0] < -ROUNDING:
                rows = heapq.heappop(groups)[2]
                for part in _halves(joint_CK[rows]):
                    loss = _entropy_left(joint_CK[rows[part]].sum(axis=0)) - left_C[rows[part]].sum()
                    heapq.heappush(groups, (-float(loss), int(rows[part][0]), rows[part]))
            joined_GK = np.stack([joint_CK[rows].sum(axis=0) for _, _, rows in groups])
            yield self._replace(joint_CK=torch.from_numpy(joined_GK).to(self.joint_CK.device))


def _entropy_left(joint_CK: Array) -> Array:
    """P_c times the entropy of the posterior sample given the configuration c, shape (C,)."""
    return entr(joint_CK).sum(axis=-1) - entr(joint_CK.sum(axis=-1))


def _halves(joint_CK: Array) -> list[Array]:
    """Split configurations in two at the mean of the weight that varies most; return the rows of either part."""
    probability_C = joint_CK.sum(axis=1)
    weight_CK = joint_CK / np.maximum(probability_C, TINY)[:, None]
    mean_K = joint_CK.sum(axis=0) / max(probability_C.sum(), TINY)
    widest = (probability_C @ (weight_CK - mean_K) ** 2).argmax()
    low_C = weight_CK[:, widest] <= mean_K[widest]
    if low_C.all() or not low_C.any():  # all alike
        low_C = np.arange(len(low_C)) < len(low_C) // 2
    return [np.flatnonzero(low_C), np.flatnonzero(~low_C)]


def all_configurations(p_Kb: torch.Tensor) -> Configurations:
    """All 2^b configurations of the answers to b pairs."""
    K, b = p_Kb.shape
    answer_Cb = (torch.arange(2**b, device=p_Kb.device)[:, None] >> torch.arange(b, device=p_Kb.device)) & 1
    joint_CK = (_log_likelihood(answer_Cb.double(), p_Kb) - math.log(K)).exp()
    return Configurations(joint_CK, torch.full_like(joint_CK[0], 1 / K))


def drawn_configurations(p_Kb: torch.Tensor, samples: int, stream: Stream) -> Configurations:
    """Answers to b pairs as the posterior samples draw them, each sample as many times (at least `samples` in all)."""
    K, b = p_Kb.shape
    each = -(-samples // K)
    uniform = torch.from_numpy(stream.numpy().random((each, K, b))).to(p_Kb.device)
    answer_Cb = (uniform < p_Kb).double().view(each * K, b)
    joint_CK = torch.softmax(_log_likelihood(answer_Cb, p_Kb), dim=1) / (each * K)
    return Configurations(joint_CK, joint_CK.sum(dim=0))


def _log_likelihood(answer_Cb: torch.Tensor, p_Kb: torch.Tensor) -> torch.Tensor:
    """Log-probability of configurations under each posterior sample, (C, K)."""
    first_bK, second_bK = (part.log().clamp_min(LOG_OF_NEVER).mT for part in (p_Kb, 1 - p_Kb))
    return answer_Cb @ first_bK + (1 - answer_Cb) @ second_bK


class _Gains:
    """The pairs that are left, with what their gains are computed from."""

    def __init__(self, p_KU: torch.Tensor) -> None:
        self._p_UK = p_KU.mT.contiguous()
        self._entropy_UK = entropy(self._p_UK)
        self._left_U = torch.ones(len(self._p_UK), dtype=torch.bool, device=p_KU.device)

    def take(self, pick: int) -> None:
        self._left_U[pick] = False

    def by_bald(self) -> list[int]:
        """The pairs that are left, the highest BALD scores first (ties: the lowest number)."""
        left_M = self._left_U.nonzero()[:, 0]
        prior = all_configurations(self._p_UK[:0].mT)
        return left_M[self._gain(prior, left_M).argsort(descending=True, stable=True)].tolist()

    def best(self, configurations: Configurations) -> tuple[int, float]:
        """The pair with the highest gain among those left (ties: the lowest number), and its gain."""
        left_M, reached = self._left_U.nonzero()[:, 0], -math.inf
        for joined in configurations.joined(JOINT) if len(configurations.joint_CK) > JOINT[-1] else ():
            bound_M = self._gain(joined, left_M)
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
        """Gains of pairs, or upper bounds of them where configurations are joined."""
        joint_CK, weight_K = configurations
        probability_C = joint_CK.sum(dim=1)
        weight_KC = (joint_CK / probability_C.clamp_min(TINY)[:, None]).mT.contiguous()
        step = max(1, BLOCK // len(joint_CK))
        expected = [_entropy_(self._p_UK[rows] @ weight_KC) @ probability_C for rows in pairs_M.split(step)]
        return torch.cat(expected) - self._entropy_UK[pairs_M] @ weight_K


def _entropy_(p: torch.Tensor) -> torch.Tensor:
    """Entropy of binary answers as in `entropy`, with few passes over memory; overwrites p."""
    rest = (1 - p).clamp_(TINY, 1)  # rounding can put p a little above 1
    p.clamp_(TINY, 1)
    return p.mul_(p.log()).add_(rest.mul_(rest.log())).neg_()
