"""BAL-PM: epistemic uncertainty of the pair plus entropy of the acquired prompts (Melo et al. 2024, 2406.10023).

score_i = U_i + beta h_i, where h_i estimates how much a pair of prompt i adds to the entropy of the acquired prompts
(see harness/policies/prompt_entropy.py). A batch is filled greedily, and each pick counts as acquired for the next
pick. All pairs of a prompt have the same h, so h is kept once for each distinct prompt (axis X), and a pick costs one
arg max over the distinct prompts.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, UncertaintyKind
from balbench.harness.policies.prompt_entropy import (
    KlEntropy,
    KsgEntropy,
    PromptEntropy,
    nearest_acquired,
    nearest_weighted,
    shift_as_coded,
)
from balbench.harness.pool.neighbours import count_within
from balbench.harness.streams import Stream

KSG_ONLY = ("neighbours", "ball", "digamma_divisor")
AS_CODED: dict[str, Any] = {"neighbours": "remaining_pairs", "ball": "closed", "shift_features": True}


class BalPm(Policy):
    """Greedy argmax of uncertainty + beta * prompt entropy (eq. 10)."""

    family: ClassVar[str] = "bal_pm"
    source: ClassVar[str] = "Melo et al. 2024 (2406.10023) eq. 10"
    cost: ClassVar[str] = "X (k + B)"
    uses_uncertainty: ClassVar[bool] = True

    variant: Literal["published", "as_coded"] = "published"
    """`published` follows the paper's text, `as_coded` the authors' code. The variant sets `neighbours`, `ball` and
    `shift_features` unless they are given."""
    estimator: Literal["ksg", "kl"] = "ksg"
    """Estimator of the prompt entropy. `ksg` uses distances in the pool and counts the acquired pairs within them. `kl`
    uses the distance to the k-th nearest acquired pair; `neighbours`, `ball` and `digamma_divisor` do not apply to
    it."""
    k: int = Field(13, ge=1)
    """The radius is the distance to the k-th neighbour, or to the farthest neighbour if there are fewer."""
    beta: float = Field(1e-2, ge=0, le=1e100)
    """Weight of the prompt entropy."""
    digamma_divisor: Annotated[float, Field(gt=0)] | Literal["dimension"] = 1.0
    """The divisor d of the digamma term, 1 in the authors' experiments. `dimension` is the number of prompt features,
    as in the original estimator; the counts then have little effect."""
    neighbours: Literal["distinct_prompts", "remaining_pairs"] = "distinct_prompts"
    """`distinct_prompts` (published): the k-th other prompt of the whole pool, so that radii never change.
    `remaining_pairs` (as coded): the k-th among the prompts of the unlabelled pairs, including the prompt itself and
    its duplicates, so that a prompt with k unlabelled pairs has radius 0."""
    ball: Literal["open", "closed"] = "open"
    """`open` counts distances < D (published), `closed` distances <= D (as coded)."""
    shift_features: bool = False
    """As coded, the features of the pool, but not of the acquired pairs, become f - mean/std before distances are
    computed. This loses most of the counts unless the features have mean 0."""
    normalise_entropy: bool = False
    """Whether h is standardised over the unlabelled pairs before each pick (an option of the authors' code)."""
    entropy: Literal["maximise", "minimise"] = "maximise"
    """`minimise` changes the sign of h (the authors' entropy minimiser)."""
    uncertainty: UncertaintyKind = "epistemic"
    """The uncertainty U of the score; `epistemic` is BALD, or the posterior's own measure if it has one."""

    @model_validator(mode="before")
    @classmethod
    def _apply_variant(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("variant") == "as_coded":
            unused = KSG_ONLY if settings.get("estimator") == "kl" else ()
            return {key: value for key, value in AS_CODED.items() if key not in unused} | settings
        return settings

    @model_validator(mode="after")
    def _every_setting_matters(self) -> BalPm:
        changed = [key for key in KSG_ONLY if getattr(self, key) != type(self).model_fields[key].default]
        if self.estimator == "kl" and changed:
            raise ValueError(f"estimator kl does not use {changed[0]}; leave it out")
        if not self.uses_uncertainty and self.uncertainty != type(self).model_fields["uncertainty"].default:
            raise ValueError("uncertainty is not used here; leave it out, or use bal_pm")
        return self

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily (deterministic: `stream` is not used)."""
        uncertainty_U = view.score_U(self.uncertainty) if self.uses_uncertainty else np.zeros(len(view.unlabelled_U))
        return self.fill(view, uncertainty_U, batch_size)

    def fill(self, view: PoolView, uncertainty_U: Array, batch_size: int) -> Selection:
        """Fill a batch greedily, given the uncertainty of each unlabelled pair."""
        prompts = self._prompt_entropy(view, batch_size)
        candidates = _Candidates(view.index.point_of_pair_N[view.unlabelled_U], uncertainty_U, len(prompts.entropy_X))
        sign = 1.0 if self.entropy == "maximise" else -1.0
        picks, scores, entropy_scores = [], [], []
        for _ in range(batch_size):
            entropy_X = prompts.entropy_X
            if self.normalise_entropy:
                entropy_X = _standardised(entropy_X, candidates.left_X)
            weighted_X = self._weighted(sign * entropy_X)
            pick, point, score = candidates.take(weighted_X)
            picks.append(pick)
            scores.append(score)
            entropy_scores.append(weighted_X[point])
            prompts.add(point)
        diagnostics = {
            "uncertainty_score": float(uncertainty_U[picks].mean()),
            "entropy_score": float(np.mean(entropy_scores)),
        }
        return Selection(view.unlabelled_U[picks], np.array(scores), diagnostics)

    def _weighted(self, entropy_X: Array) -> Array:
        """Return the prompt entropy times beta, and raise ValueError if it is not finite."""
        weighted_X = self.beta * entropy_X
        if not np.isfinite(weighted_X).all():
            raise ValueError("scores are not finite: the prompt entropy overflows; raise digamma_divisor")
        return weighted_X

    def _prompt_entropy(self, view: PoolView, batch_size: int) -> PromptEntropy:
        index, point_N = view.index.neighbours, view.index.point_of_pair_N
        remaining_X = np.bincount(point_N[view.unlabelled_U], minlength=len(index))
        acquired_X = np.bincount(point_N[view.acquired_n], minlength=len(index))
        if self.estimator == "kl":
            return self._kl_entropy(view, remaining_X, acquired_X)
        return self._ksg_entropy(view, remaining_X, acquired_X, batch_size)

    def _ksg_entropy(self, view: PoolView, remaining_X: Array, acquired_X: Array, batch_size: int) -> KsgEntropy:
        index, closed = view.index.neighbours, self.ball == "closed"
        if self.neighbours == "remaining_pairs":
            balls = index.balls(remaining_X, self.k, itself=True, inclusive=closed)
        else:
            balls = index.balls(np.ones(len(index), dtype=np.int64), self.k, itself=False, inclusive=closed)
        if self.shift_features:  # the shift does not change distances within the pool
            shifted_XQ, acquired = shift_as_coded(index.points_XQ, remaining_X), np.flatnonzero(acquired_X)
            others_AQ = index.points_XQ[acquired]
            count_X = count_within(shifted_XQ, others_AQ, acquired_X[acquired], balls.radius_X, inclusive=closed)
        else:
            count_X = balls.count(acquired_X)
        divisor = len(view.pool.prompt_features_PQ[0]) if self.digamma_divisor == "dimension" else self.digamma_divisor
        return KsgEntropy(balls, count_X, float(divisor), most=int(acquired_X.sum()) + batch_size)

    def _kl_entropy(self, view: PoolView, remaining_X: Array, acquired_X: Array) -> KlEntropy:
        index = view.index.neighbours
        if self.shift_features:  # picks of this batch are shifted like the pool, so distances to them do not change
            shifted_XQ, acquired = shift_as_coded(index.points_XQ, remaining_X), np.flatnonzero(acquired_X)
            nearest_Xk = nearest_weighted(shifted_XQ, index.points_XQ[acquired], acquired_X[acquired], self.k)
        else:
            nearest_Xk = nearest_acquired(index, acquired_X, self.k)
        return KlEntropy(index.points_XQ, nearest_Xk)


class EntropyOnly(BalPm):
    """BAL-PM without its uncertainty term: only the entropy of the acquired prompts."""

    family: ClassVar[str] = "bal_pm"
    source: ClassVar[str] = "Melo et al. 2024 (2406.10023) ablation of the scores"
    needs_rewards: ClassVar[bool] = False
    uses_uncertainty: ClassVar[bool] = False


class _Candidates:
    """Unlabelled pairs grouped by distinct prompt ("point"), in order of uncertainty within each point."""

    def __init__(self, point_U: Array, uncertainty_U: Array, X: int) -> None:
        self._order = np.lexsort((np.arange(len(point_U)), -uncertainty_U, point_U))
        self._start_X1 = np.searchsorted(point_U[self._order], np.arange(X + 1))
        self._uncertainty_U = uncertainty_U.astype(np.float64)
        self._taken_U = np.zeros(len(point_U), dtype=bool)
        self._next_X = self._start_X1[:-1].copy()
        self.left_X = np.diff(self._start_X1)
        self._best_X = np.full(X, -np.inf)
        for point in np.flatnonzero(self.left_X):
            self._best_X[point] = self._uncertainty_U[self._order[self._next_X[point]]]

    def take(self, weighted_X: Array) -> tuple[int, int, float]:
        """Pick the pair with the highest score (the lowest number among ties), and return (pair, point, score)."""
        score_X = self._best_X + weighted_X
        top = score_X.max()
        tied = np.flatnonzero(score_X == top).tolist()
        pick, point = min((self._first_at(point, weighted_X[point], top), point) for point in tied)
        self._remove(pick, point)
        return pick, point, float(top)

    def _first_at(self, point: int, weighted: float, top: float) -> int:
        """Return the lowest pair number with the top score; different uncertainties can round to the same score."""
        pairs = []
        for position in range(self._next_X[point], self._start_X1[point + 1]):
            pair = self._order[position]
            if self._uncertainty_U[pair] + weighted != top:
                break
            if not self._taken_U[pair]:
                pairs.append(int(pair))
        return min(pairs)

    def _remove(self, pick: int, point: int) -> None:
        self._taken_U[pick] = True
        self.left_X[point] -= 1
        end = self._start_X1[point + 1]
        while self._next_X[point] < end and self._taken_U[self._order[self._next_X[point]]]:
            self._next_X[point] += 1
        left = self._next_X[point] < end
        self._best_X[point] = self._uncertainty_U[self._order[self._next_X[point]]] if left else -np.inf


def _standardised(entropy_X: Array, left_X: Array) -> Array:
    """Return (h - mean) / std over the remaining pairs (ddof 1)."""
    total = left_X.sum()
    mean = (left_X * entropy_X).sum() / total
    variance = (left_X * (entropy_X - mean) ** 2).sum() / max(total - 1, 1)
    return (entropy_X - mean) / np.sqrt(variance) if variance > 0 else entropy_X - mean
