"""The rounds of a cell: fit the posterior on the labels so far, evaluate it, acquire one batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from harness.metrics import error_correlations, held_out_metrics, uncertainty_metrics
from harness.pairs import PreferenceData, Split
from harness.policies.policy import PoolIndex, PoolView, Responses, Selection
from harness.posteriors.posterior import AnsweredPairs, FittedPosterior, pair_uncertainty
from harness.results import CellLog
from harness.streams import stream
from harness.study import Cell
from harness.uncertainty import Uncertainty

Array = np.ndarray


class World:
    """A data set on a device, with what all cells on it share."""

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


@dataclass
class _Clock:
    """Seconds of each stage of a round."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._since, 6)
        self._since = now


class CellRun:
    """One cell in progress. Its state is its past acquisitions; everything else is a function of the cell's key."""

    def __init__(self, cell: Cell, world: World) -> None:
        self.cell, self.world = cell, world
        self.acquired_n = self._initial()
        self.target_n = self._answer(self.acquired_n)

    def _initial(self) -> Array:
        N = len(self.world.pool.pairs)
        if self.cell.policy.acquires_all:
            return np.arange(N)
        noise_N = self.world.index.uniform_N(stream(self.cell.seed, "initial"))
        return np.argsort(-noise_N, kind="stable")[: self.cell.protocol.initial]

    def _answer(self, pairs: Array) -> Array:
        """Ask the oracle; P(first preferred), NaN where it abstains."""
        records = self.world.pool.records.take(pairs)
        return self.cell.oracle.annotate(records, stream(self.cell.seed, "oracle")).target_B

    def replay(self, records: list[dict[str, Any]]) -> None:
        """Go through past rounds: buy again what they bought (the oracle repeats its answers)."""
        past = [pair for record in records for pair in record["acquired"]]
        self._buy(np.array(past, dtype=np.int64))

    def _buy(self, pairs: Array) -> None:
        if len(pairs):
            self.acquired_n = np.concatenate([self.acquired_n, pairs])
            self.target_n = np.concatenate([self.target_n, self._answer(pairs)])

    def round(self, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run one round; return its record and its timings."""
        clock, names = _Clock(), ("posterior", number)
        train = self.world.answered("pool", self.target_n, self.acquired_n)
        model = self.cell.posterior.fit(train, self.world.eval_pairs, stream(self.cell.seed, *names))
        clock.lap("fit")
        metrics = {name: _judge(model, self.world, name) for name in self.world.held_out}
        metrics["buffer"] = _judge_pairs(model, self.world, self.acquired_n, self.target_n)
        clock.lap("evaluate")
        record = {"round": number, "labels": len(self.acquired_n), "metrics": metrics, "acquired": []}
        left_U = np.setdiff1d(np.arange(len(self.world.pool.pairs)), self.acquired_n)
        if number + 1 < self.cell.rounds and len(left_U):
            selection = self._select(model, number, left_U, metrics, clock)
            self._buy(selection.pairs_B)
            metrics["batch"] = self._batch_facts(selection)
            record["acquired"] = selection.pairs_B.tolist()
            clock.lap("select")
        return record, {"round": number, "seconds": clock.seconds}

    def _select(
        self, model: FittedPosterior, number: int, left_U: Array, metrics: dict[str, Any], clock: _Clock
    ) -> Selection:
        policy, world = self.cell.policy, self.world
        view = PoolView(world.index, left_U, self.acquired_n, self.target_n, model, world.unlabelled, number)
        if policy.needs_rewards:
            metrics["pool"] = uncertainty_metrics(view.uncertainty_U)
            clock.lap("score")
        batch_size = min(self.cell.protocol.batch, len(left_U))
        selection = policy.select(view, batch_size, stream(self.cell.seed, "policy", number))
        _check_selection(selection, left_U, batch_size)
        return selection

    def _batch_facts(self, selection: Selection) -> dict[str, float]:
        prompt_N = self.world.pool.pairs.prompt_of_pair_N
        unique = len(np.unique(prompt_N[selection.pairs_B]))
        facts = {
            "unique_prompts": unique,
            "unique_prompt_share": unique / len(selection.pairs_B),
            "unique_prompt_share_of_all": len(np.unique(prompt_N[self.acquired_n])) / len(self.acquired_n),
        }
        return facts | dict(selection.notes)


def _check_selection(selection: Selection, left_U: Array, batch_size: int) -> None:
    pairs_B = selection.pairs_B
    if len(pairs_B) != batch_size or len(np.unique(pairs_B)) != batch_size or not np.isin(pairs_B, left_U).all():
        raise ValueError(f"the policy must return {batch_size} distinct unlabelled pairs")


def _judge(model: FittedPosterior, world: World, name: str) -> dict[str, float]:
    split: Split = world.data.splits[name]
    rewards_KR = model.rewards_KR(world.features[name])
    found = pair_uncertainty(model, world.features[name], world.responses(name), rewards_KR)
    return _metrics(found, split.records.first_share_N)


def _judge_pairs(model: FittedPosterior, world: World, pairs: Array, target_n: Array) -> dict[str, float]:
    responses_n2 = world.responses("pool", pairs)
    used_R, place = torch.unique(responses_n2, return_inverse=True)
    features = world.features["pool"][used_R]
    return _metrics(pair_uncertainty(model, features, place, model.rewards_KR(features)), target_n)


def _metrics(found: Uncertainty, share_N: Array) -> dict[str, float]:
    judged = held_out_metrics(found.mean_N.cpu().numpy(), share_N)
    return judged | uncertainty_metrics(found) | error_correlations(found, share_N)


def run_cell(cell: Cell, world: World, log: CellLog, facts: dict[str, Any], go_on: Callable[[], bool]) -> bool:
    """Run what is left of a cell, a line in its log for each round.

    Args:
        cell: the cell.
        world: its data.
        log: its log, opened and locked.
        facts: what the manifest should say of machine and versions.
        go_on: asked before each round.

    Returns:
        Whether the cell is finished.

    Raises:
        DivergedError: the posterior's loss is not a number.
        RunDirectoryError: the log cannot be written.
        ValueError: a policy or an oracle broke its contract.
    """
    records = log.open()
    run = CellRun(cell, world)
    run.replay(records)
    for number in range(len(records), cell.rounds):
        if not go_on():
            return False
        log.append(*run.round(number))
    log.finish(facts)
    return True
