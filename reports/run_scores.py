"""The predictions of single held-out pairs of a run, for the intervals that also hold for other pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from balbench.reports.curves import Curve
from balbench.reports.pair_scores import PairScores

if TYPE_CHECKING:
    from balbench.harness.results import HeldOut, Run


@dataclass
class RunScores:
    """Reads predictions of a run; scores of the reference stay in memory, because every comparison needs them."""

    run: Run
    _held_out: dict[str, dict[str, HeldOut] | None] = field(default_factory=dict)
    _reference: dict[tuple[str, str, str, bytes], PairScores | None] = field(default_factory=dict)

    def scores(self, setting: str, policy: str, split: str, metric: str, curve: Curve) -> PairScores | None:
        """Return the predictions of a policy for the seeds and rounds of a curve; None if some were not stored.

        Raises:
            RunDirectoryError: a file of the run is damaged.
        """
        if policy != self.run.reference:
            return self._read(setting, policy, split, metric, curve)
        key = (setting, split, metric, curve.seeds_S.tobytes() + b"/" + curve.rounds_T.tobytes())
        if key not in self._reference:
            self._reference[key] = self._read(setting, policy, split, metric, curve)
        return self._reference[key]

    def _read(self, setting: str, policy: str, split: str, metric: str, curve: Curve) -> PairScores | None:
        if setting not in self._held_out:
            self._held_out[setting] = self.run.held_out(setting)
        pairs = (self._held_out[setting] or {}).get(split)
        if pairs is None:
            return None
        logits = []
        for seed in curve.seeds_S.tolist():
            by_split = self.run.predictions(setting, policy, seed)
            if by_split is None or split not in by_split:
                return None
            logits.append(by_split[split][curve.rounds_T])
        return PairScores(logits, pairs.share_N, pairs.prompt_N, metric)
