"""BAL-PM: epistemic uncertainty of the pair plus entropy of the acquired prompts (Melo et al. 2024, 2406.10023).

score_i = U_i + beta h_i with h_i = log(2 D_i + 1e-4) - digamma(n_i + 1) / d: D_i is the distance from prompt i to its
k-th nearest prompt, n_i the number of acquired pairs whose prompts lie within D_i. A batch is filled greedily;
each pick raises n where it falls into a ball. A prompt's entropy is shared by its pairs, so all is kept for each
distinct prompt (axis X) and a pick costs one arg max over them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from harness.neighbours import Balls, count_within
from harness.policies.policy import Array, Policy, PoolView, Selection, UncertaintyKind
from harness.streams import Stream

LOG_OFFSET = 1e-4
AS_CODED: dict[str, Any] = {"neighbours": "remaining_pairs", "ball": "closed", "shift_features": True}


class BalPm(Policy):
    """Greedy argmax of uncertainty + beta * prompt entropy (KSG form, eq. 10).

    Attributes:
        variant: `published` reads the estimator as the text has it; `as_coded` does what the authors' code does.
            The variant sets the three switches below unless they are given.
        k: which neighbour's distance is the radius.
        beta: weight of the prompt entropy.
        digamma_divisor: d above; 1 in the authors' experiments. `dimension` is the estimator's own (the number of
            prompt features), with which the counts hardly matter.
        neighbours: `distinct_prompts` (published): the k-th other prompt of the whole pool, so that radii never
            change; `remaining_pairs` (as coded): among the prompts of the pairs that are left, the prompt itself
            and its duplicates counted, so that a prompt with k pairs left has radius 0.
        ball: `open` counts distances < D (published), `closed` <= D (as coded).
        shift_features: as coded, the pool's features (and not the acquired ones) become f - mean/std before
            distances are taken, which loses most of the counts unless the features have mean 0.
        normalise_entropy: standardise h over the remaining pairs before each pick (an option of the authors').
        entropy: `minimise` turns the sign (the authors' entropy minimiser).
        uncertainty: U above; `epistemic` is BALD, or the posterior's own measure where it has one.
    """

    family: ClassVar[str] = "bal_pm"
    source: ClassVar[str] = "Melo et al. 2024 (2406.10023) eq. 10"
    cost: ClassVar[str] = "X (k + B)"
    uses_uncertainty: ClassVar[bool] = True

    variant: Literal["published", "as_coded"] = "published"
    k: int = Field(13, ge=1)
    beta: float = Field(1e-2, ge=0)
    digamma_divisor: Annotated[float, Field(gt=0)] | Literal["dimension"] = 1.0
    neighbours: Literal["distinct_prompts", "remaining_pairs"] = "distinct_prompts"
    ball: Literal["open", "closed"] = "open"
    shift_features: bool = False
    normalise_entropy: bool = False
    entropy: Literal["maximise", "minimise"] = "maximise"
    uncertainty: UncertaintyKind = "epistemic"

    @model_validator(mode="before")
    @classmethod
    def _apply_variant(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("variant") == "as_coded":
            return AS_CODED | settings
        return settings

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily (deterministic: `stream` is not used)."""
        if self.uses_uncertainty:
            uncertainty_U = view.score_U(self.uncertainty)
        else:
            uncertainty_U = np.zeros(len(view.unlabelled_U))
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
            weighted_X = sign * self.beta * entropy_X
            pick, point, score = candidates.take(weighted_X)
            picks.append(pick)
            scores.append(score)
            entropy_scores.append(weighted_X[point])
            prompts.add(point)
        notes = {
            "uncertainty_score": float(uncertainty_U[picks].mean()),
            "entropy_score": float(np.mean(entropy_scores)),
        }
        return Selection(view.unlabelled_U[picks], np.array(scores), notes)

    def _prompt_entropy(self, view: PoolView, batch_size: int) -> _PromptEntropy:
        index, point_N = view.index.neighbours, view.index.point_of_pair_N
        remaining_X = np.bincount(point_N[view.unlabelled_U], minlength=len(index))
        acquired_X = np.bincount(point_N[view.acquired_n], minlength=len(index))
        closed = self.ball == "closed"
        if self.neighbours == "remaining_pairs":
            balls = index.balls(remaining_X, self.k, itself=True, inclusive=closed)
        else:
            balls = index.balls(np.ones(len(index), dtype=np.int64), self.k, itself=False, inclusive=closed)
        if self.shift_features:  # distances inside the pool survive the shift
            shifted_XQ, some = shift_as_coded(index.points_XQ, remaining_X), np.flatnonzero(acquired_X)
            others_AQ = index.points_XQ[some]
            count_X = count_within(shifted_XQ, others_AQ, acquired_X[some], balls.radius_X, inclusive=closed)
        else:
            count_X = balls.count(acquired_X)
        divisor = len(view.pool.prompt_features_PQ[0]) if self.digamma_divisor == "dimension" else self.digamma_divisor
        return _PromptEntropy(balls, count_X, float(divisor), most=int(acquired_X.sum()) + batch_size)


class EntropyOnly(BalPm):
    """BAL-PM without its uncertainty term: spread over prompts and nothing else."""

    family: ClassVar[str] = "bal_pm"
    source: ClassVar[str] = "Melo et al. 2024 (2406.10023) ablation of the scores"
    needs_rewards: ClassVar[bool] = False
    uses_uncertainty: ClassVar[bool] = False


def shift_as_coded(points_XQ: torch.Tensor, remaining_X: Array) -> torch.Tensor:
    """Features as the authors' code "normalises" them: f - mean/std over the remaining pairs, (X, Q) float32."""
    points, weight = points_XQ.double(), torch.from_numpy(remaining_X).double()
    total = weight.sum()
    mean_Q = weight @ points / total
    std_Q = torch.sqrt(weight @ (points - mean_Q) ** 2 / (total - 1))
    return (points - mean_Q / std_Q).float()


class _PromptEntropy:
    """h for each point, kept up to date as picks are added."""

    def __init__(self, balls: Balls, count_X: Array, divisor: float, most: int) -> None:
        self._log_X = np.log(2.0 * balls.radius_X + LOG_OFFSET)
        self._count_X = count_X.astype(np.int64)
        self._divisor = divisor
        self._start_X1, self._holder_E = balls.holders()
        # The authors' counts are float32 inside the digamma, and only there.
        self._digamma = torch.digamma(torch.arange(1, most + 2, dtype=torch.float32)).double().numpy()
        self.entropy_X = self._log_X - self._digamma[self._count_X] / divisor

    def add(self, point: int) -> None:
        """Count one more acquired pair at a point."""
        touched = self._holder_E[self._start_X1[point] : self._start_X1[point + 1]]
        self._count_X[touched] += 1
        self.entropy_X[touched] = self._log_X[touched] - self._digamma[self._count_X[touched]] / self._divisor


class _Candidates:
    """Unlabelled pairs grouped by point; each point offers its most uncertain pair that is left."""

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
        """Take the pair with the highest score (the lowest number among ties); return (pair, point, score)."""
        score_X = self._best_X + weighted_X
        top = score_X.max()
        tied = np.flatnonzero(score_X == top).tolist()
        pick, point = min((self._first_at(point, weighted_X[point], top), point) for point in tied)
        self._remove(pick, point)
        return pick, point, float(top)

    def _first_at(self, point: int, weighted: float, top: float) -> int:
        """Lowest pair number at the top score (uncertainties that differ can round to one score)."""
        pairs = []
        for place in range(self._next_X[point], self._start_X1[point + 1]):
            pair = self._order[place]
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
    """(h - mean) / std over the remaining pairs (ddof 1)."""
    total = left_X.sum()
    mean = (left_X * entropy_X).sum() / total
    variance = (left_X * (entropy_X - mean) ** 2).sum() / max(total - 1, 1)
    return (entropy_X - mean) / np.sqrt(variance) if variance > 0 else entropy_X - mean
