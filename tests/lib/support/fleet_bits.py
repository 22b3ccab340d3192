"""Run as a script: whether small fleets give each cell the same bits as alone; prints the answers as JSON."""

import json

import torch

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.epinet import Epinet
from balbench.harness.posteriors.posterior import LabelledPairs, Posterior
from balbench.harness.rounds.fleet import can_fit_together, fit_cells
from balbench.harness.streams import stream

R, D, CELLS = 90, 7, 4
FEATURES = torch.randn(R, D, generator=stream(1).torch())
SETTINGS = {"learning_rate": 0.02, "weight_std": 0.3, "epochs": 3, "batch": 7, "evaluate_every": 4}
POSTERIORS: dict[str, Posterior] = {
    "odd widths": Ensemble(members=3, hidden=[13, 5], **SETTINGS),
    "even widths": Ensemble(members=2, hidden=[16, 8], activation="relu", **SETTINGS),
    "epinet": Epinet(samples=4, hidden=[13, 5], **SETTINGS),
}


def pairs(n: int, seed: int) -> LabelledPairs:
    """Random pairs of the common responses, with labels 0, 1/2 and 1."""
    generator = stream(seed, "pairs").torch()
    rows = torch.stack([torch.randperm(R, generator=generator)[:2] for _ in range(n)])
    return LabelledPairs(FEATURES, rows, torch.randint(0, 3, (n,), generator=generator) / 2)


def rewards(posterior: Posterior, cells: range, together: bool) -> list[torch.Tensor]:
    """Rewards of the chosen cells."""
    trains, streams = [pairs(25, seed) for seed in cells], [stream(seed) for seed in cells]
    models = fit_cells(posterior, trains, pairs(31, 99), streams, together)
    return [model.rewards_KR(FEATURES) for model in models]


def answers(posterior: Posterior) -> dict[str, bool]:
    """The self-test's answer, and whether cells have the same bits in the way of training that it leads to."""
    exact = can_fit_together(posterior, pairs(1, 0))
    alone = [rewards(posterior, range(seed, seed + 1), together=True)[0] for seed in range(CELLS)]
    fleet = rewards(posterior, range(CELLS), together=exact)
    return {"exact": exact, "same": all(torch.equal(a, b) for a, b in zip(alone, fleet, strict=True))}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: answers(posterior) for name, posterior in POSTERIORS.items()}))
