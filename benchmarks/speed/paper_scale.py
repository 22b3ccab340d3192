"""A late round at the paper's scale, stored on disk, and a process in which one policy selects a batch of the round.

92,000 pairs of 14,700 prompts, D 4096, five members with heads 4096-2048-256-1, 23,680 labels, 320 picks.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from balbench.harness import registry
from balbench.harness.datasets.simulated import Simulated
from balbench.harness.policies.policy import PoolView
from balbench.harness.pool.feature_table import FeatureTable
from balbench.harness.pool.index import PoolIndex
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.heads import Heads
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.streams import stream

LABELS, PICKS, DIMENSION = 23_680, 320, 4096
THREADS = 2


class PrecomputedPosterior:
    """A posterior with rewards and embeddings from disk, so that the selection alone is timed."""

    def __init__(self, directory: Path, features: dict[str, FeatureTable]) -> None:
        self._directory, self._heads = directory, heads()
        self._split_of_table = {id(table): name for name, table in features.items()}

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        return self._load("rewards", features_RD, self._heads.rewards_KR)

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        return self._load("embedding", features_RD, self._heads.embedding_RH)

    def _load(self, name: str, features_RD: FeatureTable, compute: Callable) -> torch.Tensor:
        split = self._split_of_table.get(id(features_RD))
        if split is None:  # a part of a split
            return compute(features_RD)
        return torch.from_numpy(np.load(self._directory / f"{split}-{name}.npy"))


def heads() -> Heads:
    """Heads with weights as large as those of trained heads, so that tanh layers are neither linear nor saturated."""
    return Ensemble(weight_std=0.03).initial_heads(DIMENSION, stream(0, "speed"))


def prepare(directory: Path) -> None:
    """Build the data, the neighbour index, and a posterior's rewards and embeddings, and save them."""
    data = Simulated.model_validate({"preset": "tldr_like", "dimension": DIMENSION}).build(lambda *_: None)
    (directory / "data").mkdir(parents=True)
    data.save(directory / "data")
    model = heads()
    for name in ("pool", "eval"):
        features_RD = torch.from_numpy(data.splits[name].pairs.response_features_RD)
        np.save(directory / f"{name}-rewards.npy", model.rewards_KR(features_RD).numpy())
        np.save(directory / f"{name}-embedding.npy", model.embedding_RH(features_RD).numpy())
    (directory / "index").mkdir()
    len(PoolIndex(data.splits["pool"].pairs, directory / "index").neighbours)


def view_of(directory: Path) -> PoolView:
    """The late round; its features are mapped from disk."""
    data = PreferenceData.load(directory / "data", {})
    device_data = DeviceData(data, torch.device("cpu"), PoolIndex(data.splits["pool"].pairs, directory / "index"))
    order = stream(0, "speed").numpy().permutation(len(device_data.pool.pairs))
    acquired_n, unlabelled_U = order[:LABELS], np.sort(order[LABELS:])
    label_n = device_data.pool.records.first_share_N[acquired_n]
    model = PrecomputedPosterior(directory, device_data.features)
    return PoolView(device_data.index, unlabelled_U, acquired_n, label_n, model, device_data.unlabelled, 74)


class PeakMemory(threading.Thread):
    """The peak of this process's anonymous memory (without mapped features), sampled every 10 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = self.peak_bytes = self._now()
        self._done = threading.Event()

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("RssAnon:")[1].split()[0])

    def run(self) -> None:
        while not self._done.wait(0.01):
            self.peak_bytes = max(self.peak_bytes, self._now())

    def stop(self) -> float:
        """End and return the GiB above the start."""
        self._done.set()
        self.join()
        return (max(self.peak_bytes, self._now()) - self.start_bytes) / 2**30


def select(directory: Path, name: str, settings: dict[str, Any]) -> dict[str, float]:
    """Seconds and GiB (above the features) of one selection, including all that is computed once per round."""
    torch.set_num_threads(THREADS)
    policy = registry.load("policies", name)(**settings)
    view = view_of(directory)
    view.index.neighbours  # noqa: B018 - computed once for all rounds, so not part of a round
    view.index.point_of_pair_N  # noqa: B018
    memory = PeakMemory()
    memory.start()
    started = time.perf_counter()
    selection = policy.select(view, PICKS, stream(0, "policy"))
    seconds = time.perf_counter() - started
    assert len(np.unique(selection.pairs_B)) == PICKS
    return {"seconds": seconds, "GiB": memory.stop()}


if __name__ == "__main__":
    print(json.dumps(select(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))))
