"""A round of a cell: evaluate the posterior that is fitted to the labels so far, and acquire one batch."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from balbench.harness.metrics import error_correlations, held_out_metrics, logits, uncertainty_metrics
from balbench.harness.policies.policy import PoolView, Selection
from balbench.harness.posteriors.posterior import (
    FittedPosterior,
    LabelledPairs,
    Posterior,
    fit_diagnostics,
    pair_uncertainty,
    sampled_rewards,
)
from balbench.harness.results.predictions import predicted_splits
from balbench.harness.results.records import FinishedRound, Metrics, RoundRecord
from balbench.harness.rounds.device_data import DeviceData
from balbench.harness.rounds.task import Past
from balbench.harness.streams import Stream, stream
from balbench.harness.study.cell import Cell
from balbench.harness.uncertainty import Uncertainty
from balbench.oracles.annotations import Annotations

Array = np.ndarray


@dataclass
class _Clock:
    """Seconds of each stage of a round."""

    seconds: dict[str, float]
    _since: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now

    def rounded(self) -> dict[str, float]:
        return {stage: round(seconds, 6) for stage, seconds in self.seconds.items()}


class CellRun:
    """A cell in progress. Its only state is its past acquisitions; all else is a function of the cell's key."""

    def __init__(self, cell: Cell, data: DeviceData, past: Past | None = None) -> None:
        """Continue after finished rounds; the oracle repeats its answers for the pairs that they acquired."""
        self.cell, self.data = cell, data
        self.rounds_done, acquired_n = past or Past(0, np.empty(0, dtype=np.int64))
        self.acquired_n = np.concatenate([self._initial(), acquired_n])
        self._answers = self._query(self.acquired_n)

    def _initial(self) -> Array:
        """Return the random initial set; a policy that acquires all pairs starts with the same pairs."""
        noise_N = self.data.index.uniform_N(stream(self.cell.seed, "initial"))
        order_N = np.argsort(-noise_N, kind="stable")
        return order_N if self.cell.policy.acquires_all else order_N[: self.cell.protocol.initial]

    @cached_property
    def posterior(self) -> Posterior:
        """The posterior with its automatic settings, which depend on the initial set only (see `Posterior.tuned`)."""
        first = slice(self.cell.protocol.initial)
        initial = self.data.labelled_pairs("pool", self.label_n[first], self.acquired_n[first])
        return self.cell.posterior.tuned(initial, self.data.eval_pairs)

    def _query(self, pairs: Array) -> Annotations:
        records = self.data.pool.records.take(pairs)
        return self.cell.oracle.annotate(records, stream(self.cell.seed, "oracle"))

    @property
    def label_n(self) -> Array:
        """P(first preferred) of each acquired pair, NaN where the oracle abstained."""
        return self._answers.label_B

    @property
    def finished(self) -> bool:
        """Whether all rounds are done."""
        return self.rounds_done == self.cell.rounds

    def labelled(self) -> LabelledPairs:
        """Return the labelled pairs for the posterior of the next round."""
        return self.data.labelled_pairs("pool", self.label_n, self.acquired_n)

    def posterior_stream(self) -> Stream:
        """Return the stream of the next round's fit."""
        return stream(self.cell.seed, "posterior", self.rounds_done)

    def round(self, model: FittedPosterior, fit_seconds: float) -> FinishedRound:
        """Evaluate the round's posterior and acquire a batch with it."""
        number, clock = self.rounds_done, _Clock({"fit": round(fit_seconds, 6)})
        metrics, probabilities = _evaluate(model, self.data)
        if diagnostics := fit_diagnostics(model):
            metrics["fit"] = diagnostics
        clock.lap("evaluate")
        record: RoundRecord = {"round": number, "labels": len(self.acquired_n), "metrics": metrics, "acquired": []}
        view = self._view(model)
        acquires = number + 1 < self.cell.rounds and len(view.unlabelled_U) > 0
        if acquires and self.cell.policy.needs_rewards:
            metrics["pool"] = uncertainty_metrics(view.uncertainty_U)
            clock.lap("score")
        metrics["buffer"] = self._buffer_metrics(view)
        clock.lap("evaluate")
        if acquires:
            record["acquired"] = self._acquire(view, metrics)
            clock.lap("select")
        self.rounds_done += 1
        stored = {name: logits(probabilities[name]).astype(np.float16) for name in predicted_splits(probabilities)}
        return FinishedRound(record, {"round": number, "seconds": clock.rounded()}, stored)

    def _view(self, model: FittedPosterior) -> PoolView:
        unlabelled_U = np.setdiff1d(np.arange(len(self.data.pool.pairs)), self.acquired_n)
        return PoolView(
            self.data.index,
            unlabelled_U,
            self.acquired_n,
            self.label_n,
            model,
            self.data.unlabelled,
            self.rounds_done,
        )

    def _acquire(self, view: PoolView, metrics: dict[str, dict[str, float]]) -> list[int]:
        """Select a batch, acquire its labels and store facts about the batch in `metrics`; return the pairs."""
        batch_size = min(self.cell.protocol.batch, len(view.unlabelled_U))
        selection = self.cell.policy.select(view, batch_size, stream(self.cell.seed, "policy", self.rounds_done))
        _check_selection(selection, view.unlabelled_U, batch_size)
        self.acquired_n = np.concatenate([self.acquired_n, selection.pairs_B])
        self._answers = self._answers.followed_by(self._query(selection.pairs_B))
        metrics["batch"] = self._batch_facts(selection)
        return selection.pairs_B.tolist()

    def _buffer_metrics(self, view: PoolView) -> dict[str, float]:
        """Return metrics on the labelled pairs, and the cost of their labels.

        If the policy needs rewards of the pool, these rewards are used in all rounds, also in the last round, which
        acquires nothing: rewards that are computed for the labelled pairs only can differ in the last bits.
        """
        pairs, used_R = view.pairs(self.acquired_n).on_used_responses()
        reuses = self.cell.policy.needs_rewards
        rewards_KR = view.rewards_KR[:, used_R] if reuses else sampled_rewards(view.model, pairs.features_RD)
        uncertainties = pair_uncertainty(view.model, pairs, rewards_KR)
        prompt_n = self.data.pool.pairs.prompt_of_pair_N[self.acquired_n]
        return _metrics(uncertainties, self.label_n, prompt_n) | self._answers.totals()

    def _batch_facts(self, selection: Selection) -> dict[str, float]:
        prompt_N = self.data.pool.pairs.prompt_of_pair_N
        unique = len(np.unique(prompt_N[selection.pairs_B]))
        facts = {
            "unique_prompts": unique,
            "unique_prompt_share": unique / len(selection.pairs_B),
            "unique_prompt_share_of_all": len(np.unique(prompt_N[self.acquired_n])) / len(self.acquired_n),
        }
        facts |= self.data.pool_distances.facts(selection.pairs_B)
        return facts | _score_facts(selection.scores_B) | dict(selection.diagnostics)


