"""A data set on a device, shared by all cells of a process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch

from balbench.harness.machine import usable_memory
from balbench.harness.pool.distances import PoolDistances
from balbench.harness.pool.feature_table import FeatureTable, StreamedTable, can_stream, resident
from balbench.harness.pool.index import PoolIndex, Responses
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.rounds.task import Features

Array = np.ndarray


class DeviceData:
    """The splits of a data set, with features on a device or on disk.

    Attributes:
        data: the data set.
        device: the device of the features; streamed features are copied to the device when they are needed.
        pool: the split from which policies acquire.
        index: results that are computed once from the pool's features.
        features: float32 features of the responses of each split.
        held_out: names of all splits except the pool.
        unlabelled: each split as policies see it.
        eval_pairs: the labelled pairs for model selection.
    """

    def __init__(
        self,
        data: PreferenceData,
        device: torch.device,
        index: PoolIndex | None = None,
        placement: Features = "auto",
        processes: int = 1,
    ) -> None:
        """Load the features, or open them on disk.

        Args:
            data: the data set.
            device: the device for computation.
            index: existing results from the pool's features.
            placement: `resident` keeps all features on the device; `streamed` reads them from disk in blocks (arrays
                that are not mapped from disk stay resident); `auto` streams the largest splits until the rest fits.
            processes: number of processes that share the device; each has its own table.

        Raises:
            DataError: a file of features has changed since it was loaded.
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

    @cached_property
    def pool_distances(self) -> PoolDistances:
        """The distances between the features of the pool's pairs, computed once when a batch is first acquired."""
        return PoolDistances(self.unlabelled["pool"].distance_N.cpu().numpy())

    def responses(self, name: str, pairs: Array | slice = slice(None)) -> torch.Tensor:
        """Return the two responses of pairs of a split, int64 (n, 2), on the device."""
        return torch.from_numpy(np.asarray(self.data.splits[name].pairs.responses_of_pair_N2[pairs])).to(self.device)

    def labelled_pairs(self, name: str, label_n: Array, pairs: Array | slice = slice(None)) -> LabelledPairs:
        """Return pairs of a split with labels; pairs without a label (NaN) are left out."""
        known = torch.from_numpy(~np.isnan(label_n)).to(self.device)
        labels = torch.from_numpy(label_n.astype(np.float32)).to(self.device)
        numbers = torch.arange(len(self.data.splits[name].pairs))[pairs].to(self.device)[known]
        chosen = self.unlabelled[name].take(numbers)
        return LabelledPairs(chosen.features_RD, chosen.responses_N2, labels[known], lambda: chosen.distance_N)


def streamed_splits(
    arrays: Mapping[str, Array], placement: Features, device: torch.device, processes: int = 1
) -> dict[str, np.memmap]:
    """Return the features to stream from disk; with `auto` the largest, until the rest fits into memory."""
    mapped = {name: features_RD for name, features_RD in arrays.items() if can_stream(features_RD)}
    if placement != "auto":
        return mapped if placement == "streamed" else {}
    free_bytes = device_budget(device)
    streamed = {}
    for name in sorted(arrays, key=lambda name: arrays[name].size):
        # On a CPU, mapped float32 features are used without a copy; others are copied in each process.
        shared = device.type == "cpu" and name in mapped and arrays[name].dtype == np.float32
        free_bytes -= 4 * arrays[name].size * (1 if shared else processes)
        if free_bytes < 0 and name in mapped:
            streamed[name] = mapped[name]
    return streamed


def device_budget(device: torch.device) -> int:
    """Return the bytes available for features: half of the memory; on a GPU, free memory minus 25% of all memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free - total // 4
    return usable_memory() // 2
