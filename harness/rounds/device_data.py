"""A data set on a device, with what all cells on it share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from balbench.harness.machine import usable_memory
from balbench.harness.pool.feature_table import FeatureTable, StreamedTable, can_stream, resident
from balbench.harness.pool.index import PoolIndex, Responses
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.posteriors.posterior import LabelledPairs

Array = np.ndarray
Placement = Literal["auto", "resident", "streamed"]


class DeviceData:
    """The splits of a data set, their features on a device or on disk; made once and used by all cells of a process.

    Attributes:
        data: the data set.
        device: where the features lie, or are brought when they are needed.
        pool: the split to acquire from.
        index: what was computed from the pool's features.
        features: float32 features of the responses of each split.
        held_out: names of the other splits.
        unlabelled: each split as policies see it.
        eval_pairs: the answered pairs to select models by.
    """

    def __init__(
        self,
        data: PreferenceData,
        device: torch.device,
        index: PoolIndex | None = None,
        placement: Placement = "auto",
        processes: int = 1,
    ) -> None:
        """Place the features.

        Args:
            data: the data set.
            device: where to compute.
            index: what was computed from the pool's features before.
            placement: `resident` holds all features on the device; `streamed` reads them from disk in blocks (arrays
                that are not mapped from disk stay resident); `auto` streams the largest splits until the rest fits.
            processes: how many processes share the device with a table each.

        Raises:
            DataError: a file of features is not what it was when it was loaded.
        """
        self.data, self.device = data, device
        self.pool = data.splits["pool"]
        self.index = index or PoolIndex(self.pool.pairs)
        arrays = {name: split.pairs.response_features_RD for name, split in data.splits.items()}
        on_disk = streamed_splits(arrays, placement, device, processes)
        self.features: dict[str, FeatureTable] = {
            name: StreamedTable.of(on_disk[name], device) if name in on_disk else resident(features_RD, device)
            for name, features_RD in arrays.items()
        }
        self.held_out = [name for name in data.splits if name != "pool"]
        self.unlabelled = {name: Responses(self.features[name], self.responses(name)) for name in data.splits}
        self.eval_pairs = self.labelled_pairs("eval", data.splits["eval"].records.first_share_N)

    def responses(self, name: str, pairs: Array | slice = slice(None)) -> torch.Tensor:
        """The two responses of pairs of a split, on the device."""
        return torch.from_numpy(np.asarray(self.data.splits[name].pairs.responses_of_pair_N2[pairs])).to(self.device)

    def labelled_pairs(self, name: str, label_n: Array, pairs: Array | slice = slice(None)) -> LabelledPairs:
        """Pairs of a split with answers; those without (NaN) are left out."""
        known = torch.from_numpy(~np.isnan(label_n)).to(self.device)
        target = torch.from_numpy(label_n.astype(np.float32)).to(self.device)
        return LabelledPairs(self.features[name], self.responses(name, pairs)[known], target[known])


def streamed_splits(
    arrays: Mapping[str, Array], placement: Placement, device: torch.device, processes: int = 1
) -> dict[str, np.memmap]:
    """Which features to read from disk as they are needed: with `auto` the largest, until the rest fits."""
    mapped = {name: features_RD for name, features_RD in arrays.items() if can_stream(features_RD)}
    if placement != "auto":
        return mapped if placement == "streamed" else {}
    left = device_budget(device)
    found = {}
    for name in sorted(arrays, key=lambda name: arrays[name].size):
        # On a CPU, mapped float32 features are used as they lie; all else is a copy in each process.
        shared = device.type == "cpu" and name in mapped and arrays[name].dtype == np.float32
        left -= 4 * arrays[name].size * (1 if shared else processes)
        if left < 0 and name in mapped:
            found[name] = mapped[name]
    return found


def device_budget(device: torch.device) -> int:
    """Bytes of features that a device may hold: half of a machine's memory, what is free on a GPU less a quarter."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free - total // 4
    return usable_memory() // 2
