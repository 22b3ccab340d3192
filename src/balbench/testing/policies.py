"""The contract of policies (see `balbench.harness.policies.policy.Policy`), as a check of one policy."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from balbench.harness.policies.policy import Policy, PoolView, Selection
from balbench.harness.pool.contents import Contents
from balbench.harness.streams import Stream, stream
from balbench.testing.contract import Subject, fingerprint, same
from balbench.testing.examples import on_disk, pool_of, reordered_view, view_of

Array = np.ndarray
StorageOrder = Literal["same_batch", "same_pairs", "ignored"]
STREAM = stream(3, "policy", 1)
BATCH = 6
PROMPTS = 8  # prompts of an example pool, with three pairs each
TABLES = frozenset({"response_log_perplexity_R", "response_token_entropy_R"})


def check_policy(
    policy: Policy,
    *,
    views: Mapping[str, PoolView] | None = None,
    storage_order: StorageOrder = "same_batch",
    nested: bool = False,
) -> None:
    """Check all promises of a policy on small rounds.

    The batch is ordered, holds unlabelled pairs only and none twice, and has the right size, also in the last round.
    The batch is the same for the same stream, after other calls and in another process. `select` changes neither the
    view nor a global random generator. Scores are within `score_range`, and diagnostics are finite.

    Args:
        policy: with the settings to check.
        views: rounds by name; by default those of `example_views`.
        storage_order: what stays the same if pairs, responses and prompts are stored in another order: the ordered
            batch, the pairs of the batch (for scores that depend on the order of a sum), or nothing.
        nested: whether a larger batch begins with the smaller one.

    Raises:
        ContractError: a promise is broken; the message says which, with which input, and the remedy.
    """
    checks = _PolicyChecks(policy)
    checks.describes_itself()
    rounds = example_views() if views is None else dict(views)
    if views is None:
        checks.accepts_complete_data()
    for name, view in rounds.items():
        checks.fills_batches(name, view)
        checks.repeats_itself(name, view)
    first = next(iter(rounds.items()))
    checks.reads_features_from_disk(*first)
    checks.works_in_another_process(*first)
    if nested:
        checks.continues_smaller_batches(*first)
    checks.ignores_storage_order(storage_order, rounds if views is not None else {"no ties": _round_without_ties()})


def example_views() -> dict[str, PoolView]:
    """Return rounds by name: first a plain round, then rounds that are rare in real studies."""
    abstentions = view_of(pool_of(PROMPTS))
    abstentions.label_n[::2] = np.nan
    few_left = pool_of(PROMPTS)
    return {
        "plain": view_of(pool_of(PROMPTS)),
        "one prompt": view_of(pool_of(prompts=1, responses=8)),
        "constant features": view_of(pool_of(PROMPTS, constant=True)),
        "duplicate prompts": view_of(pool_of(PROMPTS, twins=True)),
        "one feature": view_of(pool_of(PROMPTS, dimension=1)),
        "one posterior sample": view_of(pool_of(PROMPTS), members=1),
        "nothing acquired": view_of(pool_of(PROMPTS), acquired=0),
        "abstentions": abstentions,
        "three pairs left": view_of(few_left, acquired=len(few_left) - 3),
    }


def _round_without_ties() -> PoolView:
    return view_of(pool_of(prompts=40, responses=2))


class _PolicyChecks:
    """The promises of one policy; each method checks one of them and raises ContractError."""

    def __init__(self, policy: Policy) -> None:
        self.subject, self.policy = Subject(policy), policy

    def describes_itself(self) -> None:
        self.subject.require_class(Policy)
        for name in ("family", "source", "cost"):
            self.subject.require(
                getattr(self.policy, name), f"has no {name}", "the class", f"set the class attribute {name}"
            )

    def accepts_complete_data(self) -> None:
        contents = Contents(("pool", "eval", "test", "ood"), TABLES)
        self.subject.call("data that have all splits and tables", self.policy.check_data, contents)

    def fills_batches(self, name: str, view: PoolView) -> None:
        unlabelled = len(view.unlabelled_U)
        for batch_size in sorted({1, min(7, unlabelled), unlabelled}):
            self.select(name, view, batch_size)

    def repeats_itself(self, name: str, view: PoolView) -> None:
        batch_size = min(BATCH, len(view.unlabelled_U))
        first = self.select(name, view, batch_size)
        self.select(name, replace(view, round=view.round + 1), batch_size, stream(4, "policy", 2))
        self._require_equal(
            first,
            self.select(name, view, batch_size),
            "gives two answers to the same view and stream",
            f"the round {name!r}, batch_size {batch_size}",
            "draw all random numbers from the stream, and keep nothing between calls",
        )

    def reads_features_from_disk(self, name: str, view: PoolView) -> None:
        batch_size = min(BATCH, len(view.unlabelled_U))
        with tempfile.TemporaryDirectory() as directory:
            splits = {
                split: replace(responses, features_RD=on_disk(responses.features_RD, Path(directory)))
                for split, responses in view.splits.items()
            }
            streamed = self.select(f"{name}, features on disk", replace(view, splits=splits), batch_size)
        self._require_equal(
            self.select(name, view, batch_size),
            streamed,
            "gives another batch where features are read from disk",
            f"the round {name!r}, batch_size {batch_size}",
            "read features by blocks or rows (features_RD.split(...), features_RD[rows])",
        )

    def continues_smaller_batches(self, name: str, view: PoolView) -> None:
        large_size = min(9, len(view.unlabelled_U))
        large, small = (self.select(name, view, size) for size in (large_size, max(1, large_size // 3)))
        self.subject.require(
            same(large.pairs_B[: len(small.pairs_B)], small.pairs_B),
            "a larger batch does not begin with the smaller one",
            f"the round {name!r}, batch sizes {len(small.pairs_B)} and {large_size}",
            "make no choice depend on batch_size, or pass nested=False",
        )

    def ignores_storage_order(self, promise: StorageOrder, rounds: Mapping[str, PoolView]) -> None:
        for name, view in rounds.items():
            other, order = reordered_view(view, seed=5)
            batch_size = min(BATCH, len(view.unlabelled_U))
            expected = self.select(name, view, batch_size).pairs_B
            reordered = order[self.select(f"{name}, stored in another order", other, batch_size).pairs_B]
            if promise == "same_pairs":
                expected, reordered = np.sort(expected), np.sort(reordered)
            self.subject.require(
                promise == "ignored" or np.array_equal(expected, reordered),
                "gives another batch where the pool is stored in another order",
                f"the round {name!r}, batch_size {batch_size}",
                "draw noise by view.uniform_U(stream) and break ties by view.index.rank_N, or pass storage_order",
            )

    def works_in_another_process(self, name: str, view: PoolView) -> None:
        batch_size = min(BATCH, len(view.unlabelled_U))
        given = f"the round {name!r}, batch_size {batch_size}"
        local = self.select(name, view, batch_size)
        remote = self.subject.call_in_another_process(given, _selected, replace(view), batch_size, STREAM)
        self._require_equal(
            local, remote, "gives another batch in another process", given, "draw random numbers from the stream only"
        )

    def select(self, name: str, view: PoolView, batch_size: int, stream: Stream = STREAM) -> Selection:
        """Select from a fresh copy of a view; check the selection and that the view did not change."""
        view, given = replace(view), f"the round {name!r}, batch_size {batch_size}"
        before = fingerprint(_arrays(view))
        selection = self.subject.call(given, self.policy.select, view, batch_size, stream)
        changed = [name for name, value in fingerprint(_arrays(view)).items() if before[name] != value]
        changed += [name for name in _computed(view) if not same(getattr(view, name), getattr(replace(view), name))]
        self.subject.require(
            not changed, f"select changes {', '.join(changed)} of the view", given, "work on a copy of the array"
        )
        self.subject.require(
            self.policy.needs_rewards or "rewards_KR" not in vars(view),
            "uses posterior rewards although needs_rewards is False",
            given,
            "set needs_rewards = True",
        )
        self._require_valid(selection, view, batch_size, given)
        return selection

    def _require_valid(self, selection: Selection, view: PoolView, batch_size: int, given: str) -> None:
        require = self.subject.require
        require(
            isinstance(selection, Selection),
            f"select returns {type(selection).__name__}",
            given,
            "return Selection(pairs_B, scores_B)",
        )
        for name, kinds in (("pairs_B", "iu"), ("scores_B", "f")):
            array = getattr(selection, name)
            require(
                isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in kinds,
                f"{name} is not an array of {'integers' if name == 'pairs_B' else 'floats'} with one axis",
                given,
                "return numpy arrays with one entry per pair",
            )
            require(
                len(array) == batch_size,
                f"{name} has {len(array)} entries",
                given,
                "return batch_size pairs, each with a score",
            )
        pairs, counts = np.unique(selection.pairs_B, return_counts=True)
        require(
            counts.max(initial=1) == 1,
            f"the batch holds pair {pairs[counts.argmax()] if len(pairs) else ''} {counts.max(initial=1)} times",
            given,
            "return each pair once",
        )
        others = pairs[~np.isin(pairs, view.unlabelled_U)]
        require(
            not len(others),
            f"the batch holds pair {others[:1]} that is not unlabelled",
            given,
            "return elements of view.unlabelled_U, not positions in it",
        )
        self._require_finite(selection, given)

    def _require_finite(self, selection: Selection, given: str) -> None:
        low, high = self.policy.score_range
        scores = selection.scores_B
        self.subject.require(
            np.isfinite(scores).all(), "scores are not finite", given, "check the formula at its limits"
        )
        self.subject.require(
            scores.min(initial=np.inf) >= low - 1e-6 and scores.max(initial=-np.inf) <= high + 1e-6,
            f"scores reach from {scores.min(initial=np.inf):.6g} to {scores.max(initial=-np.inf):.6g}",
            given,
            f"keep them within score_range, which is [{low:.6g}, {high:.6g}]",
        )
        invalid = [name for name, value in selection.diagnostics.items() if not _is_finite_number(value)]
        self.subject.require(
            not invalid, f"diagnostics {invalid} are not finite numbers", given, "give floats, or omit them"
        )

    def _require_equal(self, first: Selection, second: Selection, broken: str, given: str, remedy: str) -> None:
        equal = same(first.pairs_B, second.pairs_B) and same(first.scores_B, second.scores_B)
        self.subject.require(equal, broken, given, remedy)


def _selected(policy: Policy, view: PoolView, batch_size: int, stream: Stream) -> Selection:
    return policy.select(view, batch_size, stream)


def _is_finite_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _computed(view: PoolView) -> list[str]:
    """Return the names of the tensors that the view has computed."""
    return [name for name in ("rewards_KR", "embedding_RH") if name in vars(view)]


def _arrays(view: PoolView) -> dict[str, Any]:
    """Return all arrays of a view that need no computation, by name."""
    arrays: dict[str, Any] = {name: getattr(view, name) for name in ("unlabelled_U", "acquired_n", "label_n")}
    arrays |= {f"pool.{item.name}": getattr(view.pool, item.name) for item in fields(view.pool)}
    arrays |= {"index.rank_N": view.index.rank_N}
    for split, responses in view.splits.items():
        arrays |= {f"splits[{split!r}].{item.name}": getattr(responses, item.name) for item in fields(responses)}
    return arrays
