"""A round of a cell: judge the posterior fitted to the labels so far, acquire one batch by it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from balbench.harness.metrics import error_correlations, held_out_metrics, uncertainty_metrics
from balbench.harness.policies.policy import PoolView, Selection
from balbench.harness.pool.pairs import Split
from balbench.harness.posteriors.posterior import (
    FittedPosterior,
    LabelledPairs,
    fit_diagnostics,
    pair_uncertainty,
    sampled_rewards,
)
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.streams import Stream, stream
from balbench.harness.study.cell import Cell
from balbench.harness.uncertainty import Uncertainty

Array = np.ndarray


@dataclass
class _Clock:
    """Seconds of each stage of a round."""

    seconds: dict[str, float]
    _since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._since, 6)
        self._since = now


class Past(NamedTuple):
    """What a cell has done so far: the number of finished rounds and, in order, the pairs that they bought."""

    rounds: int
    acquired_n: Array

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> Past:
        """The past in a cell's records."""
        acquired = [pair for record in records for pair in record["acquired"]]
        return cls(len(records), np.array(acquired, dtype=np.int64))


class CellRun:
    """One cell in progress. Its state is its past acquisitions; everything else is a function of the cell's key."""

    def __init__(self, cell: Cell, data: DeviceData, past: Past | None = None) -> None:
        """Go on after the past: buy again what it bought (the oracle repeats its answers)."""
        self.cell, self.data = cell, data
        self.rounds_done, acquired_n = past or Past(0, np.empty(0, dtype=np.int64))
        self.acquired_n = np.concatenate([self._initial(), acquired_n])
        self.label_n = self._answer(self.acquired_n)

    def _initial(self) -> Array:
        N = len(self.data.pool.pairs)
        if self.cell.policy.acquires_all:
            return np.arange(N)
        noise_N = self.data.index.uniform_N(stream(self.cell.seed, "initial"))
        return np.argsort(-noise_N, kind="stable")[: self.cell.protocol.initial]

    def _answer(self, pairs: Array) -> Array:
        """Ask the oracle; P(first preferred), NaN where it abstains."""
        records = self.data.pool.records.take(pairs)
        return self.cell.oracle.annotate(records, stream(self.cell.seed, "oracle")).target_B

    @property
    def finished(self) -> bool:
        """Whether no round is left."""
        return self.rounds_done == self.cell.rounds

    def labelled(self) -> LabelledPairs:
        """What the posterior of the next round is fitted to."""
        return self.data.labelled_pairs("pool", self.label_n, self.acquired_n)

    def posterior_stream(self) -> Stream:
        """The randomness of the next round's fit."""
        return stream(self.cell.seed, "posterior", self.rounds_done)

    def round(self, model: FittedPosterior, fit_seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """Judge the round's posterior and acquire a batch by it; return the round's record and timings."""
        number, clock = self.rounds_done, _Clock({"fit": round(fit_seconds, 6)})
        metrics = {name: _judge(model, self.data, name) for name in self.data.held_out}
        if diagnostics := fit_diagnostics(model):
            metrics["fit"] = diagnostics
        metrics["buffer"] = _judge_pairs(model, self.data, self.acquired_n, self.label_n)
        clock.lap("evaluate")
        record = {"round": number, "labels": len(self.acquired_n), "metrics": metrics, "acquired": []}
        left_U = np.setdiff1d(np.arange(len(self.data.pool.pairs)), self.acquired_n)
        if number + 1 < self.cell.rounds and len(left_U):
            selection = self._select(model, number, left_U, metrics, clock)
            self.acquired_n = np.concatenate([self.acquired_n, selection.pairs_B])
            self.label_n = np.concatenate([self.label_n, self._answer(selection.pairs_B)])
            metrics["batch"] = self._batch_facts(selection)
            record["acquired"] = selection.pairs_B.tolist()
            clock.lap("select")
        self.rounds_done += 1
        return record, {"round": number, "seconds": clock.seconds}

    def _select(
        self, model: FittedPosterior, number: int, left_U: Array, metrics: dict[str, Any], clock: _Clock
    ) -> Selection:
        policy, data = self.cell.policy, self.data
        view = PoolView(data.index, left_U, self.acquired_n, self.label_n, model, data.unlabelled, number)
        if policy.needs_rewards:
            metrics["pool"] = uncertainty_metrics(view.uncertainty_U)
            clock.lap("score")
        batch_size = min(self.cell.protocol.batch, len(left_U))
        selection = policy.select(view, batch_size, stream(self.cell.seed, "policy", number))
        _check_selection(selection, left_U, batch_size)
        return selection

    def _batch_facts(self, selection: Selection) -> dict[str, float]:
        prompt_N = self.data.pool.pairs.prompt_of_pair_N
        unique = len(np.unique(prompt_N[selection.pairs_B]))
        facts = {
            "unique_prompts": unique,
            "unique_prompt_share": unique / len(selection.pairs_B),
            "unique_prompt_share_of_all": len(np.unique(prompt_N[self.acquired_n])) / len(self.acquired_n),
        }
        return facts | dict(selection.diagnostics)


def _check_selection(selection: Selection, left_U: Array, batch_size: int) -> None:
    if not isinstance(selection, Selection):
        raise TypeError(f"the policy must return a Selection; got {type(selection).__name__}")
    pairs_B = selection.pairs_B
    if not isinstance(pairs_B, Array) or pairs_B.dtype.kind not in "iu" or pairs_B.ndim != 1:
        raise TypeError("the policy must return its pairs as an array of integers (B,)")
    if len(pairs_B) != batch_size or len(np.unique(pairs_B)) != batch_size or not np.isin(pairs_B, left_U).all():
        raise ValueError(f"the policy must return {batch_size} distinct unlabelled pairs")


def _judge(model: FittedPosterior, data: DeviceData, name: str) -> dict[str, float]:
    split: Split = data.data.splits[name]
    rewards_KR = sampled_rewards(model, data.features[name])
    uncertainties = pair_uncertainty(model, data.features[name], data.responses(name), rewards_KR)
    return _metrics(uncertainties, split.records.first_share_N, split.pairs.prompt_of_pair_N)


def _judge_pairs(model: FittedPosterior, data: DeviceData, pairs: Array, label_n: Array) -> dict[str, float]:
    responses_n2 = data.responses("pool", pairs)
    used_R, place = torch.unique(responses_n2, return_inverse=True)
    features = data.features["pool"][used_R]
    uncertainties = pair_uncertainty(model, features, place, sampled_rewards(model, features))
    return _metrics(uncertainties, label_n, data.pool.pairs.prompt_of_pair_N[pairs])


def _metrics(uncertainties: Uncertainty, share_N: Array, prompt_N: Array) -> dict[str, float]:
    judged = held_out_metrics(uncertainties.mean_N.cpu().numpy(), share_N, prompt_N)
    return judged | uncertainty_metrics(uncertainties) | error_correlations(uncertainties, share_N)
