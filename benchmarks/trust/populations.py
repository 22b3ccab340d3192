"""Populations of learning curves whose savings are known, from which studies are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from balbench.harness.errors import BalbenchError
from balbench.harness.files import replacing
from balbench.reports.curves import Curve, Curves
from balbench.reports.inversion import Path as Comparisons
from balbench.reports.inversion import savings_path
from balbench.reports.learning import direction

if TYPE_CHECKING:
    from balbench.harness.results import Run

SHIPPED = Path(__file__).parent / "populations"
FEWEST_SEEDS = 30  # a population of fewer seeds is no population
METRICS = ("log_likelihood", "accuracy")
SPLITS = ("test", "ood")


@dataclass(frozen=True)
class Population:
    """A policy and a reference with known mean curves.

    Attributes:
        name: name of the population.
        metric: name of the metric.
        policy, reference: their curves, whose means are the true ones.
        draw: draws a study from a generator, a number of seeds of the policy, and one of the reference.
    """

    name: str
    metric: str
    policy: Curve
    reference: Curve
    draw: Callable[[np.random.Generator, int, int], tuple[Curve, Curve]]

    def truth(self, budget: float) -> float:
        """Return the savings of the mean curves for a budget of the reference.

        They are where the mean curves cross for good. -inf: the policy is below the first value of the reference.
        """
        path = savings_path(self.policy.labels_T, self.reference.labels_T, budget)
        own_H, other_H = self.policy.at(path.policy_H).mean(axis=0), self.reference.at(path.reference_H).mean(axis=0)
        return _lasting(path, direction(self.metric) * (own_H - other_H))


def _lasting(path: Comparisons, difference_H: np.ndarray) -> float:
    below, savings_H = np.flatnonzero(difference_H < 0), path.savings_H
    if not len(below):
        return float(savings_H[0])
    i = int(below[-1])
    if i == len(difference_H) - 1:
        return -np.inf
    share = -difference_H[i] / (difference_H[i + 1] - difference_H[i])
    return float(savings_H[i] + share * (savings_H[i + 1] - savings_H[i]))


def resampled(name: str, metric: str, policy: Curve, reference: Curve) -> Population:
    """Make a population of the seeds of real cells; studies draw seeds with replacement, paired.

    Args:
        name: name of the population.
        metric: name of the metric.
        policy, reference: curves with the same seeds.
    """

    def draw(generator: np.random.Generator, seeds: int, reference_seeds: int) -> tuple[Curve, Curve]:
        rows = generator.integers(len(policy.seeds_S), size=max(seeds, reference_seeds))
        return (
            Curve(policy.labels_T, policy.values_ST[rows[:seeds]]),
            Curve(reference.labels_T, reference.values_ST[rows[:reference_seeds]]),
        )

    return Population(name, metric, policy, reference, draw)


def against_itself(name: str, metric: str, reference: Curve) -> Population:
    """Make a population in which nothing can be saved: the policy is the reference with other seeds."""

    def draw(generator: np.random.Generator, seeds: int, reference_seeds: int) -> tuple[Curve, Curve]:
        rows = generator.integers(len(reference.seeds_S), size=seeds + reference_seeds)
        return (
            Curve(reference.labels_T, reference.values_ST[rows[:seeds]]),
            Curve(reference.labels_T, reference.values_ST[rows[seeds:]]),
        )

    return Population(name, metric, reference, reference, draw)


def of_arrays(name: str, arrays: dict[str, np.ndarray]) -> Iterator[Population]:
    """Yield the populations of a run's curves.

    Args:
        name: name of the run.
        arrays: `labels` (T,), and values (S, T) by "split/metric/policy", the reference first in each group.
    """
    groups: dict[tuple[str, str], dict[str, Curve]] = {}
    for key, values_ST in arrays.items():
        if key != "labels":
            split, metric, policy = key.split("/", 2)
            groups.setdefault((split, metric), {})[policy] = Curve(arrays["labels"], values_ST)
    for (split, metric), by_policy in groups.items():
        label, reference = next(iter(by_policy.items()))
        yield against_itself(f"{name}, {split}, {label} with other seeds", metric, reference)
        for policy, curve in by_policy.items():
            if policy != label:
                count = len(curve.seeds_S)
                paired = Curve(reference.labels_T, reference.values_ST[:count])
                yield resampled(f"{name}, {split}, {policy}", metric, curve, paired)


def run_arrays(run: Run) -> dict[str, np.ndarray]:
    """Return the arrays of `of_arrays` for a run; policies with fewer than `FEWEST_SEEDS` seeds are left out.

    Raises:
        BalbenchError: the reference has too few seeds.
    """
    curves, arrays = Curves(run.curves), {}
    setting = curves.settings[0] if curves.settings else ""
    for split in SPLITS:
        for metric in METRICS:
            for policy in [run.reference, *(name for name in run.policies if name != run.reference)]:
                curve = curves.curve(setting, policy, split, metric)
                if curve is not None and len(curve.seeds_S) >= FEWEST_SEEDS:
                    arrays["labels"] = curve.labels_T
                    arrays[f"{split}/{metric}/{policy}"] = curve.values_ST.astype(np.float32)
    if not arrays:
        raise BalbenchError(f"{run.path}: no policy has {FEWEST_SEEDS} finished seeds; run the study with more seeds")
    return arrays


def write_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write arrays to an .npz file."""
    named: dict[str, Any] = {key.replace("/", "|"): array for key, array in arrays.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **named)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read arrays from an .npz file; nothing in the file is executed.

    Raises:
        BalbenchError: the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key.replace("|", "/"): file[key].astype(float) for key in file.files}
    except (OSError, ValueError) as error:
        raise BalbenchError(f"{path}: cannot be read as a population ({error}); make it again from a run") from None


