"""A synthetic run directory of any size, to measure reading and reporting without running a study.

    python benchmarks/speed/synthetic_run.py DIRECTORY

writes 110 cells (22 policies, 5 seeds) of 75 rounds. The curves saturate as in training, with noise per seed and per
cell. Every round holds the metrics that a study records, and predictions of 2,000 held-out pairs of each split.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from balbench.harness.results import HeldOut, RunDirectory
from balbench.harness.results.held_out import write_held_out
from balbench.harness.results.records import FinishedRound

SPLITS = ("test", "ood", "eval")
PREDICTED = ("ood", "test")
STAGES = {"fit": 1.5, "evaluate": 0.2, "score": 0.1, "select": 0.4, "annotate": 0.01}
UNCERTAINTIES = ("epistemic", "predictive", "aleatoric", "variance")


def write_run(
    path: Path, policies: int = 22, seeds: int = 5, rounds: int = 75, batch: int = 320, pairs: int = 2_000
) -> Path:
    """Write a finished run of `policies` x `seeds` cells, with `pairs` held-out pairs of each split.

    Raises:
        RunDirectoryError: the directory is not empty or cannot be written.
    """
    labels = ["random", *(f"policy {number}" for number in range(1, policies))]
    cells = [_cell(label, seed, rounds) for label in labels for seed in range(seeds)]
    study = {
        "name": "synthetic",
        "reference": "random",
        "seeds": seeds,
        "policies": [{"name": label} for label in labels],
        "protocol": {"initial": batch, "batch": batch, "rounds": rounds},
    }
    path.mkdir(parents=True, exist_ok=True)
    directory = RunDirectory(path)
    directory.adopt({"study": study, "cells": cells, "lines": {}})
    for number, cell in enumerate(cells):
        log = directory.cell(cell["directory"])
        log.open({"key": cell["key"], "sources": {}, "code": ""}, rounds)
        log.append(_rounds(number // seeds, number % seeds, rounds, batch, pairs))
        log.finish({"device": "cpu"})
    directory.data("d").mkdir(parents=True)
    write_held_out(directory.data("d"), {split: _held_out(split, pairs) for split in PREDICTED})
    return path


def _held_out(split: str, pairs: int) -> HeldOut:
    generator = np.random.default_rng(len(split))
    share_N = (generator.random(pairs) < 1 / (1 + np.exp(-_true_logits(split, pairs)))).astype(float)
    return HeldOut(
        share_N, (np.arange(pairs) // 3).astype(np.int32), generator.lognormal(size=pairs).astype(np.float32)
    )


def _true_logits(split: str, pairs: int) -> np.ndarray:
    return np.random.default_rng(len(split) + 100).normal(0, 1, pairs)


def _cell(label: str, seed: int, rounds: int) -> Any:
    name = f"{label.replace(' ', '-')}-seed{seed}"
    return {
        "setting": "",
        "policy": label,
        "seed": seed,
        "key": name,
        "keys": {"dataset": "d", "setting": "s", "policy": label},
        "directory": name,
        "rounds": rounds,
        "full_data": False,
        "settings": {"name": label},
    }


def _rounds(policy: int, seed: int, rounds: int, batch: int, pairs: int) -> Any:
    generator = np.random.default_rng([policy, seed])
    seed_shift = np.random.default_rng(seed).normal(0, 0.006)
    speed = 0.08 * (1 + 0.03 * policy)
    level_T = -0.5 - 0.18 * np.exp(-speed * np.arange(rounds)) + seed_shift + generator.normal(0, 0.002, rounds)
    return [
        FinishedRound(
            {
                "round": number,
                "labels": batch * (number + 1),
                "metrics": _metrics(float(level_T[number])),
                "acquired": list(range(batch)),
            },
            {"round": number, "seconds": STAGES},
            {split: _logits(split, pairs, 1 - np.exp(-speed * (number + 1)), generator) for split in PREDICTED},
        )
        for number in range(rounds)
    ]


def _logits(split: str, pairs: int, share: float, generator: np.random.Generator) -> np.ndarray:
    return (share * (_true_logits(split, pairs) + generator.normal(0, 0.3, pairs))).astype(np.float16)


def _metrics(log_likelihood: float) -> dict[str, dict[str, float]]:
    gain = log_likelihood + np.log(2)
    held_out = {
        "log_likelihood": log_likelihood,
        "accuracy": 0.5 + 1.2 * gain,
        "brier": 0.25 - 0.4 * gain,
        "log_likelihood_se": 0.004,
        "accuracy_se": 0.005,
        "brier_se": 0.002,
        "ece": 0.02,
        "brier_chance": 0.25,
        "temperature": 0.9,
        "temperature_gain": 0.001,
        **dict.fromkeys(UNCERTAINTIES, 0.1),
        **{f"{name}_brier_spearman": 0.3 for name in ("epistemic", "predictive", "variance")},
    }
    fit = {"steps": 400.0, "best_is_initial": 0.0, "still_improving": 0.2}
    fit |= {f"evaluation_loss_{moment}": -log_likelihood for moment in ("start", "best", "end")}
    batch = {"unique_prompts": 320.0, "unique_prompt_share": 1.0, "unique_prompt_share_of_all": 0.9}
    batch |= {"distance_mean": 1.1, "farthest_share": 0.06}
    return dict.fromkeys((*SPLITS, "buffer"), held_out) | {"fit": fit, "batch": batch}


if __name__ == "__main__":
    write_run(Path(sys.argv[1]))
