"""Exact nearest neighbours among distinct prompts, computed once and used in all rounds, seeds and policies.

Prompt features never change, so the sorted neighbours of each prompt are computed once. Candidates come from blocked
matrix products, and their distances are computed again by differences. An error bound proves that no other prompt is
nearer. Rows without a proof are computed again in double precision, and finally by differences only.

Axes: P prompts, X distinct points (prompts with the same features are one point), Q features, M listed
neighbours (the point itself first, at distance 0), B rows of a block, E (point, member) entries of balls.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from balbench.harness.files import disk_errors, replacing
from balbench.harness.pool.blocks import block_rows, row_blocks

Array = np.ndarray
FIRST_WIDTH = 64


@dataclass(frozen=True)
class Balls:
    """The radius of each point, and the points within it.

    Attributes:
        radius_X: distance D_x, float64 with float32 values.
        point_E, member_E: member_E[e] is in the ball of point_E[e]; sorted by point.
    """

    radius_X: Array
    point_E: Array
    member_E: Array

    def count(self, weight_X: Array) -> Array:
        """Return for each point the summed weight of the members of its ball, shape (X,)."""
        return np.bincount(self.point_E, weights=weight_X[self.member_E], minlength=len(self.radius_X))

    def holders(self) -> tuple[Array, Array]:
        """Return (start_X1, point_E): the points whose balls contain x are point_E[start_X1[x]:start_X1[x + 1]]."""
        order_E = np.argsort(self.member_E, kind="stable")
        start_X1 = np.searchsorted(self.member_E[order_E], np.arange(len(self.radius_X) + 1))
        return start_X1, self.point_E[order_E]


class NeighbourIndex:
    """Sorted exact neighbours of the distinct rows of a prompt table."""

    def __init__(self, prompt_features_PQ: Array, width: int = FIRST_WIDTH, cache: Path | None = None) -> None:
        """Compute the `width` nearest points of each distinct prompt (Euclidean distance, float32).

        Args:
            prompt_features_PQ: float32 features.
            width: initial length of the lists, which grow if a round needs more neighbours.
            cache: a directory for these features, through which processes share the lists.
        """
        rows_PQ = np.ascontiguousarray(prompt_features_PQ, dtype=np.float32) + np.float32(0)  # -0.0 becomes 0.0
        first_X, self.point_of_prompt_P = distinct_rows(rows_PQ)
        self.points_XQ = torch.from_numpy(rows_PQ[first_X])
        if cache is None:
            self._widen(width)
        else:
            self._widen_or_read(width, cache)

    def __len__(self) -> int:
        return len(self.points_XQ)

    def _widen(self, width: int) -> None:
        self.neighbour_XM, self.distance_XM = nearest_neighbours(self.points_XQ, min(width, len(self)))

    def _widen_or_read(self, width: int, cache: Path) -> None:
        paths = [cache / f"neighbours-{width}.{part}.npy" for part in ("number", "distance")]
        with FileLock(cache / "neighbours.lock"):  # one process computes the lists; the others wait and read them
            if not all(path.exists() for path in paths):
                self._widen(width)
                for path, value in zip(paths, (self.neighbour_XM, self.distance_XM), strict=True):
                    with disk_errors(path), replacing(path) as temporary, temporary.open("wb") as file:
                        np.save(file, value, allow_pickle=False)
        self.neighbour_XM, self.distance_XM = (np.load(path, mmap_mode="c", allow_pickle=False) for path in paths)

    def balls(self, count_X: Array, k: int, *, itself: bool, inclusive: bool) -> Balls:
        """Return the balls that reach to the k-th neighbour of each point.

        Args:
            count_X: how many times each point counts as a neighbour (0: not at all).
            k: number of the neighbour; the last neighbour if there are fewer.
            itself: whether a point counts among its own neighbours.
            inclusive: whether a ball contains the points at exactly its radius.
        """
        k = min(k, int(count_X.sum()) - (0 if itself else int(count_X.max(initial=0))))
        width = self.neighbour_XM.shape[1]
        radius_X, inside_XM = self._reach(np.arange(len(self)), count_X, max(k, 1), itself, inclusive)
        short = np.flatnonzero(np.isnan(radius_X))
        if len(short) > len(self) // 100 and width < len(self):
            self._widen(2 * width)
            return self.balls(count_X, k, itself=itself, inclusive=inclusive)
        return self._gather(radius_X, inside_XM, short, count_X, max(k, 1), itself, inclusive)

    def _reach(
        self, rows_B: Array, count_X: Array, k: int, itself: bool, inclusive: bool, full: bool = False
    ) -> tuple[Array, Array]:
        """Return radii (NaN if the lists are too short) and membership of the listed neighbours."""
        neighbour_BM, distance_BM = self._full_lists(rows_B) if full else (self.neighbour_XM, self.distance_XM)
        count_BM = count_X[neighbour_BM]
        if not itself:
            count_BM = np.where(neighbour_BM == rows_B[:, None], 0, count_BM)
        reached_BM = np.cumsum(count_BM, axis=1) >= k
        column_B = np.argmax(reached_BM, axis=1)
        radius_B = distance_BM[np.arange(len(rows_B)), column_B].astype(np.float64)
        if full:  # with fewer than k neighbours, the radius is the distance to the farthest
            farthest_B = np.where(count_BM > 0, distance_BM, 0).max(axis=1)
            radius_B = np.where(reached_BM.any(axis=1), radius_B, farthest_B)
        else:
            # Unlisted points may be at the last listed distance, so a radius must stay below this distance.
            listed = (radius_B < distance_BM[:, -1]) | (neighbour_BM.shape[1] == len(self))
            radius_B[~(reached_BM.any(axis=1) & listed)] = np.nan
        limit_B1 = radius_B[:, None]
        return radius_B, (distance_BM <= limit_B1 if inclusive else distance_BM < limit_B1)

    def _gather(
        self,
        radius_X: Array,
        inside_XM: Array,
        short: Array,
        count_X: Array,
        k: int,
        itself: bool,
        inclusive: bool,
    ) -> Balls:
        """Join the balls from the lists with the balls of the few rows whose lists are too short."""
        point_E, column_E = np.nonzero(inside_XM)
        parts = [(point_E, self.neighbour_XM[point_E, column_E])]
        step = block_rows(8 * len(self))
        for start in range(0, len(short), step):
            rows = short[start : start + step]
            radius_X[rows], inside_BX = self._reach(rows, count_X, k, itself, inclusive, full=True)
            neighbour_BX, _ = self._full_lists(rows)
            row_E, column_E = np.nonzero(inside_BX)
            parts.append((rows[row_E], neighbour_BX[row_E, column_E]))
        point_E = np.concatenate([part[0] for part in parts])
        member_E = np.concatenate([part[1] for part in parts])
        order = np.argsort(point_E, kind="stable")
        return Balls(radius_X, point_E[order], member_E[order].astype(np.int64))

    def _full_lists(self, rows: Array) -> tuple[Array, Array]:
        neighbour_BX, distance_BX = _by_differences(self.points_XQ, torch.from_numpy(rows), len(self))
        return neighbour_BX.numpy(), distance_BX.numpy()


def distinct_rows(rows_PQ: Array) -> tuple[Array, Array]:
    """Return (first_X, point_of_row_P): the first row of each distinct point, in order of appearance."""
    as_bytes = rows_PQ.view(np.dtype((np.void, rows_PQ.dtype.itemsize * rows_PQ.shape[1]))).ravel()
    _, first, point_P = np.unique(as_bytes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[point_P.ravel()]


def distances(a_BQ: torch.Tensor, b_BMQ: torch.Tensor) -> torch.Tensor:
    """Return Euclidean distances (B, M) by differences: equal bits for (i, j) and (j, i), for any block."""
    return torch.cdist(a_BQ[:, None], b_BMQ, compute_mode="donot_use_mm_for_euclid_dist")[:, 0]


def nearest_neighbours(points_XQ: torch.Tensor, width: int) -> tuple[Array, Array]:
    """Return the `width` nearest points of each point and their distances, sorted by (distance, number).

    Returns:
        int32 (X, width) and float32 (X, width); a point's own number comes first.
    """
    X = len(points_XQ)
    neighbour_XM = torch.empty((X, width), dtype=torch.int32)
    distance_XM = torch.empty((X, width), dtype=torch.float32)
    rows = torch.arange(X)
    slack = max(16, width // 4)
    for dtype in (torch.float32, torch.float64):
        if width + slack < X and len(rows):
            rows = _by_products(points_XQ, rows, width, width + slack, dtype, neighbour_XM, distance_XM)
    for block in row_blocks(rows, 8 * X):
        neighbour_XM[block], distance_XM[block] = _by_differences(points_XQ, block, width)
    return neighbour_XM.numpy(), distance_XM.numpy()


def _by_products(
    points_XQ: torch.Tensor,
    rows: torch.Tensor,
    width: int,
    candidates: int,
    dtype: torch.dtype,
    neighbour_XM: torch.Tensor,
    distance_XM: torch.Tensor,
) -> torch.Tensor:
    """Fill the lists of `rows` and return the rows whose lists are not proven."""
    mean_Q = points_XQ.double().mean(dim=0)
    centred_XQ = (points_XQ.double() - mean_Q).to(dtype)
    norm_X = centred_XQ.double().norm(dim=1)
    unproven = []
    for block in row_blocks(rows, len(points_XQ) * dtype.itemsize):
        # ||a - b||^2 = ||b||^2 - 2 ab + ||a||^2; the last term is the same along a row and added after the search.
        approximate_BX = torch.addmm((norm_X**2).to(dtype)[None], centred_XQ[block], centred_XQ.T, alpha=-2)
        nearest = torch.topk(approximate_BX, candidates + 1, largest=False)
        outside_B = nearest.values[:, -1].double() + norm_X[block] ** 2
        candidate_BM = nearest.indices[:, :-1]
        exact_BM = _candidate_distances(points_XQ, block, candidate_BM)
        neighbour_BM, sorted_BM = _sorted(candidate_BM, exact_BM, block)
        neighbour_XM[block], distance_XM[block] = neighbour_BM[:, :width].int(), sorted_BM[:, :width]
        floor_B = distance_floor(outside_B, norm_X[block], norm_X.max(), points_XQ.shape[1], dtype)
        unproven.append(block[sorted_BM[:, width - 1].double() > floor_B])
    return torch.cat(unproven)


def distance_floor(
    outside_B: torch.Tensor, norm_B: torch.Tensor, largest_norm: torch.Tensor, Q: int, dtype: torch.dtype
) -> torch.Tensor:
    """Return a lower bound of the float32 distance (by differences) to any point that is not a candidate.

    `outside_B` is the smallest approximate squared distance outside; an inner product of Q terms errs by at most
    gamma_Q |a| |b| with gamma_n = n u / (1 - n u) and unit roundoff u, in any order of summation (Higham 2002, 3.1).
    """
    u, u32 = torch.finfo(dtype).eps / 2, torch.finfo(torch.float32).eps / 2
    gamma, gamma32 = ((Q + 8) * v / (1 - (Q + 8) * v) for v in (u, u32))
    scale_B = norm_B + largest_norm
    true_B = (outside_B - 2 * gamma * scale_B**2).clamp_min(0).sqrt() - 2 * u * scale_B
    return true_B.clamp_min(0) * (1 - gamma32)


def _candidate_distances(points_XQ: torch.Tensor, block: torch.Tensor, candidate_BM: torch.Tensor) -> torch.Tensor:
    step = block_rows(4 * candidate_BM.shape[1] * points_XQ.shape[1])
    return torch.cat(
        [
            distances(points_XQ[block[i : i + step]], points_XQ[candidate_BM[i : i + step]])
            for i in range(0, len(block), step)
        ]
    )


def _by_differences(points_XQ: torch.Tensor, rows: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    distance_BX = torch.cdist(points_XQ[rows], points_XQ, compute_mode="donot_use_mm_for_euclid_dist")
    every_BX = torch.arange(len(points_XQ)).expand(len(rows), -1)
    neighbour_BX, sorted_BX = _sorted(every_BX, distance_BX, rows)
    return neighbour_BX[:, :width].int(), sorted_BX[:, :width]


def _sorted(
    candidate_BM: torch.Tensor, distance_BM: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort by (distance, number); a row's own point comes before other points at distance 0."""
    own_first_BM = torch.where(candidate_BM == rows[:, None], -1, candidate_BM)
    by_number = torch.argsort(own_first_BM, dim=1)
    candidate_BM, distance_BM = candidate_BM.gather(1, by_number), distance_BM.gather(1, by_number)
    sorted_BM, order = torch.sort(distance_BM, dim=1, stable=True)
    return candidate_BM.gather(1, order), sorted_BM


