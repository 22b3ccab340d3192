"""Optimal design for a linear layer: the pairs that add most to the Fisher information of its weights.

For a reward that is linear in features, labels of pairs with feature differences D and P(first preferred) = p have the
information M = ridge I + sum p (1 - p) D D'. A further pair raises log det M by log(1 + p (1 - p) D' M^-1 D). The
features are the inputs of the reward model's last layer, or the frozen features. Differences are computed in blocks
from the table of responses, so that no array of N x H is needed.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, take_highest
from balbench.harness.pool.blocks import block_rows
from balbench.harness.pool.feature_table import FeatureTable
from balbench.harness.streams import Stream

FIRST_BLOCK = 256  # pairs whose gains are updated first for each pick of a greedy batch
TIE = 1e-10  # gains with a smaller relative difference tie, and the lowest pair number is taken
AS_CODED: dict[str, Any] = {"design": "pool", "ridge": 1e-6}


class _Information(Policy):
    """Shared code of the design policies: the labelled pairs and the weights of pairs."""

    family: ClassVar[str] = "design"
    score_range: ClassVar[tuple[float, float]] = (0.0, np.inf)

    ridge: float = Field(1e-3, ge=1e-9)
    """Multiple of the identity in M, in squared units of the features."""

    def past(self, view: PoolView) -> Array:
        """Return the labelled pairs in order of acquisition; pairs with abstentions have no information."""
        return view.acquired_n[~np.isnan(view.label_n)]

    def weights(self, view: PoolView, pairs: Array) -> Array:
        """Return p (1 - p) s^2 of pairs, float64 (n,).

        p is the mean probability over the posterior samples, s the factor of the logit (1 for most posteriors, see
        `ScaledLogits`), which is also the factor of the logit's gradient.
        """
        mean_n = view.probability_Kn(pairs).mean(dim=0)
        return (mean_n * (1 - mean_n)).cpu().numpy() * self.squared_scale(view, pairs)

    def squared_scale(self, view: PoolView, pairs: Array) -> Array:
        """Return the square of the factor of each pair's logit, float64 (n,)."""
        scale_n = view.logit_scale_n(pairs)
        return np.ones(len(pairs)) if scale_n is None else scale_n.square().cpu().numpy()


