"""One BAL-PM round, compared with a plain reference of the same work in the same run.

D 384, a pool of 8,000 pairs of 1,600 prompts, 2,240 labels, 320 picks, 5 members, the preset `melo2024`.
Run: tox -e speed -- benchmarks/speed/test_round.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

import reference
from balbench.harness.datasets.simulated import Simulated
from balbench.harness.policies.bal_pm import BalPm
from balbench.harness.policies.policy import PoolView
from balbench.harness.pool.index import PoolIndex
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.heads import Heads
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.streams import stream

LABELS, PICKS = 2_240, 320
TARGETS = {"training": 1.8, "acquisition": 100.0, "all": 2.5}
Seconds = dict[str, dict[str, float]]
T = TypeVar("T")
STAGES = ("training", "evaluation", "scoring", "acquisition")
DATA = Simulated(pool_pairs=8_000, pool_prompts=1_600, eval_pairs=2_000, dimension=384)
CONFIG = Ensemble.model_validate({"preset": "melo2024"})
POLICY = BalPm(variant="as_coded", shift_features=False)  # the counts and radii that the reference computes


class Timer:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def timed(self, stage: str, work: Callable[..., T], *arguments: object) -> T:
        """Run `work` and add its time to a stage."""
        started = time.perf_counter()
        result = work(*arguments)
        self.seconds[stage] += time.perf_counter() - started
        return result


@pytest.fixture(scope="module")
def device_data() -> DeviceData:
    return DeviceData(DATA.build(lambda *_: None), torch.device("cpu"))


@pytest.fixture(scope="module")
def table() -> Iterator[Seconds]:
    """Seconds of reference and balbench, printed at the end."""
    seconds: Seconds = {}
    yield seconds
    print(f"\n\n{torch.get_num_threads()} threads, torch {torch.__version__}; seconds of one round")
    print(f"{'stage':<14}{'reference':>12}{'balbench':>12}{'ratio':>9}{'target':>9}")
    for stage in (*STAGES, "all"):
        slow, fast = (
            sum(stages.values()) if stage == "all" else stages[stage]
            for stages in (seconds["reference"], seconds["balbench"])
        )
        target = f"{TARGETS[stage]:g}" if stage in TARGETS else ""
        print(f"{stage:<14}{slow:>12.3f}{fast:>12.3f}{slow / fast:>9.1f}{target:>9}")
    print(f"{'index, once':<14}{'':>12}{seconds['index']['seconds']:>12.3f}")


def labels_of(device_data: DeviceData) -> tuple[np.ndarray, np.ndarray]:
    order = stream(0, "speed").numpy().permutation(len(device_data.pool.pairs))
    return order[:LABELS], np.sort(order[LABELS:])


def test_reference(benchmark: Any, device_data: DeviceData, table: Seconds) -> None:
    acquired, unlabelled = labels_of(device_data)
    prompts = torch.from_numpy(device_data.pool.pairs.prompt_features_PQ[device_data.pool.pairs.prompt_of_pair_N])
    first, second = (device_data.features["pool"][device_data.responses("pool")[:, side]] for side in (0, 1))
    answer = torch.from_numpy(device_data.pool.records.first_share_N > 0.5)[:, None]
    chosen, rejected = (torch.where(answer, a, b)[acquired] for a, b in ((first, second), (second, first)))
    eval_pairs = [device_data.features["eval"][device_data.responses("eval")[:, side]] for side in (0, 1)]

    def one_round() -> None:
        timer, members = Timer(), []
        evaluate = [lambda model: timer.timed("evaluation", reference.score_pairs, model, *eval_pairs)]
        for _ in range(CONFIG.members):
            model = reference.new_member(384, CONFIG.hidden, CONFIG.weight_std)
            timer.timed("training", reference.train_member, model, chosen, rejected, CONFIG, evaluate)
            members.append(model)
        timer.seconds["training"] -= timer.seconds["evaluation"]  # evaluations are part of training
        p_KN = torch.stack([timer.timed("scoring", reference.score_pairs, m, first, second) for m in members])
        uncertainty = reference.bald(p_KN)[unlabelled]
        arguments = (prompts[unlabelled], prompts[acquired], uncertainty, PICKS, POLICY.k, POLICY.beta)
        timer.timed("acquisition", reference.acquire, *arguments)
        table["reference"] = timer.seconds

    benchmark.pedantic(one_round, rounds=1)


def test_balbench(benchmark: Any, device_data: DeviceData, table: Seconds, monkeypatch: pytest.MonkeyPatch) -> None:
    acquired, unlabelled = labels_of(device_data)
    share_N = device_data.pool.records.first_share_N
    train = device_data.labelled_pairs("pool", share_N[acquired], acquired)
    index = PoolIndex(device_data.pool.pairs)
    building = Timer()
    building.timed("acquisition", lambda: index.neighbours)
    table["index"] = {"seconds": building.seconds["acquisition"]}
    losses = Heads.losses

    def one_round() -> None:
        timer = Timer()
        monkeypatch.setattr(Heads, "losses", lambda *arguments: timer.timed("evaluation", losses, *arguments))
        model = timer.timed("training", CONFIG.fit, train, device_data.eval_pairs, stream(0, "speed"))
        timer.seconds["training"] -= timer.seconds["evaluation"]
        view = PoolView(index, unlabelled, acquired, share_N[acquired], model, device_data.unlabelled, 1)
        timer.timed("scoring", lambda: view.uncertainty_U)
        timer.timed("acquisition", POLICY.select, view, PICKS, stream(0))
        table["balbench"] = timer.seconds

    benchmark.pedantic(one_round, rounds=3, warmup_rounds=1)


def test_both_acquire_the_same_pairs(device_data: DeviceData) -> None:
    """Both do the same work: given the same uncertainty, they pick the same pairs."""
    acquired, unlabelled = labels_of(device_data)
    prompts = torch.from_numpy(device_data.pool.pairs.prompt_features_PQ[device_data.pool.pairs.prompt_of_pair_N])
    uncertainty = torch.from_numpy(stream(0, "uncertainty").numpy().random(len(unlabelled)) * 0.01)
    heads = CONFIG.initial_heads(384, stream(0, "speed"))
    view = PoolView(device_data.index, unlabelled, acquired, np.ones(LABELS), heads, device_data.unlabelled)
    fast = POLICY.fill(view, uncertainty.numpy(), PICKS).pairs_B
    slow = reference.acquire(prompts[unlabelled], prompts[acquired], uncertainty, PICKS, POLICY.k, POLICY.beta)
    np.testing.assert_array_equal(fast, unlabelled[slow])
