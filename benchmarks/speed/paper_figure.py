"""What the study `tldr_like` (3 policies, 5 seeds, 75 rounds, D 4096) asks of one GPU: a projection, no measurement.

Counted: training steps (nobody out of patience), evaluations while training, scoring of all splits. Measured on this
machine's CPU: drawing the initial weights, on one core. Given: what else a round of a cell takes on a core (tables of
metrics, picks), which docs/scaling.md tells how to measure. Run: python benchmarks/speed/paper_figure.py
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import torch

import rates
from harness.posteriors.ensemble import Ensemble
from harness.posteriors.recipe import evaluations_after
from harness.streams import stream

CELLS, ROUNDS, BATCH, DIMENSION = 15, 75, 320, 4096
RESPONSES = {"pool": 59_515, "eval": 3_206, "test": 12_945, "ood": 6_459}
RECIPE = Ensemble.model_validate({"preset": "melo2024"})
SIZES = (DIMENSION, *RECIPE.hidden, 1)
GPUS = {  # float32 and tf32 products (dense) and bandwidth, as in the makers' data sheets
    "A100 SXM 80 GB": (19.5e12, 156e12, 2.04e12),
    "H100 SXM": (67e12, 494e12, 3.35e12),
    "H200 SXM": (67e12, 494e12, 4.8e12),
}


def steps_of_rounds() -> list[int]:
    """Training steps of each round."""
    return [RECIPE.epochs * -(-BATCH * (number + 1) // RECIPE.batch) for number in range(ROUNDS)]


def scored() -> int:
    """Responses that a member scores in all rounds, evaluations while training included."""
    evaluations = sum(evaluations_after(done, n, RECIPE) > 0 for n in steps_of_rounds() for done in range(1, n + 1))
    return ROUNDS * sum(RESPONSES.values()) + evaluations * RESPONSES["eval"]


def drawing() -> float:
    """Seconds in which a core draws the initial weights of one cell, measured."""
    return rates.shortest(lambda: RECIPE.initial_heads(DIMENSION, stream(0)), torch.device("cpu"), 2)


def main() -> None:
    """Print the projection for each GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.5, help="of its bound that training and scoring reach")
    parser.add_argument("--rest", type=float, default=0.2, help="seconds of one round of one cell on one core")
    asked = parser.parse_args()
    members, steps = CELLS * RECIPE.members, sum(steps_of_rounds())
    step = rates.training_step(members, SIZES, RECIPE.batch, scales=True)
    scoring = 2.0 * members * scored() * sum(i * o for i, o in pairwise(SIZES))
    draws, rest = ROUNDS * CELLS * drawing(), ROUNDS * CELLS * asked.rest
    memory = CELLS * RECIPE.training_bytes(DIMENSION)
    print(f"{steps:,} steps of {members} members: {step.bytes / 1e9:.1f} GB and {step.operations / 1e12:.2f} Top each")
    print(f"scoring: {scoring / 1e15:.1f} Pop; GPU memory: {memory / 2**30:.0f} GiB; minutes at {asked.share:.0%}:")
    print("| GPU | precision | training | scoring | initial weights (one core) | the rest (one core) | all |")
    print("|---|---|---|---|---|---|---|")
    for name, (float32, tf32, bandwidth) in GPUS.items():
        for precision, operations in (("float32", float32), ("tf32", tf32)):
            device = rates.Rates(operations, bandwidth)
            training = steps * max(device.bounds(step)) / asked.share
            parts = [training, scoring / operations / asked.share, draws, rest]
            minutes = " | ".join(f"{seconds / 60:.0f}" for seconds in [*parts, sum(parts)])
            print(f"| {name} | {precision} | {minutes} |")


if __name__ == "__main__":
    main()
