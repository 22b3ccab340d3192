"""A plain reference of one BAL-PM round: a direct implementation of the same work.

Members are trained one after another with torch.nn and AdamW. Both responses of every pair are scored. Neighbours are
computed by unblocked differences in each round, and features are copied after each pick.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.epinet import Epinet
from balbench.harness.posteriors.mc_dropout import McDropout
from balbench.harness.posteriors.training_config import TrainingConfig, rate_at

SCORING_BATCH = 2048


def new_member(dimension: int, hidden: tuple[int, ...], weight_std: float, dropout: float = 0.0) -> nn.Sequential:
    """One reward head with the config's initial weights."""
    layers: list[nn.Module] = []
    for fan_in, out in zip((dimension, *hidden), (*hidden, 1), strict=True):
        linear = nn.Linear(fan_in, out)
        nn.init.normal_(linear.weight, std=weight_std)
        layers += [linear, nn.Tanh(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers[: -2 if dropout else -1])


def train_member(
    model: nn.Sequential, first_nD: torch.Tensor, second_nD: torch.Tensor, config: Ensemble, on_evaluation: list
) -> None:
    """Train one member on labelled pairs of which the first response is preferred.

    `on_evaluation` holds one callable, called with the model at each evaluation of the config.
    """

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return -F.logsigmoid(model(first_nD[rows]) - model(second_nD[rows])).mean()

    for done, steps_an_epoch in minimise(model, loss_of, len(first_nD), config):
        if done % int(config.evaluate_every) == 0 or done % steps_an_epoch == 0:
            on_evaluation[0](model)


def minimise(
    model: nn.Module, loss_of: Callable[[torch.Tensor], torch.Tensor], labels: int, config: TrainingConfig
) -> Iterator[tuple[int, int]]:
    """Minimise a loss as the config says; yield the number of steps done and the steps per epoch after each step."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=float(config.learning_rate), weight_decay=config.weight_decay)
    batches = [rows for _ in range(config.epochs) for rows in torch.randperm(labels).split(config.batch)]
    for step, rows in enumerate(batches):
        loss = loss_of(rows)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.param_groups[0]["lr"] = float(config.learning_rate) * rate_at(step, len(batches), config.warmup)
        optimiser.step()
        yield step + 1, len(batches) // config.epochs


def train_ensemble(first_nD: torch.Tensor, second_nD: torch.Tensor, config: Ensemble, dropout: float = 0.0) -> None:
    """Train an ensemble, one member after another, without evaluations."""
    for _ in range(config.members):
        model = new_member(first_nD.shape[1], config.hidden, config.weight_std, dropout)
        train_member(model, first_nD, second_nD, config, [lambda _: None])


def train_dropout(first_nD: torch.Tensor, second_nD: torch.Tensor, config: McDropout) -> None:
    """Train networks with dropout, one after another."""
    train_ensemble(first_nD, second_nD, config, config.rate)


def train_epinet(first_nD: torch.Tensor, second_nD: torch.Tensor, config: Epinet) -> None:
    """Train a head with an epinet on its last hidden layer; the indices of a step are computed one after another."""
    model, Z = new_member(first_nD.shape[1], config.hidden, config.weight_std), config.index_dimension
    body, last = model[:-1], model[-1]
    sizes = [config.hidden[-1] + Z, *config.epinet_hidden, Z]
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.Tanh())]
    epinet = nn.Sequential(*layers[:-1])
    prior_first, prior_second = (torch.randn(len(first_nD), Z) for _ in range(2))

    def rewards(inputs: torch.Tensor, indices: torch.Tensor) -> list[torch.Tensor]:
        hidden = body(inputs)
        mean = last(hidden)[:, 0]
        joined = [torch.cat([hidden.detach(), index.expand(len(hidden), -1)], dim=1) for index in indices]
        return [mean + epinet(part) @ index for part, index in zip(joined, indices, strict=True)]

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        indices = torch.randn(config.indices, Z)
        prior = (prior_first[rows] - prior_second[rows]) @ indices.mT
        both = zip(rewards(first_nD[rows], indices), rewards(second_nD[rows], indices), strict=True)
        losses = [-F.logsigmoid(a - b + prior[:, s]).mean() for s, (a, b) in enumerate(both)]
        return torch.stack(losses).mean()

    for _ in minimise(nn.ModuleList([model, epinet]), loss_of, len(first_nD), config):
        pass


@torch.no_grad()
def score_pairs(model: nn.Sequential, first_ND: torch.Tensor, second_ND: torch.Tensor) -> torch.Tensor:
    """P(first preferred) of every pair; both responses of each pair are scored."""
    blocks = zip(first_ND.split(SCORING_BATCH), second_ND.split(SCORING_BATCH), strict=True)
    return torch.cat([torch.sigmoid(model(first) - model(second))[:, 0] for first, second in blocks])


def acquire(
    features_ND: torch.Tensor, acquired_AD: torch.Tensor, uncertainty_N: torch.Tensor, picks: int, k: int, beta: float
) -> list[int]:
    """Select pairs greedily by BAL-PM's formula; return their numbers in order."""
    exact = "donot_use_mm_for_euclid_dist"
    remaining = torch.arange(len(features_ND))
    radius_N = torch.cdist(features_ND, features_ND, compute_mode=exact).kthvalue(k, dim=1).values
    count_N = (torch.cdist(features_ND, acquired_AD, compute_mode=exact) <= radius_N[:, None]).sum(1)
    chosen = []
    for _ in range(picks):
        entropy_N = torch.log(2 * radius_N.double() + 1e-4) - torch.digamma(count_N.double() + 1)
        best = int(torch.argmax(uncertainty_N.double() + beta * entropy_N))
        chosen.append(int(remaining[best]))
        pick = features_ND[best : best + 1]
        keep = torch.arange(len(remaining)) != best
        remaining, features_ND, uncertainty_N = remaining[keep], features_ND[keep], uncertainty_N[keep]
        radius_N, count_N = radius_N[keep], count_N[keep]
        count_N += torch.cdist(features_ND, pick, compute_mode=exact)[:, 0] <= radius_N
    return chosen


def binary_entropy(p: torch.Tensor) -> torch.Tensor:
    """Entropy in nats."""
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


def bald(p_KN: torch.Tensor) -> torch.Tensor:
    """Epistemic uncertainty, at most ln 2."""
    return (binary_entropy(p_KN.mean(0)) - binary_entropy(p_KN).mean(0)).clamp(0, math.log(2))


def sorted_neighbours(points_XQ: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances and numbers of the nearest points by unblocked differences; ties are sorted by number."""
    distance_XX = torch.cdist(points_XQ, points_XQ, compute_mode="donot_use_mm_for_euclid_dist")
    distance_XX.fill_diagonal_(-1.0)  # a point's own number first
    nearest = torch.sort(distance_XX, dim=1, stable=True)
    return nearest.values[:, :width].clamp_min(0), nearest.indices[:, :width]


def shortest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
