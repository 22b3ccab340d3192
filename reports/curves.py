"""Learning curves: a metric against the number of labels, as matrices of seeds x rounds.

Seeds of an unfinished run have different numbers of rounds. A curve then keeps the rectangle of seeds x rounds with the
most values: a finished run is kept whole, and a cell that has only begun does not shorten all others. The curve records
its seeds and rounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from balbench.harness.errors import BalbenchError, shortened

MOST_NUMBER = 2.0**63  # seeds and rounds are below this number
NUMBER_KINDS = "biufO"  # kinds of numpy types; a conversion of texts and complex numbers to floats would succeed
KEYS = ["setting", "policy", "split", "metric"]


class Curve:
    """One metric of one policy against the number of labels, for S seeds and T rounds.

    Args:
        labels: labels acquired before the model of each round was fitted, initial set included, shape (T,); above 0
            and ascending, each once. The mean over seeds where an oracle's abstentions make seeds differ.
        values: the metric in its own unit, shape (S, T): nats for log-likelihood, shares for accuracy.
        seeds: the seed of each row, shape (S,), each once; 0, 1, ... by default. Two curves are paired by their seeds.
        rounds: the round of each column, shape (T,), each once; 0, 1, ... by default.
        pair_errors: the standard error of each value over the held-out pairs, shape (S, T), at least 0, if known.

    Attributes:
        labels_T, values_ST, seeds_S, rounds_T: the arguments as arrays.
        pair_errors_ST: the argument as an array, or None.

    Raises:
        BalbenchError: a shape is wrong, a value is masked or not finite, labels do not ascend, a seed or round is not a
            whole number or occurs twice, or an error is negative.
    """

    def __init__(
        self,
        labels: ArrayLike,
        values: ArrayLike,
        *,
        seeds: ArrayLike | None = None,
        rounds: ArrayLike | None = None,
        pair_errors: ArrayLike | None = None,
    ) -> None:
        self.labels_T, self.values_ST = _array("labels", labels, 1), _array("values", values, 2)
        S, T = self.values_ST.shape
        _check_labels(self.labels_T, T)
        self.seeds_S: np.ndarray = np.arange(S) if seeds is None else _numbers("seeds", seeds)
        self.rounds_T: np.ndarray = np.arange(T) if rounds is None else _numbers("rounds", rounds)
        self.pair_errors_ST = None if pair_errors is None else _array("pair_errors", pair_errors, 2)
        _check_length("seeds", self.seeds_S, (S,), "one for each row of values")
        _check_length("rounds", self.rounds_T, (T,), "one for each column of values")
        if self.pair_errors_ST is not None:
            _check_length("pair_errors", self.pair_errors_ST, (S, T), "the shape of values")
            if (self.pair_errors_ST < 0).any():
                raise BalbenchError("pair_errors: some are negative; give standard errors")

    def __repr__(self) -> str:
        S, T = self.values_ST.shape
        return f"Curve({S} seeds, {T} rounds, {self.labels_T[0]:g} to {self.labels_T[-1]:g} labels)"

    @cached_property
    def mean_T(self) -> np.ndarray:
        """Mean over seeds at each round, shape (T,)."""
        return self.values_ST.mean(axis=0)

    @cached_property
    def standard_error_T(self) -> np.ndarray:
        """Standard error of the mean over seeds (ddof 1), shape (T,); NaN with a single seed."""
        seeds = len(self.seeds_S)
        if seeds < 2:
            return np.full(len(self.labels_T), np.nan)
        return self.values_ST.std(axis=0, ddof=1) / np.sqrt(seeds)

    def at(self, labels_H: np.ndarray) -> np.ndarray:
        """Interpolate the values of each seed linearly between rounds, shape (S, H); constant beyond the ends."""
        right_H = np.clip(np.searchsorted(self.labels_T, labels_H), 1, max(len(self.labels_T) - 1, 1))
        if len(self.labels_T) == 1:
            return np.repeat(self.values_ST, len(labels_H), axis=1)
        before_H, after_H = self.labels_T[right_H - 1], self.labels_T[right_H]
        width_H = np.maximum(after_H - before_H, np.finfo(float).tiny)
        share_H = np.clip((labels_H - before_H) / width_H, 0, 1)
        return (1 - share_H) * self.values_ST[:, right_H - 1] + share_H * self.values_ST[:, right_H]


def check_run(run: object) -> None:
    """Check that a caller gave a run.

    Raises:
        BalbenchError: the argument is not a run.
    """
    if not hasattr(run, "curves"):
        raise BalbenchError(f"run: must be a run, not {shortened(repr(run))}; give balbench.read_run(PATH)")


def chosen(name: str, value: str | None, values: Iterable[str]) -> str:
    """Return a value if a run has it, or the first of the run's values in place of None.

    Raises:
        BalbenchError: the run has no values yet, or not this one; the message names the nearest.
    """
    choices = list(dict.fromkeys(values))
    if not choices:
        raise BalbenchError(f"{name}: the run has no results yet; wait for its first rounds")
    if value is None:
        return choices[0]
    if value not in choices:
        near = [f"did you mean {choice!r}? " for choice in get_close_matches(str(value), choices, 1)]
        listed = ", ".join(map(repr, choices))
        message = f"{name}: {shortened(repr(value))} has no learning curves; {''.join(near)}choose one of: {listed}"
        raise BalbenchError(message, setting=name)
    return value


def _array(name: str, values: ArrayLike, axes: int) -> np.ndarray:
    shape = "seeds x rounds" if axes == 2 else "one row"
    try:
        given = np.asanyarray(values)
        if given.dtype.kind not in NUMBER_KINDS:
            raise TypeError
        array = np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise BalbenchError(f"{name}: not an array of numbers with rows of equal length; give {shape}") from None
    if np.ma.is_masked(given):
        raise BalbenchError(f"{name}: has masked values; leave their rounds or seeds out")
    if array.ndim != axes or not array.size:
        raise BalbenchError(f"{name}: has the shape {array.shape}; give {shape}, with at least one number")
    if not np.isfinite(array).all():
        index = ", ".join(str(number) for number in np.argwhere(~np.isfinite(array))[0])
        raise BalbenchError(f"{name}: is {array[~np.isfinite(array)][0]} at index [{index}]; give finite numbers")
    return array


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Return seeds or rounds as integers; curves are matched by them, so each occurs once."""
    array = _array(name, values, 1)
    if (array != np.rint(array)).any() or np.abs(array).max() >= MOST_NUMBER:
        raise BalbenchError(f"{name}: must be whole numbers below 2**63")
    integers = np.array(values, dtype=np.int64)  # directly: floats round integers above 2**53
    if len(np.unique(integers)) < len(integers):
        raise BalbenchError(f"{name}: a number occurs twice in {shortened(str(integers.tolist()))}; remove one")
    return integers


