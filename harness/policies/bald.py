"""BALD: the pairs on which the members of the ensemble disagree most."""

from __future__ import annotations

from typing import ClassVar

from harness.policies.policy import Policy, PoolView, Selection, best
from harness.streams import Stream
from harness.uncertainty import LN2


class Bald(Policy):
    """Top B of the mutual information U = H[mean_k p_k] - mean_k H[p_k] between answer and reward model.

    Each pair is scored alone, so a batch may hold near-duplicates (that is BatchBALD's and BAL-PM's point).
    """

    family: ClassVar[str] = "uncertainty"
    source: ClassVar[str] = "Houlsby et al. 2011 (1112.5745) eq. 2"

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Take the pairs with the largest epistemic uncertainty."""
        return best(view, view.epistemic_U, batch_size, (0.0, LN2))
