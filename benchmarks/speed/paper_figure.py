"""Project the time of the study `tldr_like` (3 policies, 5 seeds, 75 rounds, D 4096) on one GPU.

The projection counts training steps (without early stopping), evaluations during training, and the scoring of all
splits. The time to draw initial weights is measured on one core of this machine. The remaining time of a round of a
cell on one core (metrics, selection) is an argument; docs/measured/scaling.md says how it was measured.
Run: python benchmarks/speed/paper_figure.py
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

import rates
from balbench.harness.posteriors.training_config import evaluations_after
from balbench.harness.streams import stream
from balbench.harness.study.study import load_study

if TYPE_CHECKING:
    from balbench.harness.datasets.simulated import Simulated
    from balbench.harness.posteriors.ensemble import Ensemble

CELLS = load_study(Path(__file__).parents[1] / "studies" / "tldr_like.yaml").cells
CONFIG, DATASET = cast("Ensemble", CELLS[0].posterior), cast("Simulated", CELLS[0].dataset)
ROUNDS = CELLS[0].rounds
SIZES = (DATASET.dimension, *CONFIG.hidden, 1)
GPUS = {  # operations per second in float32 and in tf32 (dense), bytes per second, from the data sheets
    "A100 SXM 80 GB": (19.5e12, 156e12, 2.04e12),
    "H100 SXM": (67e12, 494e12, 3.35e12),
    "H200 SXM": (67e12, 494e12, 4.8e12),
}


def steps_of_rounds() -> list[int]:
    """Training steps of each round."""
    protocol, pairs = CELLS[0].protocol, DATASET.sizes().pairs
    return [CONFIG.epochs * -(-protocol.labels_at(number, pairs) // CONFIG.batch) for number in range(ROUNDS)]


def scored_responses() -> int:
    """Responses that a member scores in all rounds, including evaluations during training."""
    evaluations = sum(evaluations_after(done, n, CONFIG) > 0 for n in steps_of_rounds() for done in range(1, n + 1))
    responses = DATASET.responses()
    return ROUNDS * sum(responses.values()) + evaluations * responses["eval"]


def drawing_seconds() -> float:
    """Measured seconds in which a core draws the initial weights of one cell."""
    return rates.shortest(lambda: CONFIG.initial_heads(DATASET.dimension, stream(0)), torch.device("cpu"), 2)


def main() -> None:
    """Print the projection for each GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.5, help="share of the bound that training and scoring reach")
    parser.add_argument("--rest", type=float, default=0.2, help="seconds of one round of one cell on one core")
    arguments = parser.parse_args()
    members, steps = len(CELLS) * CONFIG.members, sum(steps_of_rounds())
    step = rates.training_step(members, SIZES, CONFIG.batch, scales=True)
    scoring = 2.0 * members * scored_responses() * sum(i * o for i, o in pairwise(SIZES))
    draws, rest = ROUNDS * len(CELLS) * drawing_seconds(), ROUNDS * len(CELLS) * arguments.rest
    memory = len(CELLS) * CONFIG.training_bytes(DATASET.dimension)
    print(f"{steps:,} steps of {members} members: {step.bytes / 1e9:.1f} GB and {step.operations / 1e12:.2f} Top each")
    print(f"scoring: {scoring / 1e15:.1f} Pop; GPU memory: {memory / 2**30:.0f} GiB; minutes at {arguments.share:.0%}:")
    print("| GPU | precision | training | scoring | initial weights (one core) | the rest (one core) | all |")
    print("|---|---|---|---|---|---|---|")
    for name, (float32, tf32, bandwidth) in GPUS.items():
        for precision, operations in (("float32", float32), ("tf32", tf32)):
            device = rates.Rates(operations, bandwidth)
            training = steps * max(device.bounds(step)) / arguments.share
            parts = [training, scoring / operations / arguments.share, draws, rest]
            minutes = " | ".join(f"{seconds / 60:.0f}" for seconds in [*parts, sum(parts)])
            print(f"| {name} | {precision} | {minutes} |")


if __name__ == "__main__":
    main()