def _check_labels(labels_T: np.ndarray, T: int) -> None:
    _check_length("labels", labels_T, (T,), "one for each column of values")
    if labels_T[0] <= 0 or (np.diff(labels_T) <= 0).any():
        raise BalbenchError(
            "labels: must be above 0 and ascending, each once; sort labels and columns of values together"
        )


def _check_length(name: str, array: np.ndarray, shape: tuple[int, ...], meaning: str) -> None:
    if array.shape != shape:
        raise BalbenchError(f"{name}: has the shape {array.shape} where values need {shape}; give {meaning}")


@dataclass(frozen=True)
class _Table:
    """The values of one key as matrices of seeds x rounds, both ascending; NaN where a value is missing."""

    seeds_S: np.ndarray
    rounds_T: np.ndarray
    labels_ST: np.ndarray
    values_ST: np.ndarray

    def at(self, seeds_S: np.ndarray, rounds_T: np.ndarray) -> _Table:
        """Select seeds and rounds; values of seeds and rounds that the table lacks are NaN."""
        if np.array_equal(seeds_S, self.seeds_S) and np.array_equal(rounds_T, self.rounds_T):
            return self
        known_ST = np.isin(seeds_S, self.seeds_S)[:, None] & np.isin(rounds_T, self.rounds_T)
        rows = np.minimum(np.searchsorted(self.seeds_S, seeds_S), len(self.seeds_S) - 1)
        columns = np.minimum(np.searchsorted(self.rounds_T, rounds_T), len(self.rounds_T) - 1)
        cells = np.ix_(rows, columns)
        labels_ST, values_ST = (np.where(known_ST, array[cells], np.nan) for array in (self.labels_ST, self.values_ST))
        return _Table(seeds_S, rounds_T, labels_ST, values_ST)


