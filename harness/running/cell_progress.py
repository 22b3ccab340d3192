"""The progress of a cell: its log, its finished rounds, and its remaining work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from balbench.harness.results import CellLog
from balbench.harness.results.records import FinishedRound
from balbench.harness.rounds.task import Failure, Past
from balbench.harness.running.progress import CellState
from balbench.harness.study.cell import Cell


class CellProgress:
    """The coordinator's state of a cell. The log is read once, when it is opened.

    Attributes:
        state: waiting, running, finished or failed.
        past: the finished rounds, after which the next task of the cell continues.
    """

    def __init__(self, cell: Cell, log: CellLog) -> None:
        self._cell, self._log = cell, log
        self.state = "finished" if log.is_finished(cell.rounds) else "waiting"
        self.past = Past(cell.rounds if self.state == "finished" else 0, np.empty(0, dtype=np.int64))
        self._labels = self._cumulative(cell.protocol.budget)
        self._seconds = 0.0

    def _cumulative(self, pool_size: int) -> list[int]:
        """Return the total number of labels on which the first 0, 1, ... rounds train."""
        protocol, rounds = self._cell.protocol, range(self._cell.rounds)
        acquires_all = self._cell.policy.acquires_all
        labels = (pool_size if acquires_all else protocol.labels_at(number, pool_size) for number in rounds)
        return list(accumulate(labels, initial=0))

    def open(self, pool_size: int) -> None:
        """Prepare the log for appending, and read the finished rounds.

        Raises:
            RunDirectoryError: the log is damaged.
        """
        self.past = Past.of(self._log.open(self._cell.facts, self._cell.rounds))
        self._labels = self._cumulative(pool_size)

    @property
    def changed_sources(self) -> list[str]:
        """Plug-ins, by kind and name, whose source has changed since the rounds on disk were run."""
        facts, now = self._log.facts, self._cell.sources
        return [name for name, source in facts["sources"].items() if now.get(name) != source] if facts else []

    @property
    def done(self) -> int:
        """Number of finished rounds."""
        return self.past.rounds

    @property
    def complete(self) -> bool:
        """Whether all rounds are finished."""
        return self.done == self._cell.rounds

    def append(self, rounds: Sequence[FinishedRound]) -> None:
        """Write the next rounds.

        Raises:
            RunDirectoryError: the log cannot be written.
            TypeError, ValueError: a record has a value that JSON does not support; earlier records are written.
        """
        try:
            self._log.append(rounds)
        except (TypeError, ValueError):
            if len(rounds) == 1:
                raise
            for single in rounds:
                self.append([single])
        acquired = [pair for done in rounds for pair in done.record["acquired"]]
        acquired_n = np.concatenate([self.past.acquired_n, np.array(acquired, dtype=np.int64)])
        self.past = Past(self.done + len(rounds), acquired_n)
        self._seconds += sum(sum(done.timings["seconds"].values()) for done in rounds)

    def finish(self, machine: dict[str, Any]) -> None:
        """Write the manifest."""
        self._log.finish(machine)
        self.state = "finished"

    def fail(self, failure: Failure) -> None:
        """Write the reason why the cell failed."""
        self._log.fail({"reason": failure.reason, "details": failure.details})
        self.state = "failed"

    def snapshot(self) -> CellState:
        """Return the present state for a display."""
        cell, labels = self._cell, self._labels
        done, seconds = self.done, self._seconds
        return CellState(cell.label, self.state, done, cell.rounds, labels[done], labels[-1], seconds)
