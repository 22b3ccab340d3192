"""Coverage of a space by distances and clusters: farthest-first, k-means, and the most typical pair of each cluster.

None of these policies uses rewards or labels. Axes: X distinct points, Q coordinates, K clusters, M members of a
cluster.
"""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from sklearn.cluster import KMeans as Clusterer
from sklearn.cluster import kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.random_projection import GaussianRandomProjection
from threadpoolctl import threadpool_limits

from balbench.harness.policies.points import RemainingPairs, Space, points_of, squared_distances, tied_at_top
from balbench.harness.policies.policy import Array, Policy, PoolView, Selection
from balbench.harness.pool.blocks import block_rows
from balbench.harness.streams import Stream

SEED_DIMENSIONS = 64
SOFTENING = 1e-5  # keeps the typicality of coinciding points finite


class KCenter(Policy):
    """Farthest-first: each pick is the pair farthest from its nearest acquired pair (core-set, k-center).

    If nothing is acquired, the first pair is drawn at random (score 0). Pairs can have the same distance, for example
    the second pairs of prompts that all have one acquired pair. Then pairs of the point with the fewest acquired pairs
    come first, in the order of identifiers.
    """

    family: ClassVar[str] = "coverage"
    source: ClassVar[str] = "Sener and Savarese 2018 (1708.00489) k-Center-Greedy"
    cost: ClassVar[str] = "X (n + B)"
    needs_rewards: ClassVar[bool] = False
    score_range: ClassVar[tuple[float, float]] = (0.0, np.inf)

    space: Space = "pair"
    """`pair` measures distances between differences of the responses' last-layer inputs under the current reward model
    (the paper uses last-layer inputs). `prompt` measures distances between prompt features."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily; scores are the distances from the nearest acquired pair."""
        points = points_of(view, self.space)
        remaining, distance_X = RemainingPairs(points), points.distance_to_acquired()
        picks, scores = [], []
        for _ in range(batch_size):
            if np.isinf(distance_X).all():
                first = np.argmax(view.uniform_U(stream.child("first")))
                top, tied = 0.0, points.point_U[first : first + 1]
            else:
                top, tied = tied_at_top(distance_X, remaining.left_X > 0)
            pick, point = remaining.take(tied)
            picks.append(pick)
            scores.append(top)
            if distance_X[point] > 0:
                distance_X = np.minimum(distance_X, points.distance_to(point))
                distance_X[point] = 0.0
        return Selection(view.unlabelled_U[picks], np.array(scores))


class KMeans(Policy):
    """The unlabelled pair nearest to each of B k-means centres of the unlabelled pairs.

    Centres of clusters with more pairs come first. If there are fewer distinct points than B, the centres are visited
    again, each with the next nearest pair.
    """

    family: ClassVar[str] = "coverage"
    source: ClassVar[str] = "Lloyd 1982; k-means++ start of Arthur and Vassilvitskii 2007"
    cost: ClassVar[str] = "X B"
    needs_rewards: ClassVar[bool] = False
    score_range: ClassVar[tuple[float, float]] = (-np.inf, 0.0)

    space: Space = "prompt"
    """`prompt` clusters prompt features, weighted by the number of unlabelled pairs of each prompt. `pair` clusters the
    differences of the responses' last-layer inputs under the current reward model."""
    iterations: int = Field(20, ge=1)
    """Largest number of iterations of Lloyd's algorithm."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Cluster the pairs and select the pairs nearest to the centres; scores are the negative distances."""
        points = points_of(view, self.space)
        remaining, weight_X = RemainingPairs(points), points.weight_X()
        occupied = np.flatnonzero(weight_X)
        points_XQ = points.oriented()[occupied]
        centre_KQ, cluster_X = _clusters(points_XQ, weight_X[occupied], batch_size, self.iterations, stream)
        size_K = np.bincount(cluster_X, weights=weight_X[occupied], minlength=len(centre_KQ))
        distance_KX = _distances(centre_KQ, points_XQ)
        picks, scores = [], []
        for turn in range(batch_size):
            if turn % len(centre_KQ) == 0:
                order_K = np.argsort(-size_K, kind="stable")
            near_X = -distance_KX[order_K[turn % len(centre_KQ)]].astype(np.float64)
            top, tied = tied_at_top(near_X, remaining.left_X[occupied] > 0)
            picks.append(remaining.take(occupied[tied])[0])
            scores.append(top)
        return Selection(view.unlabelled_U[picks], np.array(scores))


