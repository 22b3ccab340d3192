"""Uncertainty sampling: each pair is scored alone, so a batch may hold near-duplicates."""

from __future__ import annotations

from typing import ClassVar

from balbench.harness.policies.policy import Policy, PoolView, Selection, UncertaintyKind, take_highest
from balbench.harness.streams import Stream


class _MostUncertain(Policy):
    """Top B of one kind of uncertainty."""

    family: ClassVar[str] = "uncertainty"
    kind: ClassVar[UncertaintyKind] = "epistemic"

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Take the most uncertain pairs (deterministic: `stream` is not used)."""
        return take_highest(view, view.score_U(self.kind), batch_size)


class Bald(_MostUncertain):
    """Top B of the mutual information U = H[mean_k p_k] - mean_k H[p_k] between answer and reward model.

    A posterior with a measure of its own (latent_reward, feature_density) is asked for that instead.
    """

    source: ClassVar[str] = "Houlsby et al. 2011 (1112.5745) eq. 2"


class PredictiveEntropy(_MostUncertain):
    """Top B of H[mean_k p_k]: the pairs closest to a toss-up, whether or not more labels could help."""

    source: ClassVar[str] = "Melo et al. 2024 (2406.10023)"
    kind: ClassVar[UncertaintyKind] = "predictive"


class Variance(_MostUncertain):
    """Top B of the variance of p_k over the posterior samples."""

    source: ClassVar[str] = "Melo et al. 2024 (2406.10023)"
    kind: ClassVar[UncertaintyKind] = "variance"
