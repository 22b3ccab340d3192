"""Uncertainty of an ensemble about a pair, computed from the probabilities of its members.

Axes: K members (posterior samples), N pairs. p_KN = P(first preferred) under each member; natural logarithms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

LN2 = math.log(2.0)


@dataclass(frozen=True)
class Uncertainty:
    """Entropies of a Bernoulli mixture (Houlsby et al. 2011, arXiv 1112.5745, eq. 2) and the members' variance.

    Attributes:
        mean_N: mean probability over the members.
        predictive_N: H[mean_k p_k].
        aleatoric_N: mean_k H[p_k].
        epistemic_N: predictive - aleatoric, the BALD score.
        variance_N: variance of p_k over the members (ddof 0).
        epistemic_range: lowest and highest value of epistemic_N; a posterior with its own measure has its own range.
    """

    mean_N: torch.Tensor
    predictive_N: torch.Tensor
    aleatoric_N: torch.Tensor
    epistemic_N: torch.Tensor
    variance_N: torch.Tensor
    epistemic_range: tuple[float, float] = (0.0, LN2)


def entropy(p: torch.Tensor) -> torch.Tensor:
    """Return the entropy of a Bernoulli variable in nats, elementwise; 0 at p = 0 and p = 1."""
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


def uncertainty(p_KN: torch.Tensor) -> Uncertainty:
    """Return the uncertainties of N pairs, in double precision so that small BALD scores stay distinct."""
    p_KN = p_KN.double()
    mean_N = p_KN.mean(dim=0)
    predictive_N, aleatoric_N = entropy(mean_N), entropy(p_KN).mean(dim=0)
    epistemic_N = (predictive_N - aleatoric_N).clamp_min(0)  # rounding may give -1e-17
    variance_N = (p_KN - mean_N).square_().mean(dim=0)  # several times faster than torch.var along a short first axis
    return Uncertainty(mean_N, predictive_N, aleatoric_N, epistemic_N, variance_N)


def pair_probabilities(
    rewards_KR: torch.Tensor, responses_N2: torch.Tensor, scale_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Return P(first preferred) under each member, float64 (K, N) (Bradley-Terry).

    Args:
        rewards_KR: rewards of the responses.
        responses_N2: the two responses of each pair.
        scale_N: factor of each pair's logit; 1 without it.
    """
    rewards_KR = rewards_KR.double()
    logit_KN = rewards_KR[:, responses_N2[:, 0]] - rewards_KR[:, responses_N2[:, 1]]
    return torch.sigmoid(logit_KN if scale_N is None else logit_KN * scale_N)