class TypiClust(Policy):
    """The most typical pair of each of the largest clusters with the fewest acquired pairs.

    All points of the pool are clustered by k-means. The number of clusters is the number of acquired pairs after the
    batch, at most `clusters`. Each pick comes from the cluster with the fewest acquired pairs (picks included), the
    largest cluster among ties. Of the points of that cluster that are not acquired, the pick is the point with the
    smallest mean distance to its nearest neighbours.
    """

    family: ClassVar[str] = "coverage"
    source: ClassVar[str] = "Hacohen et al. 2022 (2202.02794)"
    cost: ClassVar[str] = "X (n + B)"
    needs_rewards: ClassVar[bool] = False
    score_range: ClassVar[tuple[float, float]] = (0.0, np.inf)

    space: Space = "prompt"
    """`prompt` clusters the distinct prompts by their features (the paper uses frozen features). `pair` clusters the
    differences of the responses' last-layer inputs under the current reward model."""
    clusters: int = Field(500, ge=1)
    """Largest number of clusters."""
    smallest: int = Field(6, ge=1)
    """Clusters with fewer points are skipped while a larger cluster has unlabelled pairs."""
    neighbours: int = Field(20, ge=1)
    """Number of nearest neighbours in the typicality; half of the candidates if there are fewer."""
    iterations: int = Field(20, ge=1)
    """Largest number of iterations of Lloyd's algorithm."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch; scores are typicalities, 1 / (mean distance + 1e-5)."""
        points = points_of(view, self.space)
        remaining, points_XQ = RemainingPairs(points), points.oriented()
        most = min(len(points.point_n) + batch_size, self.clusters)
        centre_KQ, cluster_X = _clusters(points_XQ, np.ones(len(points)), most, self.iterations, stream)
        size_K = np.bincount(cluster_X, minlength=len(centre_KQ))
        picks, scores = [], []
        for _ in range(batch_size):
            members = self._members(remaining, cluster_X, size_K)
            typical_M = typicality(points_XQ[members], self.neighbours)
            top, tied = tied_at_top(typical_M, np.ones(len(members), dtype=bool))
            picks.append(remaining.take(members[tied])[0])
            scores.append(top)
        return Selection(view.unlabelled_U[picks], np.array(scores))

    def _members(self, remaining: RemainingPairs, cluster_X: Array, size_K: Array) -> Array:
        """Return the candidates of the next cluster: its points with the fewest acquired pairs."""
        left_K = np.bincount(cluster_X, weights=remaining.left_X, minlength=len(size_K)) > 0
        large_K = left_K & (size_K >= self.smallest)
        open_K = np.flatnonzero(large_K if large_K.any() else left_K)
        acquired_K = np.bincount(cluster_X, weights=remaining.acquired_X, minlength=len(size_K))
        cluster = open_K[np.lexsort((-size_K[open_K], acquired_K[open_K]))[0]]
        members = np.flatnonzero((cluster_X == cluster) & (remaining.left_X > 0))
        return members[remaining.acquired_X[members] == remaining.acquired_X[members].min()]


def typicality(points_MQ: Array, neighbours: int) -> Array:
    """Return 1 / (mean distance to the nearest neighbours + 1e-5) of each point, float64 (M,)."""
    M = len(points_MQ)
    count = min(neighbours, M // 2)
    if count == 0:
        return np.full(M, 1 / SOFTENING)
    a_MQ, mean_M = torch.from_numpy(points_MQ).double(), np.empty(M)
    step = block_rows(8 * M)
    for start in range(0, M, step):
        rows = torch.arange(start, min(start + step, M))
        squared_BM = squared_distances(a_MQ[rows], a_MQ, signed=True)
        squared_BM[torch.arange(len(rows)), rows] = torch.inf
        nearest_Bk = squared_BM.topk(count, dim=1, largest=False).values.sqrt()
        mean_M[start : start + step] = nearest_Bk.mean(dim=1).numpy()
    return 1 / (mean_M + SOFTENING)


def _clusters(points_XQ: Array, weight_X: Array, most: int, iterations: int, stream: Stream) -> tuple[Array, Array]:
    """Return (centre_KQ, cluster_X) of k-means with at most `most` clusters.

    k-means runs on one thread: with more threads, centres are summed in any order, and their last bits vary.
    """
    seed, count = int(stream.child("k_means").numpy().integers(2**32)), min(most, len(points_XQ))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # points that coincide give fewer clusters
        start_KQ = points_XQ[_seeds(points_XQ, weight_X, count, seed)]
        method = Clusterer(count, init=start_KQ, n_init=1, max_iter=iterations, random_state=seed)
        method.fit(points_XQ, sample_weight=weight_X)
    used, cluster_X = np.unique(method.labels_, return_inverse=True)
    return method.cluster_centers_[used], cluster_X


def _seeds(points_XQ: Array, weight_X: Array, count: int, seed: int) -> Array:
    """Return initial centres by k-means++; many dimensions are projected at random first, which is much faster."""
    if points_XQ.shape[1] > SEED_DIMENSIONS:
        projection = GaussianRandomProjection(SEED_DIMENSIONS, random_state=seed)
        points_XQ = projection.fit_transform(points_XQ)
    return kmeans_plusplus(points_XQ, count, sample_weight=weight_X, random_state=seed)[1]


def _distances(centre_KQ: Array, points_XQ: Array) -> Array:
    """Return the distances of points to centres, float32 (K, X), by products in double precision."""
    centres_KQ, distance_KX = (
        torch.from_numpy(centre_KQ).double(),
        np.empty((len(centre_KQ), len(points_XQ)), np.float32),
    )
    step = block_rows(8 * max(centre_KQ.shape))
    for start in range(0, len(points_XQ), step):
        block_BQ = torch.from_numpy(points_XQ[start : start + step]).double()
        distance_KX[:, start : start + step] = squared_distances(centres_KQ, block_BQ, signed=True).sqrt().numpy()
    return distance_KX
