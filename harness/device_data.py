"""A data set on a device, with what all cells on it share."""

from __future__ import annotations

import numpy as np
import torch

from harness.pairs import PreferenceData
from harness.policies.policy import PoolIndex, Responses
from harness.posteriors.posterior import AnsweredPairs

Array = np.ndarray


class DeviceData:
    """The splits of a data set, their features on a device; made once and used by all cells of a process.

    Attributes:
        data: the data set.
        device: where the features lie.
        pool: the split to acquire from.
        index: what was computed from the pool's features.
        features: float32 features of the responses of each split.
        held_out: names of the other splits.
        unlabelled: each split as policies see it.
        eval_pairs: the answered pairs to select models by.
    """

    def __init__(self, data: PreferenceData, device: torch.device, index: PoolIndex | None = None) -> None:
        self.data, self.device = data, device
        self.pool = data.splits["pool"]
        self.index = index or PoolIndex(self.pool.pairs)
        self.features = {
            name: torch.from_numpy(np.asarray(split.pairs.response_features_RD)).to(device)
            for name, split in data.splits.items()
        }
        self.held_out = [name for name in data.splits if name != "pool"]
        self.unlabelled = {name: Responses(self.features[name], self.responses(name)) for name in data.splits}
        self.eval_pairs = self.answered("eval", data.splits["eval"].records.first_share_N)

    def responses(self, name: str, pairs: Array | slice = slice(None)) -> torch.Tensor:
        """The two responses of pairs of a split, on the device."""
        return torch.from_numpy(np.asarray(self.data.splits[name].pairs.responses_of_pair_N2[pairs])).to(self.device)

    def answered(self, name: str, target_n: Array, pairs: Array | slice = slice(None)) -> AnsweredPairs:
        """Pairs of a split with answers; those without (NaN) are left out."""
        known = torch.from_numpy(~np.isnan(target_n)).to(self.device)
        target = torch.from_numpy(target_n.astype(np.float32)).to(self.device)
        return AnsweredPairs(self.features[name], self.responses(name, pairs)[known], target[known])
