"""Generalised coverage under a Gaussian kernel, plain (MaxHerding) and weighted by uncertainty (UHerding).

A batch greedily maximises C(L) = 1/N sum_n u_n max over x in L of k(x_n, x), k(a, b) = exp(-|a - b|^2 / l^2), over all
N pairs, with points scaled to length 1. C is submodular, so the gain of a point never rises as L grows: old gains are
upper bounds, and most points need no update (lazy greedy, Minoux 1978). The whole kernel is never in memory.

Axes: N pairs, U unlabelled pairs, O open points (none of their pairs is acquired), B rows of a block.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from balbench.harness.policies.points import TIE, Points, RemainingPairs, Space, points_of, squared_distances
from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, UncertaintyKind
from balbench.harness.posteriors.posterior import pair_probability
from balbench.harness.streams import Stream

BLOCK = 1024  # points in a block of the kernel
CACHE_BYTES = 512 * 2**20  # largest size of the cache of kernel rows
SLACK = 1e-5  # bound of the relative error of gains that are summed in float32
NOTHING = 1e-7  # gains up to this share of the total weight count as 0
SHORT = 0.03  # below this lengthscale the kernel is computed in double precision


class _Herding(Policy):
    """Greedy maximisation of weighted coverage."""

    family: ClassVar[str] = "coverage"
    cost: ClassVar[str] = "X^2"
    score_range: ClassVar[tuple[float, float]] = (0.0, np.inf)

    space: Space = "prompt"
    """`prompt` covers prompt features (the paper uses frozen features), `pair` the differences of the responses'
    last-layer inputs under the current reward model. Both are scaled to length 1."""

    def fill(self, view: PoolView, points: Points, weight_U: Array, lengthscale: float, batch_size: int) -> Selection:
        """Fill a batch greedily; scores are the gains in C.

        If no point has a gain, points with the fewest acquired pairs come first, then the pair with the largest weight,
        then the first pair in the order of identifiers.

        Args:
            view: the round.
            points: the points of its pairs, scaled to length 1.
            weight_U: weight u of each unlabelled pair.
            lengthscale: l of the kernel.
            batch_size: number of pairs.
        """
        remaining, open_O = RemainingPairs(points, weight_U), np.flatnonzero(points.acquired_X == 0)
        gains = LazyGains(Coverage(points, points.weight_X(weight_U), lengthscale))
        row_X = np.full(len(points), -1)
        row_X[open_O] = np.arange(len(open_O))
        picks, scores = [], []
        for _ in range(batch_size):
            top, tied = gains.best()
            pick, point = remaining.take(open_O[tied] if len(tied) else np.arange(len(points)))
            picks.append(pick)
            scores.append(top / len(view.pool))
            if row_X[point] >= 0:
                gains.cover(int(row_X[point]))
        diagnostics = {"coverage_lengthscale": lengthscale}
        return Selection(view.unlabelled_U[picks], np.array(scores), diagnostics)


class MaxHerding(_Herding):
    """Greedy choice of the pairs that add most to the Gaussian-kernel coverage of the pool by acquired pairs."""

    source: ClassVar[str] = "Bae, Noh and Sutherland 2024 (2407.12212)"
    needs_rewards: ClassVar[bool] = False

    lengthscale: float = Field(1.0, ge=1e-6, le=1e6)
    """The length l of the kernel exp(-|a - b|^2 / l^2)."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily (deterministic: `stream` is not used)."""
        points = points_of(view, self.space).normalised()
        return self.fill(view, points, np.ones(len(view.unlabelled_U)), self.lengthscale, batch_size)