class ArmFi(_Information):
    """Top B of p(1-p) D' M^-1 D, the first-order gain in log det of the last layer's Fisher information."""

    source: ClassVar[str] = "Shen, Sun, Ton 2025 (2502.04354), past-aware D-optimality"
    cost: ClassVar[str] = "N H^2"

    variant: Literal["published", "as_coded"] = "published"
    """The variant sets `design` and `ridge` unless they are given: past and 1e-3 (published), pool and 1e-6 (as
    coded)."""
    design: Literal["past", "pool"] = "past"
    """The pairs in M: the labelled pairs (`past`), or the labelled and all unlabelled pairs (`pool`). The authors' code
    differentiates log det M with respect to the weights of the candidates where all candidates are in the design."""

    @model_validator(mode="before")
    @classmethod
    def _apply_variant(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("variant") == "as_coded":
            return AS_CODED | settings
        return settings

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the pairs with the largest gains, each scored alone (deterministic: `stream` is not used)."""
        pairs_U, past_n = view.unlabelled_U, self.past(view)
        weight_U = self.weights(view, pairs_U)
        design = Design(view.embedding_RH, self.ridge)
        design.add(view.responses(past_n), self.weights(view, past_n))
        if self.design == "pool":
            design.add(view.responses(pairs_U), weight_U)
        return take_highest(view, weight_U * design.leverage_n(view.responses(pairs_U)), batch_size, self.score_range)


class Adpo(_Information):
    """Greedy maximum of log det M over the batch: each pick counts as labelled before the next pick is chosen."""

    source: ClassVar[str] = "Kveton et al. 2025 (2503.01076) algorithm 1, eq. 10"
    cost: ClassVar[str] = "N H (H + B)"

    ridge: float = Field(1e-3, ge=1e-9)
    """Gamma of the paper: the multiple of the identity that M starts from."""
    features: Literal["last_layer", "frozen"] = "last_layer"
    """Features whose differences are D: the inputs of the reward model's last layer, or the frozen features."""
    weights_of: Literal["fisher", "equal"] = "fisher"
    """Weights of D D': p (1 - p) for `fisher`, 1 for `equal`. The second is the design for linear rewards that the
    paper compares with (APO, Das et al. 2024, 2402.10500)."""

    def weights(self, view: PoolView, pairs: Array) -> Array:
        """Return the weights of pairs (see `weights_of`), times the squared factors of their logits."""
        return self.squared_scale(view, pairs) if self.weights_of == "equal" else super().weights(view, pairs)

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Fill a batch greedily (deterministic: `stream` is not used)."""
        table_RH = view.embedding_RH if self.features == "last_layer" else view.splits["pool"].features_RD
        past_n, pairs_U = self.past(view), view.unlabelled_U
        design = Design(table_RH, self.ridge)
        design.add(view.responses(past_n), self.weights(view, past_n))
        greedy = GreedyDesign(design, view.responses(pairs_U), self.weights(view, pairs_U), batch_size)
        picks, gains = zip(*(greedy.take() for _ in range(batch_size)), strict=True)
        return Selection(pairs_U[list(picks)], np.log1p(gains))


class Design:
    """The information matrix M = ridge I + sum of w D D' over pairs, float64. All pairs are added before M is used."""

    def __init__(self, table_RH: FeatureTable, ridge: float) -> None:
        """Start from ridge I.

        Args:
            table_RH: features of the responses.
            ridge: multiple of the identity.
        """
        self.table_RH = table_RH
        H = table_RH.shape[1]
        self.matrix_HH = ridge * torch.eye(H, dtype=torch.float64, device=table_RH.device)
        self.rows = block_rows(8 * H, FIRST_BLOCK)

    def differences(self, responses_n2: torch.Tensor) -> torch.Tensor:
        """Return the features of the first response minus those of the second, float64 (n, H)."""
        return (self.table_RH[responses_n2[:, 0]] - self.table_RH[responses_n2[:, 1]]).double()

    def add(self, responses_n2: torch.Tensor, weight_n: Array) -> None:
        """Add pairs with weights."""
        root_n = torch.from_numpy(np.sqrt(weight_n)).to(self.matrix_HH.device)
        for rows_b2, root_b in zip(responses_n2.split(self.rows), root_n.split(self.rows), strict=True):
            scaled_bH = self.differences(rows_b2).mul_(root_b[:, None])
            self.matrix_HH.addmm_(scaled_bH.T, scaled_bH)

    @cached_property
    def factor_HH(self) -> torch.Tensor:
        """Lower Cholesky factor of M; the ridge is increased if rounding errors make M indefinite."""
        diagonal_H = self.matrix_HH.diagonal()
        more = len(diagonal_H) * torch.finfo(torch.float64).eps * float(diagonal_H.max())
        factor_HH, failed = torch.linalg.cholesky_ex(self.matrix_HH)
        while failed:
            diagonal_H += more
            more *= 10
            factor_HH, failed = torch.linalg.cholesky_ex(self.matrix_HH)
        return factor_HH

    def leverage_n(self, responses_n2: torch.Tensor) -> Array:
        """Return D' M^-1 D of pairs, float64 (n,), not negative."""
        blocks = [
            torch.linalg.solve_triangular(self.factor_HH, self.differences(rows_b2).T, upper=False).square_().sum(dim=0)
            for rows_b2 in responses_n2.split(self.rows)
        ]
        return torch.cat(blocks).cpu().numpy()

    @cached_property
    def inverse_HH(self) -> torch.Tensor:
        """M^-1."""
        return torch.cholesky_inverse(self.factor_HH)


class GreedyDesign:
    """Greedy picks for log det M by the matrix determinant lemma and rank-one updates of M^-1 (Sherman-Morrison).

    A pick with direction u = M^-1 D* and shrinkage c = w* / (1 + w* D*' u) lowers the leverage of every other pair by c
    (D' u)^2. Leverages never rise, so an old leverage is an upper bound, and pairs whose bound is below the best known
    gain are not updated (lazy greedy, Minoux 1978). The picks are the same as with all updates.
    """

    def __init__(self, design: Design, responses_U2: torch.Tensor, weight_U: Array, most: int) -> None:
        """Prepare the candidates.

        Args:
            design: M before the batch.
            responses_U2: the two responses of each candidate.
            weight_U: weights of the candidates.
            most: largest number of picks.
        """
        self._design, self._responses_U2, self._weight_U = design, responses_U2, weight_U
        self._leverage_U = design.leverage_n(responses_U2)
        self._gain_U = weight_U * self._leverage_U
        self._known_U = np.zeros(len(weight_U), dtype=np.int64)  # number of picks that the leverage accounts for
        self._direction_BH = design.matrix_HH.new_zeros((most, len(design.matrix_HH)))
        self._shrink_B = np.zeros(most)
        self._picks = 0

    def take(self) -> tuple[int, float]:
        """Pick the pair with the largest gain, and return its position and w D' M^-1 D."""
        block, top = FIRST_BLOCK, -np.inf
        while len(stale := self._stale(top)):
            if len(stale) > block:
                stale = stale[np.argpartition(-self._gain_U[stale], block)[:block]]
            self._refresh(stale)
            top = max(top, float(self._gain_U[stale].max()))
            block *= 2
        gain = float(self._gain_U.max())
        pick = int(np.flatnonzero(self._gain_U >= gain * (1 - TIE))[0])
        gain = float(self._gain_U[pick])
        self._count(pick)
        return pick, gain

    def _stale(self, top: float) -> Array:
        """Return the pairs whose gain is out of date and could be the largest."""
        least = top * (1 - TIE) if top > 0 else 0.0
        return np.flatnonzero((self._known_U < self._picks) & (self._gain_U >= least) & (self._gain_U > 0))

    def _refresh(self, positions: Array) -> None:
        """Update the leverages of pairs."""
        for start in range(0, len(positions), self._design.rows):
            block_b = positions[start : start + self._design.rows]
            first = int(self._known_U[block_b].min())
            differences_bH = self._design.differences(self._responses_U2[torch.from_numpy(block_b)])
            along_bB = (differences_bH @ self._direction_BH[first : self._picks].T).cpu().numpy()
            unknown_bB = np.arange(first, self._picks) >= self._known_U[block_b][:, None]
            fall_b = (along_bB**2 * unknown_bB) @ self._shrink_B[first : self._picks]
            self._leverage_U[block_b] = np.maximum(self._leverage_U[block_b] - fall_b, 0.0)
            self._gain_U[block_b] = self._weight_U[block_b] * self._leverage_U[block_b]
        self._known_U[positions] = self._picks

    def _count(self, pick: int) -> None:
        """Add a pick to M."""
        n, weight = self._picks, self._weight_U[pick]
        difference_H = self._design.differences(self._responses_U2[pick : pick + 1])[0]
        past_nH = self._direction_BH[:n]
        shrink_n = torch.from_numpy(self._shrink_B[:n]).to(past_nH.device)
        direction_H = self._design.inverse_HH @ difference_H - (shrink_n * (past_nH @ difference_H)) @ past_nH
        self._direction_BH[n] = direction_H
        self._shrink_B[n] = weight / (1 + weight * self._leverage_U[pick])
        self._gain_U[pick] = -np.inf
        self._picks += 1
