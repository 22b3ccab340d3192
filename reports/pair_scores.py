"""Scores of single held-out pairs, and the variance of a difference that comes from the choice of these pairs.

All seeds of a study share the held-out pairs. Write v_si = mu + a_s + b_i + e_si for the difference of policy and
reference for seed s on pair i. The t tests over seeds know var(a) and var(e) / pairs; the effect b of the pairs
stays the same in all seeds and is invisible to them. Its variance is estimated by clusters of one prompt g:

    G / (G - 1) sum_g (m_g^2 - error_g^2),

m_g is the share of cluster g in the mean difference (centred), and error_g is the error of m_g over seeds, because
m_g^2 alone contains the noise of the seeds too. The estimate is at least 0. Added to the variance over seeds, it gives
the error for new seeds and new pairs: the two-way random-effects model of generalisability theory (Brennan 2001,
Generalizability Theory, chapter 3), with prompts as clusters (Miller 2024, 2411.00640, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from balbench.reports.curves import Curve
from balbench.reports.differences import differences
from balbench.reports.inversion import Path

NODES = 24  # points of a path at which the variance is computed; between them it is interpolated


@dataclass(frozen=True)
class PairScores:
    """The predictions of a policy on the pairs of one split.

    Args:
        logits: logits of P(first preferred) of each seed, arrays (rounds T, pairs N); they may be memory maps.
        share_N: share of votes for the first response, NaN for pairs without a vote.
        prompt_N: the prompt of each pair, as an index from 0.
        metric: log_likelihood, accuracy or brier.
    """

    logits: Sequence[np.ndarray]
    share_N: np.ndarray
    prompt_N: np.ndarray
    metric: str
    _known: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def _voted(self) -> np.ndarray:
        return np.flatnonzero(~np.isnan(self.share_N))

    @cached_property
    def _cluster_V(self) -> np.ndarray:
        return np.unique(self.prompt_N[self._voted], return_inverse=True)[1]

    @property
    def clusters(self) -> int:
        """Number of prompts that have a vote."""
        return int(self._cluster_V.max()) + 1 if len(self._voted) else 0

    def cluster_parts(self, step: int) -> np.ndarray:
        """Return the centred share of each cluster in each seed's mean at a round, shape (S, G); rows sum to 0."""
        if step not in self._known:
            parts = [self._parts(np.asarray(logit_TN[step], dtype=np.float64)) for logit_TN in self.logits]
            self._known[step] = np.stack(parts)
        return self._known[step]

    def _parts(self, logit_N: np.ndarray) -> np.ndarray:
        score_V = pair_scores(logit_N[self._voted], self.share_N[self._voted], self.metric)
        return np.bincount(self._cluster_V, weights=score_V - score_V.mean(), minlength=self.clusters) / len(score_V)


def pair_scores(logit_V: np.ndarray, share_V: np.ndarray, metric: str) -> np.ndarray:
    """Score predictions pair by pair; the mean is the metric.

    Args:
        logit_V: logits of P(first preferred).
        share_V: share of votes for the first response.
        metric: log_likelihood, accuracy or brier.
    """
    if metric == "log_likelihood":
        return share_V * logit_V - np.logaddexp(0, logit_V)
    if metric == "accuracy":
        return np.where(logit_V > 0, share_V, np.where(logit_V < 0, 1 - share_V, 0.5))
    return (1 / (1 + np.exp(-logit_V)) - share_V) ** 2


def pair_variance(
    path: Path, policy: Curve, reference: Curve, own: PairScores, other: PairScores
) -> tuple[np.ndarray, int]:
    """Estimate the variance of the mean difference from the choice of the pairs along a path.

    Args:
        path: from `balbench.reports.inversion.savings_path`.
        policy, reference: the curves, whose seeds and rounds are those of the scores.
        own, other: scores of policy and reference.

    Returns:
        The variance at each point of the path, and the number of clusters.
    """
    H = len(path.policy_H)
    nodes = np.unique(np.linspace(0, H - 1, min(NODES, H)).round().astype(int))
    steps = [
        (_nearest(policy.labels_T, path.policy_H[node]), _nearest(reference.labels_T, path.reference_H[node]))
        for node in nodes
    ]
    variances = [
        _between_clusters(own.cluster_parts(own_step), policy, other.cluster_parts(other_step), reference)
        for own_step, other_step in steps
    ]
    return np.interp(np.arange(H), nodes, variances), own.clusters


def _between_clusters(own_SG: np.ndarray, policy: Curve, other_MG: np.ndarray, reference: Curve) -> float:
    compared = differences(own_SG, policy.seeds_S, other_MG, reference.seeds_S)
    G = own_SG.shape[1]
    return max(0.0, float(G / (G - 1) * np.sum(compared.mean_H**2 - compared.error_H**2))) if G > 1 else np.nan


def _nearest(labels_T: np.ndarray, labels: float) -> int:
    return int(np.abs(labels_T - labels).argmin())
