"""BAL-PM's acquisition: comparison with a plain reference, growth with the pool, and the neighbour index.

D 384, one thread as in a worker. `published` and `as_coded` are timed at the paper's number of prompts.
Run: tox -e speed -- benchmarks/speed/test_acquisition.py (about five minutes, mostly for the references)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import reference
from balbench.harness.datasets.simulated import Simulated
from balbench.harness.policies.bal_pm import BalPm
from balbench.harness.policies.policy import PoolView
from balbench.harness.pool.index import PoolIndex, Responses
from balbench.harness.pool.neighbours import nearest_neighbours
from balbench.harness.pool.pairs import PreferencePool
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.streams import stream

PICKS, DIMENSION, PAIRS_A_PROMPT = 320, 384, 92_000 / 14_700
AS_CODED = BalPm(variant="as_coded", shift_features=False)  # the counts and radii that the reference computes
VARIANTS: dict[str, BalPm] = {
    "published": BalPm(),
    "as_coded, no shift": AS_CODED,
    "as_coded": BalPm(variant="as_coded"),
    "KL": BalPm(estimator="kl"),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pool_of(pairs: int, prompts: int | None = None) -> PreferencePool:
    """A simulated pool with the paper's ratio of pairs to prompts."""
    prompts = prompts or round(pairs / PAIRS_A_PROMPT)
    settings = {"pool_pairs": pairs, "pool_prompts": prompts, "dimension": DIMENSION}
    held_out = {"eval_pairs": 100, "test_pairs": 100, "ood_pairs": 100}
    return Simulated(**settings, **held_out).build(lambda *_: None).splits["pool"].pairs


def round_of(pool: PreferencePool, labels: int) -> PoolView:
    """A round with `labels` acquired pairs; its index and uncertainties are computed already."""
    order = stream(0, "speed").numpy().permutation(len(pool))
    heads = Ensemble(hidden=(64,), weight_std=0.1).initial_heads(DIMENSION, stream(0, "speed"))
    features_RD, responses_N2 = map(torch.from_numpy, (pool.response_features_RD, pool.responses_of_pair_N2))
    splits = {"pool": Responses(features_RD, responses_N2)}
    view = PoolView(PoolIndex(pool), np.sort(order[labels:]), order[:labels], np.ones(labels), heads, splits)
    view.index.point_of_pair_N  # noqa: B018 - computed once for all rounds
    view.uncertainty_U  # noqa: B018 - scoring, not acquisition
    return view


@pytest.fixture(scope="module")
def late_round() -> PoolView:
    return round_of(pool_of(92_000, 14_700), 12_000)


@pytest.mark.parametrize("name", VARIANTS)
def test_one_batch_at_the_papers_number_of_prompts(benchmark: Any, late_round: PoolView, name: str) -> None:
    arguments = (late_round, PICKS, stream(0))
    selection = benchmark.pedantic(VARIANTS[name].select, args=arguments, rounds=3, warmup_rounds=1)
    assert len(selection.pairs_B) == PICKS


def test_against_the_reference_at_20_000_pairs(benchmark: Any) -> None:
    view = round_of(pool_of(20_000), 2_240)
    prompts = torch.from_numpy(view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N])
    unlabelled, acquired = (prompts[torch.from_numpy(pairs)] for pairs in (view.unlabelled_U, view.acquired_n))
    uncertainty = torch.from_numpy(view.epistemic_U)
    plain: list[int] = []
    slow = reference.shortest(
        lambda: plain.extend(reference.acquire(unlabelled, acquired, uncertainty, PICKS, AS_CODED.k, AS_CODED.beta)), 1
    )
    selection = benchmark.pedantic(AS_CODED.select, args=(view, PICKS, stream(0)), rounds=5, warmup_rounds=1)
    fast = reference.shortest(lambda: AS_CODED.select(view, PICKS, stream(0)), 5)
    print(f"\n320 of 20,000 pairs: reference {slow:.1f} s, balbench {fast:.4f} s, {slow / fast:.0f} times (target 500)")
    np.testing.assert_array_equal(selection.pairs_B, view.unlabelled_U[plain])


def test_growth_with_the_pool(benchmark: Any) -> None:
    sizes = (10_000, 20_000, 40_000, 80_000, 160_000)
    table: dict[str, list[float]] = {"published": [], "as_coded, no shift": []}
    for size in sizes:
        view = round_of(pool_of(size), 2_240)
        for name, times in table.items():
            times.append(reference.shortest(partial(VARIANTS[name].select, view, PICKS, stream(0)), 5))
    print("\nseconds of a batch of 320, D 384")
    for name, times in table.items():
        exponent = math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0])
        row = ", ".join(f"{size:,}: {t:.4f}" for size, t in zip(sizes, times, strict=True))
        print(f"{name}: {row}; grows like N^{exponent:.2f} (target at most 1.2)")
    benchmark.pedantic(BalPm().select, args=(view, PICKS, stream(0)), rounds=3)


def test_index_of_20_000_prompts(benchmark: Any) -> None:
    points_XQ = torch.from_numpy(pool_of(20_000, 20_000).prompt_features_PQ)
    width = 64
    neighbours, distances = benchmark.pedantic(nearest_neighbours, args=(points_XQ, width), rounds=1)
    fast = reference.shortest(lambda: nearest_neighbours(points_XQ, width), 1)
    plain: list[tuple[torch.Tensor, torch.Tensor]] = []
    slow = reference.shortest(lambda: plain.append(reference.sorted_neighbours(points_XQ, width)), 1)
    print(
        f"\nindex of 20,000 prompts: reference {slow:.1f} s, balbench {fast:.1f} s, {slow / fast:.1f} times (target 10)"
    )
    np.testing.assert_array_equal(distances, plain[0][0].numpy())
    np.testing.assert_array_equal(neighbours, plain[0][1].numpy())