def shipped() -> Iterator[Population]:
    """Yield the populations that come with balbench: real cells of three studies, and synthetic curves."""
    for path in sorted(SHIPPED.glob("*.npz")):
        yield from of_arrays(path.stem, read_arrays(path))
    yield from synthetic()


def synthetic() -> Iterator[Population]:
    """Yield synthetic curves of known truth: gain (1 - (n / n0)^-rate), with noise that is correlated over rounds."""
    cases = {
        "nothing saved": (0.25, 0.5, 0.01),
        "labels saved": (0.27, 0.6, 0.01),
        "labels lost": (0.25, 0.35, 0.01),
        "labels saved, much noise": (0.3, 0.6, 0.02),
    }
    labels_T = np.arange(64.0, 64 * 16, 64)
    reference_T = -np.log(2) + _rise(labels_T, 0.25, 0.5)
    for name, (gain, rate, noise) in cases.items():
        policy_T = -np.log(2) + _rise(labels_T, gain, rate)
        yield Population(
            f"synthetic, {name}",
            "log_likelihood",
            Curve(labels_T, policy_T[None]),
            Curve(labels_T, reference_T[None]),
            _synthetic_draw(labels_T, policy_T, reference_T, noise),
        )


def _rise(labels_T: np.ndarray, gain: float, rate: float) -> np.ndarray:
    return gain * (1 - (labels_T / labels_T[0]) ** -rate)


def _synthetic_draw(
    labels_T: np.ndarray, policy_T: np.ndarray, reference_T: np.ndarray, noise: float
) -> Callable[[np.random.Generator, int, int], tuple[Curve, Curve]]:
    def draw(generator: np.random.Generator, seeds: int, reference_seeds: int) -> tuple[Curve, Curve]:
        other_MT = _noise(generator, reference_seeds, len(labels_T), noise)
        own_ST = _noise(generator, seeds, len(labels_T), noise)
        shared = min(seeds, reference_seeds)
        own_ST[:shared] = 0.3 * other_MT[:shared] + np.sqrt(1 - 0.3**2) * own_ST[:shared]
        return Curve(labels_T, policy_T + own_ST), Curve(labels_T, reference_T + other_MT)

    return draw


def _noise(generator: np.random.Generator, seeds: int, rounds: int, scale: float) -> np.ndarray:
    """Draw first-order autoregressive noise with a correlation of 0.6 between rounds."""
    steps_ST = generator.normal(0, scale, size=(seeds, rounds))
    noise_ST = steps_ST.copy()
    for step in range(1, rounds):
        noise_ST[:, step] = 0.6 * noise_ST[:, step - 1] + 0.8 * steps_ST[:, step]
    return noise_ST
