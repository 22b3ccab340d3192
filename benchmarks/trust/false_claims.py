"""How often reports claim savings where there are none: labels that are coin flips, and new test pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from balbench.reports.curves import Curve
from balbench.reports.inversion import Kind
from balbench.reports.pair_scores import PairScores, pair_scores
from balbench.reports.savings import LabelSavings, Outcome, label_savings

METRICS = ("log_likelihood", "accuracy", "brier")


def coin_flip_claims(comparisons: int, seeds: int = 5, seed: int = 0) -> dict[str, float]:
    """Return the share of comparisons on coin-flip labels that claim anything, by metric.

    The models of all seeds share what they learn from the features, the hardest case: seeds agree, and only the errors
    over pairs show that the agreement is luck.
    """
    generator, claims = np.random.default_rng(seed), dict.fromkeys(METRICS, 0)
    for _ in range(comparisons):
        policy, reference = coin_flip_curves(generator, seeds)
        for metric in METRICS:
            claims[metric] += label_savings(policy[metric], reference[metric], metric).outcome != Outcome.NO_LEVEL
    return {metric: number / comparisons for metric, number in claims.items()}


def coin_flip_curves(
    generator: np.random.Generator, seeds: int = 5, rounds: int = 6, pairs: int = 150
) -> list[dict[str, Curve]]:
    """Draw curves of two policies on labels that are coin flips: logits grow with the labels and mean nothing."""
    label_N = generator.integers(2, size=pairs)
    shared_N = generator.normal(size=pairs)
    labels_T = 16.0 * np.arange(1, rounds + 1)
    by_policy = []
    for _ in range(2):
        own_STN = np.cumsum(generator.normal(size=(seeds, rounds, pairs)), axis=1)
        size_S = generator.choice([0.003, 0.3], size=seeds)
        logit_STN = size_S[:, None, None] * (np.arange(rounds)[:, None] * shared_N + own_STN)
        scores = {metric: pair_scores(logit_STN, label_N.astype(float), metric) for metric in METRICS}
        by_policy.append(
            {
                metric: Curve(
                    labels_T, score_STN.mean(axis=2), pair_errors=score_STN.std(axis=2, ddof=1) / np.sqrt(pairs)
                )
                for metric, score_STN in scores.items()
            }
        )
    return by_policy


def new_pairs_claims(studies: int, seeds: int = 5, seed: int = 0, effect: float = 0.5) -> dict[str, float]:
    """Return the share of studies whose intervals exclude the truth (0) over new test splits.

    Policy and reference are equally good over all pairs of the world, and each study has its own test pairs.

    Returns:
        The share for the interval over seeds (`savings`), and for that over seeds and pairs (`new_pairs`).
    """
    generator, excluded = np.random.default_rng(seed), {"savings": 0, "new_pairs": 0}
    for result in _new_pairs_studies(generator, studies, seeds, effect):
        for name in excluded:
            inverted = getattr(result, name)
            above = inverted.low.value > 0 and inverted.low.kind != Kind.AT_MOST
            excluded[name] += above or (inverted.high.value < 0 and inverted.high.kind != Kind.AT_LEAST)
    return {name: number / studies for name, number in excluded.items()}


def _new_pairs_studies(
    generator: np.random.Generator, studies: int, seeds: int, effect: float, pairs: int = 120, rounds: int = 6
) -> Iterator[LabelSavings]:
    labels_T, growth_T = 16.0 * np.arange(1, rounds + 1), 1 - np.arange(1, rounds + 1) ** -0.5
    share_N, prompt_N = np.ones(pairs), np.arange(pairs) // 2
    for _ in range(studies):
        curves, scores = [], []
        for number in (seeds, max(20, 2 * seeds)):
            better_N = generator.normal(0, effect, pairs // 2)[prompt_N]  # the same in every seed
            noise_STN = generator.normal(0, 0.4, size=(number, rounds, pairs))
            logit_STN = growth_T[:, None] * (1 + better_N + noise_STN)
            curves.append(Curve(labels_T, pair_scores(logit_STN, share_N, "brier").mean(axis=2)))
            scores.append(PairScores(list(logit_STN), share_N, prompt_N, "brier"))
        yield label_savings(curves[0], curves[1], "brier", pair_scores=(scores[0], scores[1]))