class Curves:
    """All learning curves of a run, looked up by (setting, policy, split, metric).

    Args:
        frame: `Run.curves`, one row for each setting, policy, seed, round, split and metric. Values that
            are not finite count as missing.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.settings = [str(setting) for setting in frame["setting"].unique()]
        finite = frame[np.isfinite(frame["value"].to_numpy(dtype=float))]
        types = {"seed": np.int64, "round": np.int64, "labels": np.float64, "value": np.float64}
        self._columns = {name: finite[name].to_numpy(dtype=kind) for name, kind in types.items()}
        self._rows = finite.groupby(KEYS, sort=False, observed=True).indices
        self._tables: dict[tuple[str, ...], _Table] = {}
        self._present = {(setting, split, metric) for setting, _, split, metric in self._rows}

    def has(self, setting: str, split: str, metric: str) -> bool:
        """Return whether any policy has a value of this metric on this split."""
        return (setting, split, metric) in self._present

    def curve(self, setting: str, policy: str, split: str, metric: str) -> Curve | None:
        """Return a policy's curve on the best rectangle of its seeds and rounds; None if it has no value."""
        table = self._table(setting, policy, split, metric)
        kept = None if table is None else _largest_rectangle(np.isfinite(table.values_ST))
        if table is None or kept is None:
            return None
        return self._cut(table.at(table.seeds_S[kept[0]], table.rounds_T[kept[1]]), setting, policy, split, metric)

    def pair(self, setting: str, policy: str, reference: str, split: str, metric: str) -> tuple[Curve, Curve] | None:
        """Return the curves of policy and reference on the same rounds; None if they have no seed and round in common.

        The policy has the seeds that it shares with the reference, the reference all seeds that have these rounds.
        """
        names = (policy, reference)
        tables = [self._table(setting, name, split, metric) for name in names]
        own, other = tables
        if own is None or other is None:
            return None
        seeds_S = np.intersect1d(own.seeds_S, other.seeds_S)
        rounds_T = np.intersect1d(own.rounds_T, other.rounds_T)
        shared = [table.at(seeds_S, rounds_T) for table in (own, other)]
        kept = _largest_rectangle(np.isfinite(shared[0].values_ST) & np.isfinite(shared[1].values_ST))
        if kept is None:
            return None
        rounds_T = rounds_T[kept[1]]
        complete_S = np.isfinite(other.at(other.seeds_S, rounds_T).values_ST).all(axis=1)
        return (
            self._cut(own.at(seeds_S[kept[0]], rounds_T), setting, policy, split, metric),
            self._cut(other.at(other.seeds_S[complete_S], rounds_T), setting, reference, split, metric),
        )

    def values(
        self, setting: str, policy: str, split: str, metric: str, seeds_S: np.ndarray, rounds_T: np.ndarray
    ) -> np.ndarray | None:
        """Return a metric at given seeds and rounds, shape (S, T); None unless all values are present."""
        table = self._table(setting, policy, split, metric)
        if table is None:
            return None
        values_ST = table.at(seeds_S, rounds_T).values_ST
        return values_ST if np.isfinite(values_ST).all() else None

    def _cut(self, table: _Table, setting: str, policy: str, split: str, metric: str) -> Curve:
        errors_ST = self.values(setting, policy, split, f"{metric}_se", table.seeds_S, table.rounds_T)
        return Curve(
            table.labels_ST.mean(axis=0),
            table.values_ST,
            seeds=table.seeds_S,
            rounds=table.rounds_T,
            pair_errors=errors_ST,
        )

    def _table(self, *key: str) -> _Table | None:
        if key not in self._rows:
            return None
        if key not in self._tables:
            rows = self._rows[key]
            self._tables[key] = _table(**{name: column[rows] for name, column in self._columns.items()})
        return self._tables[key]


def _table(seed: np.ndarray, round: np.ndarray, labels: np.ndarray, value: np.ndarray) -> _Table:
    seeds_S, row_N = np.unique(seed, return_inverse=True)
    rounds_T, column_N = np.unique(round, return_inverse=True)
    labels_ST, values_ST = (np.full((len(seeds_S), len(rounds_T)), np.nan) for _ in range(2))
    labels_ST[row_N, column_N], values_ST[row_N, column_N] = labels, value
    return _Table(seeds_S, rounds_T, labels_ST, values_ST)


def _largest_rectangle(present_ST: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Choose seeds and rounds without gaps such that the most values remain; among equals, prefer more seeds."""
    longest_first = np.argsort(-present_ST.sum(axis=1), kind="stable")
    most, kept = 0, None
    for count in range(1, len(longest_first) + 1):
        seeds = np.sort(longest_first[:count])
        rounds = np.flatnonzero(present_ST[seeds].all(axis=0))
        if count * len(rounds) >= max(most, 1):
            most, kept = count * len(rounds), (seeds, rounds)
    return kept