def _score_facts(scores_B: Array) -> dict[str, float]:
    """Return mean and range of the finite scores of a batch."""
    scores_B = np.asarray(scores_B, dtype=np.float64)
    finite_b = scores_B[np.isfinite(scores_B)]
    if not len(finite_b):
        return {}
    summary = {"score_mean": finite_b.mean(), "score_min": finite_b.min(), "score_max": finite_b.max()}
    return {name: float(value) for name, value in summary.items()}


def _check_selection(selection: Selection, left_U: Array, batch_size: int) -> None:
    if not isinstance(selection, Selection):
        raise TypeError(f"the policy must return a Selection; got {type(selection).__name__}")
    pairs_B = selection.pairs_B
    if not isinstance(pairs_B, Array) or pairs_B.dtype.kind not in "iu" or pairs_B.ndim != 1:
        raise TypeError("the policy must return its pairs as an array of integers (B,)")
    if len(pairs_B) != batch_size or len(np.unique(pairs_B)) != batch_size or not np.isin(pairs_B, left_U).all():
        raise ValueError(f"the policy must return {batch_size} distinct unlabelled pairs")
    for name, value in selection.diagnostics.items():
        if not isinstance(value, int | float):
            raise TypeError(f"the policy's diagnostics contain {name!r}: {value!r}; give names and numbers")


def _evaluate(model: FittedPosterior, data: DeviceData) -> tuple[Metrics, dict[str, Array]]:
    """Return the metrics of each held-out split, and the predicted P(first preferred) of its pairs."""
    metrics, probabilities = {}, {}
    for name in data.held_out:
        rewards_KR = sampled_rewards(model, data.features[name])
        uncertainties = pair_uncertainty(model, data.unlabelled[name], rewards_KR)
        split = data.data.splits[name]
        metrics[name] = _metrics(uncertainties, split.records.first_share_N, split.pairs.prompt_of_pair_N)
        probabilities[name] = uncertainties.mean_N.cpu().numpy()
    return metrics, probabilities


def _metrics(uncertainties: Uncertainty, share_N: Array, prompt_N: Array) -> dict[str, float]:
    judged = held_out_metrics(uncertainties.mean_N.cpu().numpy(), share_N, prompt_N)
    return judged | uncertainty_metrics(uncertainties) | error_correlations(uncertainties, share_N)
