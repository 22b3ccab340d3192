"""How often the interval holds the truth after seeds were added until it was narrow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from balbench.benchmarks.trust.coverage import is_above, is_below, width
from balbench.benchmarks.trust.populations import Population
from balbench.harness.study.study_file import default_reference_seeds
from balbench.reports.curves import Curve
from balbench.reports.inversion import Inversion
from balbench.reports.savings import label_savings
from balbench.reports.stopping import StoppingRule

FIRST_SEEDS = 5  # seeds of the policy at the first look


@dataclass(frozen=True)
class Stopped:
    """The result of many studies of one population, each stopped by the rule for this policy alone.

    A study with more policies waits for the widest of their intervals, which selects less by the width of each.

    Attributes:
        seeds: mean number of seeds at the stop.
        coverage: share of the studies whose interval at the stop holds the truth.
        too_low, too_high: shares of the studies whose interval lies below or above the truth.
        one_look: coverage if studies stopped at the first narrow interval.
    """

    seeds: float
    coverage: float
    too_low: float
    too_high: float
    one_look: float


def coverage_after_stopping(population: Population, rule: StoppingRule, studies: int, seed: int = 0) -> Stopped:
    """Draw studies from a population, add seeds until the rule stops, and compare the last interval with the truth.

    Args:
        population: the population.
        rule: the rule.
        studies: number of studies.
        seed: seed of the draws.
    """
    generator = np.random.default_rng([seed, rule.max_seeds])
    last, side, first_side = (np.zeros(studies) for _ in range(3))
    for number in range(studies):
        widths: list[float] = []
        for seeds, savings, truth in _looks(population, rule, generator):
            last[number], side[number] = seeds, _side(savings, truth)
            if not widths or min(widths) > rule.until_width:  # no look before this one was narrow
                first_side[number] = side[number]
            widths.append(float(np.nan_to_num(width(savings), nan=np.inf)))
            if rule.is_narrow(widths):
                break
    low, high = float((side < 0).mean()), float((side > 0).mean())
    return Stopped(float(last.mean()), 1 - low - high, low, high, float((first_side == 0).mean()))


def _side(savings: Inversion, truth: float) -> int:
    """Return on which side of the truth the interval lies: -1 below, 1 above, 0 if it holds the truth."""
    return int(is_above(savings.low, truth)) - int(is_below(savings.high, truth))


def _looks(
    population: Population, rule: StoppingRule, generator: np.random.Generator
) -> Iterator[tuple[int, Inversion, float]]:
    """Yield the number of seeds, the savings and the truth at each look of a study."""
    policy, reference = population.draw(generator, rule.max_seeds, default_reference_seeds(rule.max_seeds))
    for seeds in rule.looks(FIRST_SEEDS):
        measured = label_savings(
            Curve(policy.labels_T, policy.values_ST[:seeds]),
            Curve(reference.labels_T, reference.values_ST[: default_reference_seeds(seeds)]),
            population.metric,
        )
        yield seeds, measured.savings, population.truth(measured.budget.labels)
