"""Simulated runs with the attributes of `balbench.harness.results.Run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from balbench.reports.curves import Curve

CURVE_COLUMNS = ["setting", "policy", "seed", "round", "labels", "split", "metric", "value"]
LINE_COLUMNS = ["setting", "line", "split", "metric", "value"]
FULL_DATA_COLUMNS = ["setting", "seed", "labels", "split", "metric", "value"]
TIMING_COLUMNS = ["setting", "policy", "seed", "round", "stage", "seconds"]
CELL_COLUMNS = ["setting", "policy", "seed", "key", "state", "rounds_done", "rounds", "reason"]


@dataclass
class FakeRun:
    """A run as `balbench.harness.results.read_run` gives it."""

    curves: pd.DataFrame
    policies: list[str]
    name: str = "demo"
    path: Path = Path("demo")
    reference: str = "random"
    policy_settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    protocol: dict[str, int] = field(default_factory=lambda: {"initial": 32, "batch": 32, "rounds": 14})
    study: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = "f1"
    lines: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LINE_COLUMNS))
    full_data: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=FULL_DATA_COLUMNS))
    timings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=TIMING_COLUMNS))
    cells: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CELL_COLUMNS))
    datasets: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def data_facts(self, setting: str) -> dict[str, Any] | None:
        """Return the facts that a test gives."""
        return self.facts.get(setting)

    def held_out(self, setting: str) -> None:
        """Return None, as for a run of a version that stored no single pairs."""

    def predictions(self, setting: str, policy: str, seed: int) -> None:
        """Return None, as for a run of a version that stored no predictions."""


# log-likelihood on the test split: final level, and share of the gap to this level that a round closes
SHAPES = {
    "random": (-0.520, 0.16),
    "BAL-PM": (-0.505, 0.24),
    "BALD": (-0.535, 0.14),
    "PowerBALD": (-0.518, 0.17),
    "SoftmaxBALD": (-0.522, 0.15),
    "entropy only": (-0.515, 0.17),
    "SoftRankBALD with a long label": (-0.526, 0.18),
    "BAL-PM as coded": (-0.508, 0.22),
}
SPLIT_SHIFT = {"eval": 0.004, "test": 0.0, "ood": -0.06}
PAIR_ERROR = 0.004  # standard error of each metric over held-out pairs


def _values(metric: str, log_likelihood_T: np.ndarray) -> np.ndarray:
    if metric.endswith("_se"):
        return np.full_like(log_likelihood_T, PAIR_ERROR)
    if metric == "log_likelihood":
        return log_likelihood_T
    if metric == "accuracy":
        return 0.5 + 1.2 * (log_likelihood_T + np.log(2))
    return 0.25 + 0.4 * (-np.log(2) - log_likelihood_T)


def make_curves(
    policies: Sequence[str],
    seeds: int = 5,
    rounds: int = 14,
    batch: int = 32,
    metrics: Sequence[str] = ("log_likelihood", "accuracy", "brier"),
    splits: Sequence[str] = ("eval", "test", "ood"),
    setting: str = "",
) -> pd.DataFrame:
    """Make saturating learning curves with noise of the seed (shared by policies) and of the cell."""
    rows = []
    for seed in range(seeds):
        seed_shift = np.random.default_rng(seed).normal(0, 0.006)
        for number, policy in enumerate(policies):
            generator = np.random.default_rng([seed, number])
            final, speed = SHAPES.get(policy, (-0.52, 0.16))
            gap_T = (np.log(2) + final - 0.02) * np.exp(-speed * np.arange(rounds))
            noise_T = generator.normal(0, 0.004, rounds)
            noise_T[0] = 0
            for split in splits:
                level_T = final - gap_T + seed_shift + noise_T + SPLIT_SHIFT[split]
                level_T[0] = -0.675 + seed_shift + SPLIT_SHIFT[split] / 4
                for metric in [*metrics, *(f"{metric}_se" for metric in metrics)]:
                    rows += [
                        (
                            setting,
                            policy,
                            seed,
                            step,
                            batch * (step + 1),
                            split,
                            metric,
                            value,
                        )
                        for step, value in enumerate(_values(metric, level_T))
                    ]
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def make_run(policies: Sequence[str] | None = None, **curve_settings: Any) -> FakeRun:
    """Make a run with all frames filled."""
    policies = list(policies or SHAPES)
    curves = make_curves(policies, **curve_settings)
    return FakeRun(
        curves=curves,
        policies=policies,
        policy_settings={policy: {"name": policy.lower().replace(" ", "_").replace("-", "_")} for policy in policies}
        | {"BAL-PM": {"name": "bal_pm", "variant": "published", "beta": 0.01, "k": 13}},
        study={"name": "demo", "dataset": {"name": "simulated", "preset": "small"}, "seeds": 5},
        lines=make_lines(curves),
        full_data=make_full_data(curves),
        timings=make_timings(curves),
        cells=make_cells(curves),
    )


def make_lines(curves: pd.DataFrame) -> pd.DataFrame:
    """Make the horizontal lines of each split and metric."""
    rows = []
    for setting in curves["setting"].unique():
        for split in curves["split"].unique():
            shift = SPLIT_SHIFT[split]
            rows += [
                (setting, "best possible", split, "log_likelihood", -0.42 + shift),
                (setting, "length only", split, "log_likelihood", -0.655 + shift / 4),
                (setting, "length only", split, "accuracy", 0.58),
                (setting, "best possible", split, "accuracy", 0.80),
            ]
    return pd.DataFrame(rows, columns=LINE_COLUMNS)


def make_full_data(curves: pd.DataFrame) -> pd.DataFrame:
    """Make the models that were trained on the whole pool."""
    rows = []
    for setting in curves["setting"].unique():
        for split in curves["split"].unique():
            for metric in ("log_likelihood", "accuracy", "brier"):
                level = _values(metric, np.array([-0.49 + SPLIT_SHIFT[split]]))[0]
                rows += [(setting, seed, 4000, split, metric, level + 0.001 * seed) for seed in range(5)]
    return pd.DataFrame(rows, columns=FULL_DATA_COLUMNS)


def make_timings(curves: pd.DataFrame) -> pd.DataFrame:
    """Make the seconds of each stage."""
    cells = curves[["setting", "policy", "seed", "round"]].drop_duplicates()
    stages = {"fit": 1.5, "evaluate": 0.2, "acquire": 0.4, "annotate": 0.01}
    frames = [cells.assign(stage=stage, seconds=seconds) for stage, seconds in stages.items()]
    timings = pd.concat(frames, ignore_index=True)
    slow = timings["policy"].str.startswith("BAL-PM") & (timings["stage"] == "acquire")
    timings.loc[slow, "seconds"] = 1.1
    return timings[TIMING_COLUMNS]


def make_cells(curves: pd.DataFrame) -> pd.DataFrame:
    """Make the states of the cells: all finished."""
    done = curves.groupby(["setting", "policy", "seed"], sort=False)["round"].max().add(1).reset_index()
    done = done.rename(columns={"round": "rounds_done"})
    done["key"] = [f"key{number}" for number in range(len(done))]
    done["state"], done["reason"], done["rounds"] = "finished", "", done["rounds_done"].max()
    return done[CELL_COLUMNS]


def make_curve(values: Sequence[Sequence[float]], labels: Sequence[float] | None = None) -> Curve:
    """Make a curve from rows of seeds; labels are 10, 20, ... unless given."""
    values_ST = np.array(values, dtype=float)
    steps = values_ST.shape[1]
    labels_T = np.array(labels if labels is not None else 10.0 * np.arange(1, steps + 1), dtype=float)
    return Curve(labels_T, values_ST)


@pytest.fixture(scope="session")
def run_of() -> Callable[..., FakeRun]:
    """`make_run`."""
    return make_run


@pytest.fixture(scope="session")
def curve_of() -> Callable[..., Curve]:
    """`make_curve`."""
    return make_curve


@pytest.fixture
def run() -> FakeRun:
    """A finished run of four policies and five seeds."""
    return make_run(["random", "BAL-PM", "BALD", "PowerBALD"])
