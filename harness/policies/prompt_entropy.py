"""Entropy of the acquired prompts around each prompt, updated while a batch is filled.

There are two estimators (Melo et al. 2024, 2406.10023), with D_x a distance from prompt x:

- KSG: h_x = log(2 D_x + 1e-4) - digamma(n_x + 1) / d. D_x is the distance to the k-th nearest prompt of the pool,
  and n_x is the number of acquired pairs whose prompts are within D_x. A pick raises n of
  all prompts whose ball contains the pick.
- KL: h_x = log(2 D_x + 1e-4). D_x is the distance to the prompt of the k-th nearest acquired pair, picks included.

Axes: X distinct prompts, A distinct acquired prompts, Q features, k nearest acquired pairs, B rows of a block,
M candidates, E (point, member) entries of balls.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from balbench.harness.pool.blocks import block_rows, row_blocks
from balbench.harness.pool.neighbours import Balls, NeighbourIndex, distance_floor, distances

Array = np.ndarray
LOG_OFFSET = 1e-4
SLACK = 16  # additional candidates, with which an error bound can prove that no neighbour was missed


class PromptEntropy(Protocol):
    """The entropy h of each distinct prompt.

    Attributes:
        entropy_X: float64 entropies, finite.
    """

    entropy_X: Array

    def add(self, point: int) -> None:
        """Count one more acquired pair at a distinct prompt."""
        ...


class KsgEntropy:
    """The KSG estimator, for balls whose radii do not change within a batch."""

    def __init__(self, balls: Balls, count_X: Array, divisor: float, most: int) -> None:
        """Prepare all counts up to `most`.

        Args:
            balls: radius and members of each point's ball.
            count_X: number of acquired pairs in each ball.
            divisor: d of the estimator.
            most: largest count that a batch can reach.
        """
        self._log_X = np.log(2.0 * balls.radius_X + LOG_OFFSET)
        self._count_X = count_X.astype(np.int64)
        self._divisor = divisor
        self._start_X1, self._holder_E = balls.holders()
        # In the authors' code the digamma has float32 counts; all else is float64.
        self._digamma = torch.digamma(torch.arange(1, most + 2, dtype=torch.float32)).double().numpy()
        self.entropy_X = self._log_X - self._digamma[self._count_X] / divisor

    def add(self, point: int) -> None:
        """Count one more acquired pair at a point."""
        touched = self._holder_E[self._start_X1[point] : self._start_X1[point + 1]]
        self._count_X[touched] += 1
        self.entropy_X[touched] = self._log_X[touched] - self._digamma[self._count_X[touched]] / self._divisor


class KlEntropy:
    """The KL estimator. With fewer than k acquired pairs, D is the distance to the farthest; with none, h is 0."""

    def __init__(self, points_XQ: torch.Tensor, nearest_Xk: Array) -> None:
        """Prepare the entropies.

        Args:
            points_XQ: features of the distinct prompts.
            nearest_Xk: sorted distances to the k nearest acquired pairs (see `nearest_acquired`).
        """
        self._points_XQ = points_XQ
        self._nearest_Xk = nearest_Xk
        self._centred_XQ = points_XQ - points_XQ.mean(dim=0)  # any centre is correct; the mean keeps norms small
        self._norm_X = torch.linalg.vector_norm(self._centred_XQ, dim=1, dtype=torch.float64)
        self._acquired = int(np.isfinite(nearest_Xk[0]).sum())  # the same in all rows, and at most k
        self.entropy_X = np.zeros(len(points_XQ))
        if self._acquired:
            self._update(np.arange(len(points_XQ)))

    def add(self, point: int) -> None:
        """Count one more acquired pair at a point."""
        self._acquired = min(self._nearest_Xk.shape[1], self._acquired + 1)
        candidates = self._candidates_for(point)
        others_BQ = self._points_XQ[torch.from_numpy(candidates)]
        distance_B = distances(self._points_XQ[point][None], others_BQ[None])[0].numpy()
        nearer_B = distance_B < self._nearest_Xk[candidates, -1]
        nearer = candidates[nearer_B]
        row_Bk = self._nearest_Xk[nearer]
        row_Bk[:, -1] = distance_B[nearer_B]
        row_Bk.sort(axis=1)
        self._nearest_Xk[nearer] = row_Bk
        self._update(nearer)

    def _candidates_for(self, point: int) -> Array:
        """Return all points (and few others) that are nearer to a point than to their k-th nearest acquired pair."""
        product_X = torch.mv(self._centred_XQ, self._centred_XQ[point]).double()
        squared_X = self._norm_X**2 - 2 * product_X + self._norm_X[point] ** 2
        Q = self._points_XQ.shape[1]
        floor_X = distance_floor(squared_X, self._norm_X, self._norm_X[point], Q, torch.float32)
        return np.flatnonzero(floor_X.numpy() < self._nearest_Xk[:, -1])

    def _update(self, rows: Array) -> None:
        radius_B = self._nearest_Xk[rows, self._acquired - 1].astype(np.float64)
        self.entropy_X[rows] = np.log(2.0 * radius_B + LOG_OFFSET)


def nearest_acquired(index: NeighbourIndex, acquired_X: Array, k: int) -> Array:
    """Return the exact distances from each point to its k nearest acquired pairs, sorted, float32 (X, k).

    If enough of the listed neighbours of a point are acquired, the sorted list of the index is used; otherwise all
    acquired prompts are searched. With fewer than k acquired pairs the last columns are infinite.
    """
    count_XM = acquired_X[index.neighbour_XM]
    nearest_Xk = _repeated(np.asarray(index.distance_XM), count_XM, k)
    short = np.flatnonzero(count_XM.sum(axis=1) < k)
    others = np.flatnonzero(acquired_X)
    if len(short) and len(others):
        others_AQ = index.points_XQ[torch.from_numpy(others)]
        nearest_Xk[short] = nearest_weighted(index.points_XQ[torch.from_numpy(short)], others_AQ, acquired_X[others], k)
    return nearest_Xk


def nearest_weighted(centres_XQ: torch.Tensor, others_AQ: torch.Tensor, count_A: Array, k: int) -> Array:
    """Return the exact distances from each centre to the k nearest others, each counted `count_A` times.

    Candidates come from matrix products, and their distances from differences in float32. If an error bound cannot
    prove that no neighbour of a row was missed, the row is computed again in double precision, and finally by
    differences only.

    Returns:
        Sorted float32 (X, k); infinite where there are fewer than k others.
    """
    nearest_Xk = np.empty((len(centres_XQ), k), dtype=np.float32)
    rows = torch.arange(len(centres_XQ))
    for dtype in (torch.float32, torch.float64):
        if k + SLACK < len(others_AQ) and len(rows):
            rows = _by_products(centres_XQ, others_AQ, count_A, rows, dtype, nearest_Xk)
    for block in row_blocks(rows, 8 * max(1, len(others_AQ)) * (k + 2)):
        distance_BA = torch.cdist(centres_XQ[block], others_AQ, compute_mode="donot_use_mm_for_euclid_dist")
        sorted_BA, order_BA = torch.sort(distance_BA, dim=1)
        nearest_Xk[block] = _repeated(sorted_BA.numpy(), count_A[order_BA.numpy()], k)
    return nearest_Xk


def _by_products(
    centres_XQ: torch.Tensor,
    others_AQ: torch.Tensor,
    count_A: Array,
    rows: torch.Tensor,
    dtype: torch.dtype,
    nearest_Xk: Array,
) -> torch.Tensor:
    """Fill `rows` of `nearest_Xk`, and return the rows for which the error bound is too weak."""
    k, Q = nearest_Xk.shape[1], others_AQ.shape[1]
    mean_Q = others_AQ.double().mean(dim=0)
    centred_AQ = (others_AQ.double() - mean_Q).to(dtype)
    norm_A = centred_AQ.double().norm(dim=1)
    unproven = []
    for block in row_blocks(rows, (len(others_AQ) + 3 * Q) * dtype.itemsize):
        centred_BQ = (centres_XQ[block].double() - mean_Q).to(dtype)
        norm_B = centred_BQ.double().norm(dim=1)
        approximate_BA = torch.addmm((norm_A**2).to(dtype)[None], centred_BQ, centred_AQ.T, alpha=-2)
        nearest = torch.topk(approximate_BA, k + SLACK + 1, largest=False)
        candidate_BM = nearest.indices[:, :-1]
        sorted_BM, order_BM = torch.sort(_candidate_distances(centres_XQ[block], others_AQ, candidate_BM), dim=1)
        counts_BM = count_A[candidate_BM.gather(1, order_BM).numpy()]
        nearest_Xk[block] = nearest_Bk = _repeated(sorted_BM.numpy(), counts_BM, k)
        floor_B = distance_floor(nearest.values[:, -1].double() + norm_B**2, norm_B, norm_A.max(), Q, dtype)
        unproven.append(block[torch.from_numpy(nearest_Bk[:, -1]).double() > floor_B])
    return torch.cat(unproven)


def _candidate_distances(centres_BQ: torch.Tensor, others_AQ: torch.Tensor, candidate_BM: torch.Tensor) -> torch.Tensor:
    step = block_rows(4 * candidate_BM.shape[1] * centres_BQ.shape[1])
    pieces = zip(centres_BQ.split(step), candidate_BM.split(step), strict=True)
    return torch.cat([distances(block_BQ, others_AQ[block_BM]) for block_BQ, block_BM in pieces])


def _repeated(sorted_BM: Array, count_BM: Array, k: int) -> Array:
    """Repeat each distance by its count, and return the first k of each row (infinite if there are fewer)."""
    reached_BM = np.minimum(np.cumsum(count_BM, axis=1), k)
    nearest_Bk = np.full((len(sorted_BM), k), np.inf, dtype=np.float32)
    for column in range(k):
        at_B = (reached_BM <= column).sum(axis=1)
        rows = np.flatnonzero(at_B < reached_BM.shape[1])
        nearest_Bk[rows, column] = sorted_BM[rows, at_B[rows]]
    return nearest_Bk


def shift_as_coded(points_XQ: torch.Tensor, remaining_X: Array) -> torch.Tensor:
    """Return features as the authors' code "normalises" them: f - mean/std over the remaining pairs, (X, Q) float32.

    A feature that is constant over these pairs does not change (the authors' code divides by 0).
    """
    points, weight = points_XQ.double(), torch.from_numpy(remaining_X).double()
    total = weight.sum()
    mean_Q = weight @ points / total
    std_Q = torch.sqrt(weight @ (points - mean_Q) ** 2 / (total - 1).clamp_min(1))
    return (points - torch.where(std_Q > 0, mean_Q / std_Q, 0)).float()
