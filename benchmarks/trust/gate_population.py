"""The population of gates: many seeds of the policies of the study `ci`, and of BALD made worse by a known amount."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from balbench.api import load_study, run_study
from balbench.benchmarks.trust.populations import run_arrays, write_arrays
from balbench.harness.policies.policy import Policy, PoolView, Selection, take_highest
from balbench.harness.registry import register
from balbench.harness.streams import Stream

SHARES = (0.25, 0.5)  # of random picks


class PartlyRandom(Policy):
    """BALD, but a share of each batch is chosen at random: a policy that is worse by a known amount."""

    family: ClassVar[str] = "uncertainty"
    source: ClassVar[str] = "-"

    share: float = Field(0.5, ge=0, le=1)
    """Share of random pairs in a batch."""

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the most uncertain pairs, then random ones of the others."""
        count = round(self.share * batch_size)
        best = take_highest(view, view.score_U("epistemic"), batch_size - count)
        noise_U = view.uniform_U(stream)
        noise_U[np.isin(view.unlabelled_U, best.pairs_B)] = -1
        rest = take_highest(view, noise_U, count)
        return Selection(np.concatenate([best.pairs_B, rest.pairs_B]), np.concatenate([best.scores_B, rest.scores_B]))


def label(share: float) -> str:
    """Name BALD with a share of random picks."""
    return f"bald, {100 * share:g}% random"


def make_population(out: Path, seeds: int, directory: Path, jobs: int | None = None) -> None:
    """Run the population and write its curves (log-likelihood and accuracy on test and ood).

    Args:
        out: the .npz file.
        seeds: number of seeds of each policy.
        directory: the run directory, which an interrupted call continues.
        jobs: worker processes, by default one for each core.

    Raises:
        BalbenchError: the run or the file cannot be written.
    """
    register("policies", "partly_random", PartlyRandom)
    worse = [{"name": "partly_random", "label": label(share), "share": share} for share in SHARES]
    policies = [*load_study("ci").file.policies, *worse]
    run = run_study("ci", directory, overrides={"policies": policies}, seeds=seeds, reference_seeds=seeds, jobs=jobs)
    arrays = run_arrays(run)
    write_arrays({key: values for key, values in arrays.items() if key == "labels" or "test/log" in key}, out)
