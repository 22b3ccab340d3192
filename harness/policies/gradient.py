"""Gradients of the pair loss before the label is known: their length, diversity (BADGE) and relative risk (SHARP).

The Bradley-Terry loss of a pair with label y and P(first preferred) = p has the gradient (p - y) D with respect to the
weights of the reward model's last layer. D is the difference of the layer's inputs under posterior sample 0, and p is
the mean probability over the posterior samples.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch

from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, take_highest
from balbench.harness.pool.blocks import block_rows
from balbench.harness.streams import Stream

GAP_FLOOR, GAP_CEILING = 1e-9, 1e3  # limits of |reward difference|, because the Sharpe ratio has a pole at 0


def hallucinated_gradients(view: PoolView) -> torch.Tensor:
    """Return (p - y) D of the unlabelled pairs at the most probable label y (1 if p = 1/2), float32 (U, H)."""
    mean_U = view.probability_Kn(view.unlabelled_U).mean(dim=0)
    error_U = (mean_U - (mean_U >= 0.5).double()).float()
    gradient_UH = torch.empty((len(error_U), view.embedding_RH.shape[1]), device=error_U.device)
    step = block_rows(4 * gradient_UH.shape[1])
    for start in range(0, len(error_U), step):
        rows = slice(start, start + step)
        gradient_UH[rows] = error_U[rows, None] * view.differences(view.unlabelled_U[rows])
    return gradient_UH


def _squared_distances(points_UH: torch.Tensor, centre_H: torch.Tensor) -> Array:
    """Return squared Euclidean distances, float64 (U,), by differences, so that the distance of equal points is 0."""
    distance_U1 = torch.cdist(points_UH, centre_H[None], compute_mode="donot_use_mm_for_euclid_dist")
    return distance_U1[:, 0].double().square().cpu().numpy()


class GradientNorm(Policy):
    """Top B of the gradient's length at the most probable label, min(p, 1 - p) |D|."""

    family: ClassVar[str] = "gradient"
    source: ClassVar[str] = "Ash et al. 2020 (1906.03671) section 3, without its diversity"
    cost: ClassVar[str] = "N H"
    score_range: ClassVar[tuple[float, float]] = (0.0, np.inf)

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the pairs with the longest gradients (deterministic: `stream` is not used)."""
        gradient_UH = hallucinated_gradients(view)
        squared_U = _squared_distances(gradient_UH, torch.zeros_like(gradient_UH[0]))
        return take_highest(view, np.sqrt(squared_U), batch_size, self.score_range)


class Badge(Policy):
    """k-means++ seeding on the gradients (p - y) D at the most probable labels y: long gradients, far from each other.

    The first pick is the longest gradient. Each further pick is drawn with probability proportional to its squared
    distance from the nearest pick, or uniformly if all remaining gradients equal picks.
    """

    family: ClassVar[str] = "gradient"
    source: ClassVar[str] = "Ash et al. 2020 (1906.03671) algorithm 1"
    cost: ClassVar[str] = "N H B"
    score_range: ClassVar[tuple[float, float]] = (0.0, np.inf)

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Draw a batch; scores are the squared distances at the draws (for the first pick its squared length)."""
        gradient_UH = hallucinated_gradients(view)
        squared_U = _squared_distances(gradient_UH, torch.zeros_like(gradient_UH[0]))
        order_U = np.argsort(view.index.rank_N[view.unlabelled_U])  # by identifiers, so that storage does not matter
        uniform_B = stream.child("badge").numpy().random(batch_size)
        taken_U = np.zeros(len(squared_U), dtype=bool)
        picks: list[int] = []
        scores: list[float] = []
        for pick_number in range(batch_size):
            pick = _draw(squared_U, taken_U, order_U, uniform_B[pick_number]) if picks else int(squared_U.argmax())
            picks.append(pick)
            scores.append(float(squared_U[pick]))
            taken_U[pick] = True
            nearest_U = _squared_distances(gradient_UH, gradient_UH[pick])
            squared_U = nearest_U if pick_number == 0 else np.minimum(squared_U, nearest_U)
        return Selection(view.unlabelled_U[picks], np.array(scores))


def _draw(weight_U: Array, taken_U: Array, order_U: Array, uniform: float) -> int:
    """Draw a position that is not taken, with probability proportional to its weight (uniform if all weights are 0)."""
    weight_U = np.where(taken_U, 0.0, weight_U)
    if not weight_U.any():
        weight_U = (~taken_U).astype(np.float64)
    total_U = np.cumsum(weight_U[order_U])
    position = np.searchsorted(total_U, uniform * total_U[-1], side="right")
    # If rounding makes the draw equal to the total, the last position with a weight is drawn.
    return int(order_U[min(position, np.searchsorted(total_U, total_U[-1]))])


class Sharpe(Policy):
    """Top B of the mean of the gradient's length over its standard deviation under both labels (SHARP, W-SHARP).

    With the posterior's mean logit z, the length is sigmoid(-z) |D| if the first response is
    preferred and sigmoid(z) |D| otherwise, so |D| cancels.
    """

    family: ClassVar[str] = "gradient"
    source: ClassVar[str] = "Belakaria et al. 2025 (2503.22137) eq. 12 and 15"
    score_range: ClassVar[tuple[float, float]] = (0.0, np.inf)

    prior: Literal["uniform", "model"] = "uniform"
    """Probabilities of the labels. `uniform` is SHARP, (1 + e^z) / |1 - e^z| = coth(|z| / 2). `model` is W-SHARP: with
    sigmoid(z) for the first response, the ratio is 1 / sinh(|z| / 2)."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the pairs with the largest ratios (deterministic: `stream` is not used)."""
        half_U = self._mean_logit(view).abs().cpu().numpy().clip(GAP_FLOOR, GAP_CEILING) / 2
        ratio_U = 1 / (np.tanh(half_U) if self.prior == "uniform" else np.sinh(half_U))
        return take_highest(view, ratio_U, batch_size, self.score_range)

    def _mean_logit(self, view: PoolView) -> torch.Tensor:
        """Return the mean over the samples of the logits of the unlabelled pairs, float64 (U,)."""
        mean_R, scale_U = view.rewards_KR.double().mean(dim=0), view.logit_scale_n(view.unlabelled_U)
        responses_U2 = view.responses(view.unlabelled_U)
        logit_U = mean_R[responses_U2[:, 0]] - mean_R[responses_U2[:, 1]]
        return logit_U if scale_U is None else logit_U * scale_U
