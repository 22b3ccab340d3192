"""Learning curves: from the tidy frame of a run to matrices of seeds x steps.

A run may be unfinished, so seeds can differ in length. A curve keeps the rectangle of seeds x rounds that
holds the most cells, without looking at what stands in them: a finished run is kept whole, one cell that
has only begun does not cut all others down to its length, and the seeds and rounds that were used are
recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Curve:
    """One metric of one policy against the number of labels, for S seeds and T rounds.

    Attributes:
        seeds_S: int64, ascending.
        rounds_T: int64, ascending, from 0.
        labels_T: float64, labels acquired before the model of each round was fitted, initial set included;
            the mean over seeds where an oracle's abstentions make them differ.
        values_ST: float64, the metric in its own unit (nats for log-likelihood, shares for the others).
    """

    seeds_S: np.ndarray
    rounds_T: np.ndarray
    labels_T: np.ndarray
    values_ST: np.ndarray

    @cached_property
    def mean_T(self) -> np.ndarray:
        """Mean over seeds at each step, shape (T,)."""
        return self.values_ST.mean(axis=0)

    @cached_property
    def standard_error_T(self) -> np.ndarray:
        """Standard error of the mean over seeds (ddof 1), shape (T,); NaN with a single seed."""
        seeds = len(self.seeds_S)
        if seeds < 2:
            return np.full(len(self.labels_T), np.nan)
        return self.values_ST.std(axis=0, ddof=1) / np.sqrt(seeds)


class Curves:
    """All learning curves of a run, found by (setting, policy, split, metric).

    Args:
        frame: `Run.curves`, one row for each setting, policy, seed, round, split and metric. Values that
            are not finite count as missing.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        finite = frame[np.isfinite(frame["value"].to_numpy(dtype=float))]
        groups = finite.groupby(["setting", "policy", "split", "metric"], sort=False)
        self._groups = dict(iter(groups))
        self._unstacked: dict[tuple[str, ...], tuple[pd.DataFrame, pd.DataFrame]] = {}
        self.settings = [str(setting) for setting in frame["setting"].unique()]
        self._present = {(key[0], key[2], key[3]) for key in self._groups}

    def has(self, setting: str, split: str, metric: str) -> bool:
        """Say whether any policy has a value of this metric on this split."""
        return (setting, split, metric) in self._present

    def curve(self, setting: str, policy: str, split: str, metric: str) -> Curve | None:
        """Return a policy's curve on the best rectangle of its seeds and rounds; None if it has no value."""
        values, labels = self._tables(setting, policy, split, metric)
        kept = _largest_rectangle(values.notna().to_numpy())
        return None if kept is None else _cut(values, labels, *kept)

    def pair(self, setting: str, policy: str, reference: str, split: str, metric: str) -> tuple[Curve, Curve] | None:
        """Return the curves of policy and reference on the same seeds and rounds; None if they share none."""
        values, labels = self._tables(setting, policy, split, metric)
        reference_values, reference_labels = self._tables(setting, reference, split, metric)
        seeds = values.index.intersection(reference_values.index)
        rounds = values.columns.intersection(reference_values.columns)
        values, reference_values = values.loc[seeds, rounds], reference_values.loc[seeds, rounds]
        kept = _largest_rectangle((values.notna() & reference_values.notna()).to_numpy())
        if kept is None:
            return None
        labels, reference_labels = labels.loc[seeds, rounds], reference_labels.loc[seeds, rounds]
        return _cut(values, labels, *kept), _cut(reference_values, reference_labels, *kept)

    def _tables(self, setting: str, policy: str, split: str, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return values and labels as frames of seeds x rounds, both ascending, with gaps as NaN."""
        key = (setting, policy, split, metric)
        if key not in self._groups:
            return pd.DataFrame(), pd.DataFrame()
        if key not in self._unstacked:
            by_round = self._groups[key].set_index(["seed", "round"])[["value", "labels"]].astype(float)
            self._unstacked[key] = by_round["value"].unstack(), by_round["labels"].unstack()
        return self._unstacked[key]


def _largest_rectangle(present_ST: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Choose seeds and rounds so that none is missing and most cells are kept; more seeds win a draw."""
    longest_first = np.argsort(-present_ST.sum(axis=1), kind="stable")
    best, kept = 0, None
    for count in range(1, len(longest_first) + 1):
        seeds = np.sort(longest_first[:count])
        rounds = np.flatnonzero(present_ST[seeds].all(axis=0))
        if count * len(rounds) >= max(best, 1):
            best, kept = count * len(rounds), (seeds, rounds)
    return kept


def _cut(values: pd.DataFrame, labels: pd.DataFrame, seeds: np.ndarray, rounds: np.ndarray) -> Curve:
    return Curve(
        seeds_S=values.index.to_numpy(dtype=np.int64)[seeds],
        rounds_T=values.columns.to_numpy(dtype=np.int64)[rounds],
        labels_T=labels.to_numpy()[np.ix_(seeds, rounds)].mean(axis=0),
        values_ST=values.to_numpy()[np.ix_(seeds, rounds)],
    )
