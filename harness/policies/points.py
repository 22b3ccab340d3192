"""Pairs as points of a space, for diversity policies: the prompt's features, or the difference of the responses.

Distances are Euclidean. A pair shown as (second, first) has the difference -D, which is equivalent to D for a linear
reward. So in the space of differences a and -a are the same point: distance(a, b) = min(|a - b|, |a + b|).

Axes: X distinct points, Q coordinates, U unlabelled pairs, n acquired pairs, A points with an acquired pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from balbench.harness.policies.policy import Array, PoolView
from balbench.harness.pool.blocks import block_rows
from balbench.harness.pool.neighbours import distinct_rows

Space = Literal["prompt", "pair"]
TIE = 1e-6  # scores within this relative difference of the highest tie: float32 features are no more precise
SAME = 1e-12  # squared distances up to this share of the squared lengths count as 0


@dataclass(frozen=True, eq=False)
class Points:
    """The distinct points of a pool's pairs, in the order of the pairs' identifiers.

    Attributes:
        points_XQ: float32 coordinates, on the device of the study.
        point_U, point_n: the point of each unlabelled and of each acquired pair.
        rank_U: rank of each unlabelled pair in the order of identifiers. It breaks ties, because mutual nearest
            neighbours tie often and the storage order must not matter.
        signed: whether a and -a are different points.
    """

    points_XQ: torch.Tensor
    point_U: Array
    point_n: Array
    rank_U: Array
    signed: bool = True

    def __len__(self) -> int:
        return len(self.points_XQ)

    @cached_property
    def acquired_X(self) -> Array:
        """Number of acquired pairs at each point."""
        return np.bincount(self.point_n, minlength=len(self))

    def weight_X(self, weight_U: Array | None = None) -> Array:
        """Return the summed weight of the unlabelled pairs at each point, float64 (X,); without weights their
        number."""
        return np.bincount(self.point_U, weights=weight_U, minlength=len(self)).astype(np.float64)

    def normalised(self) -> Points:
        """Return the same points scaled to length 1; a point at 0 does not move."""
        unit_XQ = torch.nn.functional.normalize(self.points_XQ, dim=1, eps=1e-30)
        return replace(self, points_XQ=unit_XQ)

    def distance_to(self, point: int) -> Array:
        """Return the distance of each point to one point, by differences; float64 (X,)."""
        one_1Q = self.points_XQ[point : point + 1]
        distance_X = _by_differences(self.points_XQ, one_1Q)
        if not self.signed:
            distance_X = torch.minimum(distance_X, _by_differences(self.points_XQ, -one_1Q))
        return distance_X.double().cpu().numpy()

    def distance_to_acquired(self) -> Array:
        """Return the distance of each point to the nearest acquired point; float64 (X,), inf if nothing is acquired.

        The distances come from matrix products in double precision, in blocks: (X - A) A Q multiplications.
        """
        distance_X = np.where(self.acquired_X > 0, 0.0, np.inf)
        acquired_A, rows = np.flatnonzero(self.acquired_X), np.flatnonzero(self.acquired_X == 0)
        if len(acquired_A):
            for block, squared_BA in self.squared(rows, acquired_A, torch.float64):
                distance_X[rows[block]] = squared_BA.amin(dim=1).sqrt().cpu().numpy()
        return distance_X

    def squared(self, rows: Array, columns: Array, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the squared distances of rows to columns in blocks of rows, by matrix products in `dtype`."""
        device = self.points_XQ.device
        b_CQ = self.points_XQ[torch.from_numpy(columns).to(device)].to(dtype)
        length_C = b_CQ.square().sum(dim=1)
        step = block_rows(8 * max(len(columns), b_CQ.shape[1]))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            a_BQ = self.points_XQ[torch.from_numpy(rows[block]).to(device)].to(dtype)
            yield block, squared_distances(a_BQ, b_CQ, self.signed, length_C)

    def oriented(self) -> Array:
        """Return coordinates for methods that distinguish a and -a, float32 (X, Q) on the CPU.

        If a and -a are the same point, the vector on the positive side of the first principal axis (about 0) represents
        both; the axis does not depend on the signs.
        """
        if self.signed:
            return self.points_XQ.cpu().numpy()
        points_XQ = self.points_XQ.double()
        axis_Q = torch.linalg.eigh(points_XQ.T @ points_XQ).eigenvectors[:, -1]
        side_X = torch.where(points_XQ @ axis_Q < 0, -1.0, 1.0).to(torch.float32)
        return (self.points_XQ * side_X[:, None]).cpu().numpy()


def points_of(view: PoolView, space: Space) -> Points:
    """Return the points of the pairs of a round.

    Args:
        view: the round.
        space: `prompt` uses the features of the prompt, so that pairs of prompts with the same features share a point.
            `pair` uses the difference of the two responses' embeddings under the current posterior, so that pairs with
            the same difference share a point.
    """
    return _prompt_points(view) if space == "prompt" else _pair_points(view)


