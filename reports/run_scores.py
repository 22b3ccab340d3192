"""The predictions of single held-out pairs of a run, for the parts of a report that need them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from balbench.harness.errors import RunDirectoryError
from balbench.reports.curves import Curve
from balbench.reports.pair_scores import PairScores

if TYPE_CHECKING:
    from balbench.harness.results import HeldOut, Run

T = TypeVar("T")
MOST_NAMED = 3  # largest number of damaged files that warnings name

Predictions = dict[str, np.ndarray] | None


@dataclass
class RunScores:
    """Reads predictions of a run; a damaged file counts as missing, so that the rest of a report can be made.

    Predictions and scores of the reference stay in memory, because every comparison needs them, and those of another
    policy until the next policy is read.

    Attributes:
        run: the run.
        damages: the error of each damaged file that was read, with its remedy.
    """

    run: Run
    damages: list[str] = field(default_factory=list)
    _held_out: dict[str, dict[str, HeldOut] | None] = field(default_factory=dict)
    _cells: dict[tuple[str, str], dict[int, Predictions]] = field(default_factory=dict)
    _reference: dict[tuple[str, str, str, bytes], PairScores | None] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """Sentences about damaged files."""
        more = len(self.damages) - MOST_NAMED
        others = [f"{more} more files of held-out pairs are damaged."] if more > 0 else []
        return [f"Left out what needs a damaged file: {text}." for text in self.damages[:MOST_NAMED]] + others

    def scores(self, setting: str, policy: str, split: str, metric: str, curve: Curve) -> PairScores | None:
        """Return the predictions of a policy for the seeds and rounds of a curve; None if some are not there."""
        if policy != self.run.reference:
            return self._read(setting, policy, split, metric, curve)
        key = (setting, split, metric, curve.seeds_S.tobytes() + b"/" + curve.rounds_T.tobytes())
        if key not in self._reference:
            self._reference[key] = self._read(setting, policy, split, metric, curve)
        return self._reference[key]

    def held_out(self, setting: str) -> dict[str, HeldOut] | None:
        """Return `Run.held_out`; None if the file is damaged."""
        if setting not in self._held_out:
            self._held_out[setting] = self._undamaged(lambda: self.run.held_out(setting))
        return self._held_out[setting]

    def predictions(self, setting: str, policy: str, seed: int) -> Predictions:
        """Return `Run.predictions`; None if the file is damaged."""
        if (setting, policy) not in self._cells:
            kept = {key: cells for key, cells in self._cells.items() if key == (setting, self.run.reference)}
            self._cells = kept | {(setting, policy): {}}
        cells = self._cells[setting, policy]
        if seed not in cells:
            cells[seed] = self._undamaged(lambda: self.run.predictions(setting, policy, seed))
        return cells[seed]

    def _read(self, setting: str, policy: str, split: str, metric: str, curve: Curve) -> PairScores | None:
        pairs = (self.held_out(setting) or {}).get(split)
        if pairs is None:
            return None
        logits = []
        for seed in curve.seeds_S.tolist():
            by_split = self.predictions(setting, policy, seed)
            if by_split is None or split not in by_split:
                return None
            logits.append(by_split[split][curve.rounds_T])
        return PairScores(logits, pairs.share_N, pairs.prompt_N, metric)

    def _undamaged(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except RunDirectoryError as error:
            if str(error) not in self.damages:
                self.damages.append(str(error))
            return None