def count_within(
    centres_XQ: torch.Tensor, others_AQ: torch.Tensor, weight_A: Array, radius_X: Array, *, inclusive: bool
) -> Array:
    """Return for each centre the summed weight of the other points within its radius, shape (X,), exactly.

    Matrix products in double precision are enough for distances that are not close to a radius. Close distances are
    computed by differences in float32, as in the rest of this module.
    """
    a_XQ, b_AQ, radius = centres_XQ.double(), others_AQ.double(), torch.from_numpy(radius_X)
    weight = torch.from_numpy(np.asarray(weight_A, dtype=np.float64))
    within_X = torch.zeros(len(a_XQ), dtype=torch.float64)
    margin = 4 * (centres_XQ.shape[1] + 8) * torch.finfo(torch.float32).eps  # float32 distances by differences
    reach = float(b_AQ.norm(dim=1).max()) if len(b_AQ) else 0.0
    for block in row_blocks(torch.arange(len(a_XQ)), 16 * max(1, len(b_AQ))):
        near_BA = torch.cdist(a_XQ[block], b_AQ, compute_mode="use_mm_for_euclid_dist")
        limit_B1 = radius[block][:, None]
        slack_B1 = margin * limit_B1 + 1e-6 * (a_XQ[block].norm(dim=1, keepdim=True) + reach)
        within_BA = near_BA <= limit_B1
        row_E, column_E = torch.nonzero((near_BA - limit_B1).abs() <= slack_B1, as_tuple=True)
        if len(row_E):
            exact_E = torch.cat(
                [
                    distances(centres_XQ[block[rows]], others_AQ[columns][:, None])[:, 0]
                    for rows, columns in zip(row_E.split(8192), column_E.split(8192), strict=True)
                ]
            ).double()
            limit_E = radius[block][row_E]
            within_BA[row_E, column_E] = exact_E <= limit_E if inclusive else exact_E < limit_E
        within_X[block] = within_BA.double() @ weight
    return within_X.numpy()