def _prompt_points(view: PoolView) -> Points:
    index = view.index
    by_id_N = np.empty(len(view.pool), dtype=np.int64)
    by_id_N[index.rank_N] = np.arange(len(view.pool))
    used, first, used_N = np.unique(index.point_of_pair_N[by_id_N], return_index=True, return_inverse=True)
    order_X = np.argsort(first)
    number_X = np.empty_like(order_X)
    number_X[order_X] = np.arange(len(order_X))
    point_N = np.empty_like(used_N)
    point_N[by_id_N] = number_X[used_N]
    points_XQ = index.neighbours.points_XQ[torch.from_numpy(used[order_X])]
    points_XQ = points_XQ.to(view.splits["pool"].features_RD.device)
    return Points(points_XQ, point_N[view.unlabelled_U], point_N[view.acquired_n], index.rank_N[view.unlabelled_U])


def _pair_points(view: PoolView) -> Points:
    pairs = np.concatenate([view.unlabelled_U, view.acquired_n])
    by_id = np.argsort(view.index.rank_N[pairs])
    difference_NH = view.differences(pairs[by_id])
    rows_NH = _canonical(difference_NH.cpu().numpy())
    first_X, point_by_id = distinct_rows(rows_NH)
    point = np.empty_like(point_by_id)
    point[by_id] = point_by_id
    points_XH = torch.from_numpy(rows_NH[first_X]).to(difference_NH.device)
    U = len(view.unlabelled_U)
    return Points(points_XH, point[:U], point[U:], view.index.rank_N[view.unlabelled_U], signed=False)


def _canonical(rows_NH: Array) -> Array:
    """Return a or -a for each row, so that the first coordinate other than 0 is positive; -0.0 becomes 0.0."""
    lead_N = rows_NH[np.arange(len(rows_NH)), np.argmax(rows_NH != 0, axis=1)]
    return np.ascontiguousarray(np.where(lead_N < 0, -1, 1)[:, None].astype(np.float32) * rows_NH + np.float32(0))


def squared_distances(
    a_BQ: torch.Tensor, b_CQ: torch.Tensor, signed: bool, length_C: torch.Tensor | None = None
) -> torch.Tensor:
    """Return squared distances (B, C) by a matrix product.

    In double precision, distances that are rounding errors become 0 (see `SAME`).

    Args:
        a_BQ: points.
        b_CQ: points.
        signed: whether a and -a are different points.
        length_C: squared lengths of b, if they are known.
    """
    length_B1 = a_BQ.square().sum(dim=1)[:, None]
    length_1C = (b_CQ.square().sum(dim=1) if length_C is None else length_C)[None]
    product_BC = a_BQ @ b_CQ.T
    if not signed:
        product_BC.abs_()
    squared_BC = product_BC.mul_(-2).add_(length_B1).add_(length_1C)
    if squared_BC.dtype == torch.float64:
        return squared_BC.masked_fill_(squared_BC <= SAME * (length_B1 + length_1C), 0.0)
    return squared_BC.clamp_min_(0)


def _by_differences(a_XQ: torch.Tensor, b_1Q: torch.Tensor) -> torch.Tensor:
    return torch.cdist(a_XQ, b_1Q, compute_mode="donot_use_mm_for_euclid_dist")[:, 0]


class RemainingPairs:
    """The unlabelled pairs that remain at each point, for greedy rules that choose among points."""

    def __init__(self, points: Points, preference_U: Array | None = None) -> None:
        """Order the pairs of each point by preference, highest first, then by identifiers.

        Args:
            points: the points of the round.
            preference_U: preference of each unlabelled pair; by default all are equal.
        """
        self._rank_U = points.rank_U
        self._preference_U = np.zeros(len(self._rank_U)) if preference_U is None else preference_U
        self._order = np.lexsort((self._rank_U, -self._preference_U, points.point_U))
        self.left_X = np.bincount(points.point_U, minlength=len(points))
        self._next_X = np.cumsum(self.left_X) - self.left_X
        self.acquired_X = points.acquired_X.copy()

    def take(self, tied: Array) -> tuple[int, int]:
        """Take one pair from tied points, and return (its position among the unlabelled pairs, its point).

        Points with the fewest acquired pairs (pairs taken here included) come first, then the most preferred pair, then
        the first pair in the order of identifiers. Points without remaining pairs are skipped.
        """
        tied = tied[self.left_X[tied] > 0]
        tied = tied[self.acquired_X[tied] == self.acquired_X[tied].min()]
        candidates = self._order[self._next_X[tied]]
        chosen = np.lexsort((self._rank_U[candidates], -self._preference_U[candidates]))[0]
        pick, point = int(candidates[chosen]), int(tied[chosen])
        self.left_X[point] -= 1
        self._next_X[point] += 1
        self.acquired_X[point] += 1
        return pick, point


def tied_at_top(score_X: Array, allowed_X: Array) -> tuple[float, Array]:
    """Return the highest score among the allowed points, and the points whose scores tie with it."""
    top = float(score_X[allowed_X].max())
    return top, np.flatnonzero(allowed_X & (score_X >= top - TIE * abs(top)))
