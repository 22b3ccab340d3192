"""Training one round as a batched program, compared with the same work in plain torch.nn, one network after another.

Ensembles and MC dropout train five networks; the plain epinet computes its indices one after another. Neither side
evaluates during training. Run: tox -e speed -- benchmarks/speed/test_training.py (about five minutes)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import reference
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.epinet import Epinet
from balbench.harness.posteriors.mc_dropout import McDropout
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.streams import stream

EPOCHS = {"epochs": 4, "evaluate_every": 10**9}
HEADS: dict[str, tuple[int, tuple[int, ...], int, float]] = {
    # dimension, hidden, labels, target
    "64-128-32-1": (64, (128, 32), 960, 4.0),
    "384-2048-256-1": (384, (2048, 256), 2240, 1.8),
    "4096-2048-256-1": (4096, (2048, 256), 640, 1.8),
}
POSTERIORS: dict[str, type[Ensemble] | type[Epinet]] = {"ensemble": Ensemble, "mc_dropout": McDropout, "epinet": Epinet}
Table = dict[tuple[str, str], dict[str, float]]


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """Seconds of the plain version and of balbench, printed at the end."""
    measured: Table = {}
    yield measured
    print(f"\n\n{torch.get_num_threads()} threads, torch {torch.__version__}; seconds to train one round")
    print("| posterior | head | labels | plain | balbench | ratio | target |")
    print("|---|---|---|---|---|---|---|")
    for (posterior, head), seconds in measured.items():
        labels, target = HEADS[head][2:]
        plain, batched = seconds["plain"], seconds["balbench"]
        print(f"| {posterior} | {head} | {labels} | {plain:.2f} | {batched:.2f} | {plain / batched:.1f} | {target:g} |")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", POSTERIORS)
def test_training(benchmark: Any, table: Table, name: str, head: str) -> None:
    dimension, hidden, labels, _ = HEADS[head]
    settings: dict[str, Any] = {"hidden": hidden, **EPOCHS} | ({} if name == "epinet" else {"members": 5})
    config = POSTERIORS[name](**settings, **({"samples": 5} if name == "mc_dropout" else {}))
    features_RD = torch.randn(2 * labels, dimension, generator=stream(0, "features").torch())
    pairs = LabelledPairs(features_RD, torch.arange(2 * labels).view(labels, 2), torch.ones(labels))
    few = LabelledPairs(features_RD[:2], pairs.responses_n2[:1], pairs.label_n[:1])
    plain = {
        "ensemble": reference.train_ensemble,
        "mc_dropout": reference.train_dropout,
        "epinet": reference.train_epinet,
    }
    first_nD, second_nD = features_RD[0::2], features_RD[1::2]
    repeats = 5 if head == "64-128-32-1" else 2
    benchmark.pedantic(config.fit, args=(pairs, few, stream(0)), rounds=repeats, warmup_rounds=1)
    table[name, head] = {
        "plain": reference.shortest(lambda: plain[name](first_nD, second_nD, config), repeats),
        "balbench": benchmark.stats.stats.min,
    }