class UHerding(_Herding):
    """Greedy choice of the pairs that add most to the uncertainty-weighted coverage of the pool by acquired pairs."""

    source: ClassVar[str] = "Bae, Oliveira and Sutherland 2025 (2412.20644)"

    lengthscale: Annotated[float, Field(ge=1e-6, le=1e6)] | Literal["acquired"] = "acquired"
    """The length l of the kernel exp(-|a - b|^2 / l^2). `acquired` is the smallest distance between two acquired points
    (1 while there are fewer than two). It shrinks with more labels, so that coverage becomes uncertainty sampling."""
    uncertainty: UncertaintyKind | Literal["margin"] = "margin"
    """The weight u of a pair. `margin` is 1 - |2 p - 1|, with p the mean over the posterior samples of
    sigmoid(logit / temperature)."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of `margin`."""

    @model_validator(mode="after")
    def _temperature_is_of_the_margin(self) -> UHerding:
        if self.uncertainty != "margin" and self.temperature != 1:
            raise ValueError(f"uncertainty {self.uncertainty} does not use temperature; leave it out")
        return self

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily (deterministic: `stream` is not used)."""
        points = points_of(view, self.space).normalised()
        length = smallest_distance(points) if self.lengthscale == "acquired" else float(self.lengthscale)
        return self.fill(view, points, self._weight_U(view), length, batch_size)

    def _weight_U(self, view: PoolView) -> Array:
        if self.uncertainty == "margin":
            rewards_KR = view.rewards_KR.double() / self.temperature
            mean_U = pair_probability(view.model, view.pairs(view.unlabelled_U), rewards_KR).mean(dim=0)
            return (1 - (2 * mean_U - 1).abs()).clamp_min(0).cpu().numpy()
        uncertainty_U = view.score_U(self.uncertainty)
        # A posterior's own measure can be negative; weights cannot.
        return uncertainty_U - min(0.0, float(uncertainty_U.min()))


def smallest_distance(points: Points) -> float:
    """Return the smallest distance above 0 between points with acquired pairs; 1 if there are fewer than two."""
    acquired_A, smallest = np.flatnonzero(points.acquired_X), np.inf
    for start in range(0, len(acquired_A), BLOCK):
        rows = acquired_A[start : start + BLOCK]
        for _, squared_BA in points.squared(rows, acquired_A[start:], torch.float64):
            positive = squared_BA[squared_BA > 0]
            smallest = min(smallest, float(positive.min()) if len(positive) else np.inf)
    return float(np.sqrt(smallest)) if np.isfinite(smallest) else 1.0


class Coverage:
    """The coverage of the open points, and the gain of each open point."""

    def __init__(self, points: Points, weight_X: Array, lengthscale: float) -> None:
        """Compute the coverage by the acquired points; acquired points themselves are covered completely."""
        open_O, device = np.flatnonzero(points.acquired_X == 0), points.points_XQ.device
        self._dtype = torch.float64 if lengthscale < SHORT else torch.float32
        self._points_OQ = points.points_XQ[torch.from_numpy(open_O).to(device)].to(self._dtype)
        self._length_O = self._points_OQ.square().sum(dim=1)
        self._signed, self._lengthscale = points.signed, lengthscale
        self.weight_O = torch.from_numpy(weight_X[open_O]).to(device)
        nearest_O = torch.from_numpy(points.distance_to_acquired()[open_O]).to(device)
        self._covered_O = torch.exp(-((nearest_O / lengthscale) ** 2)).float()
        self._rows: OrderedDict[int, torch.Tensor] = OrderedDict()
        self.rows_computed = 0
        # Products of long rows are efficient with more rows at once.
        self.rows_at_once = min(64, max(16, self._points_OQ.shape[1] // 16))

    def _kernel(self, rows: slice | list[int], columns: slice) -> torch.Tensor:
        points_OQ, length_O = self._points_OQ, self._length_O
        squared_BC = squared_distances(points_OQ[rows], points_OQ[columns], self._signed, length_O[columns])
        return squared_BC.div_(-(self._lengthscale**2)).float().exp_()

    def all_gains(self) -> Array:
        """Return the gain of each open point, float64 (O,), to within `SLACK`; each kernel block is used twice."""
        gain_O = torch.zeros_like(self.weight_O)
        weight_O = self.weight_O.float()
        blocks = [slice(start, start + BLOCK) for start in range(0, len(gain_O), BLOCK)]
        for i, rows in enumerate(blocks):
            for columns in blocks[i:]:
                kernel_BC = self._kernel(rows, columns)
                if columns is not rows:
                    above_BC = (kernel_BC - self._covered_O[rows, None]).clamp_min_(0)
                    gain_O[columns] += (weight_O[rows] @ above_BC).double()
                gain_O[rows] += (kernel_BC.sub_(self._covered_O[columns]).clamp_min_(0) @ weight_O[columns]).double()
        return gain_O.cpu().numpy()

    def gains(self, rows: Array) -> Array:
        """Return the gains of some open points, float64."""
        kernel_BO = self._kernel_rows(rows)
        return ((kernel_BO - self._covered_O).clamp_min_(0).double() @ self.weight_O).cpu().numpy()

    def cover(self, row: int) -> None:
        """Count an open point as acquired."""
        self._covered_O = torch.maximum(self._covered_O, self._kernel_rows(np.array([row]))[0])

    def _kernel_rows(self, rows: Array) -> torch.Tensor:
        """Return rows of the kernel, float32 (B, O), and cache them."""
        missing = [row for row in rows.tolist() if row not in self._rows]
        if missing:
            new_BO = self._kernel(missing, slice(None))
            new_BO[torch.arange(len(missing)), missing] = 1.0  # exact, so that a picked point is covered completely
            self._rows.update(zip(missing, new_BO.unbind(), strict=True))
            self.rows_computed += len(missing)
        kernel_BO = torch.stack([self._rows[row] for row in rows.tolist()])
        while len(self._rows) * 4 * kernel_BO.shape[1] > CACHE_BYTES:
            self._rows.popitem(last=False)
        return kernel_BO


class LazyGains:
    """Lazy greedy search for the open point with the largest gain; old gains are upper bounds."""

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._open_O = np.ones(len(coverage.weight_O), dtype=bool)
        self._floor = NOTHING * float(coverage.weight_O.sum())
        self._bound_O = coverage.all_gains() * (1 + SLACK)

    def best(self) -> tuple[float, Array]:
        """Return (largest gain, the open points that tie for it), or (0, none) if no point has a gain."""
        fresh_O, chunk = np.zeros_like(self._open_O), self._coverage.rows_at_once
        limit = self._coverage.rows_computed + max(64, len(fresh_O) // 8)
        while True:
            top = float(self._bound_O[fresh_O].max()) if fresh_O.any() else 0.0
            could_be_O = (self._bound_O > self._floor) & (self._bound_O >= top * (1 - TIE))
            rows = np.flatnonzero(self._open_O & ~fresh_O & could_be_O)
            if len(rows) == 0:
                break
            if self._coverage.rows_computed > limit:  # most gains have changed: compute all at once, at half the cost
                self._bound_O, limit = self._coverage.all_gains() * (1 + SLACK), limit + len(fresh_O)
                fresh_O[:] = False
                continue
            rows = rows[np.argsort(-self._bound_O[rows], kind="stable")[:chunk]]
            self._bound_O[rows] = self._coverage.gains(rows)
            fresh_O[rows], chunk = True, min(2 * chunk, 256)
        if top <= self._floor:
            return 0.0, np.empty(0, dtype=np.int64)
        return top, np.flatnonzero(fresh_O & (self._bound_O >= top * (1 - TIE)))

    def cover(self, row: int) -> None:
        """Count an open point as acquired."""
        self._coverage.cover(row)
        self._open_O[row] = False
