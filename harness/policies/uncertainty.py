"""Uncertainty sampling: each pair is scored alone, so a batch can contain near-duplicates."""

from __future__ import annotations

from typing import ClassVar

from balbench.harness.policies.policy import Policy, PoolView, Selection, UncertaintyKind, take_highest
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import LN2


class _MostUncertain(Policy):
    """Top B of one kind of uncertainty."""

    family: ClassVar[str] = "uncertainty"
    kind: ClassVar[UncertaintyKind] = "epistemic"

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the most uncertain pairs (deterministic: `stream` is not used)."""
        return take_highest(view, view.score_U(self.kind), batch_size, self.score_range)


class Bald(_MostUncertain):
    """Top B of the mutual information U = H[mean_k p_k] - mean_k H[p_k] between label and reward model.

    If the posterior has an epistemic measure of its own (latent_reward, feature_density), that measure replaces U.
    """

    source: ClassVar[str] = "Houlsby et al. 2011 (1112.5745) eq. 2"


class PredictiveEntropy(_MostUncertain):
    """Top B of H[mean_k p_k]: the pairs whose label is hardest to predict, even if more labels could not help."""

    source: ClassVar[str] = "Melo et al. 2024 (2406.10023)"
    kind: ClassVar[UncertaintyKind] = "predictive"
    score_range: ClassVar[tuple[float, float]] = (0.0, LN2)


class Variance(_MostUncertain):
    """Top B of the variance of p_k over the posterior samples."""

    source: ClassVar[str] = "Melo et al. 2024 (2406.10023)"
    kind: ClassVar[UncertaintyKind] = "variance"
    score_range: ClassVar[tuple[float, float]] = (0.0, 0.25)
