"""How often the 95% interval of label savings holds the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balbench.benchmarks.trust.populations import Population
from balbench.reports.inversion import Estimate, Inversion, Kind
from balbench.reports.savings import label_savings

COVERAGE = (0.93, 0.97)  # what a row must keep
MOST_MISSES = 0.04  # on one side
BIAS = 0.02


@dataclass(frozen=True)
class Coverage:
    """The result of many studies of one population.

    Attributes:
        population, metric: their names.
        seeds, reference_seeds: numbers of seeds of policy and reference in each study.
        studies: number of studies.
        truth: savings of the population at its budget.
        coverage: share of the studies whose interval holds the truth of the study's budget.
        too_low: share whose interval lies below the truth; too_high: above.
        bias: median estimate minus truth.
        width: median width of the interval, where both ends are numbers; NaN if that is rare.
        claims: share of the studies that claim savings or losses by their p-value.
    """

    population: str
    metric: str
    seeds: int
    reference_seeds: int
    studies: int
    truth: float
    coverage: float
    too_low: float
    too_high: float
    bias: float
    width: float
    claims: float

    @property
    def verdict(self) -> str:
        """What the row says: "met", or what it misses.

        - too narrow: coverage below 93%;
        - one-sided: more than 4% of the intervals on one side of the truth;
        - conservative: coverage above 97%, so the interval is wider than it must be;
        - biased: the median estimate is more than 2 points from the truth.
        """
        low, high = COVERAGE
        share = round(self.coverage, 3)  # as printed
        faults = {
            "too narrow": share < low,
            "one-sided": round(max(self.too_low, self.too_high), 3) > MOST_MISSES,
            "conservative": share > high,
            "biased": round(abs(self.bias), 3) > BIAS,
        }
        return ", ".join(name for name, is_fault in faults.items() if is_fault) or "met"


def coverage(population: Population, seeds: int, reference_seeds: int, studies: int, seed: int = 0) -> Coverage:
    """Draw studies from a population and compare their intervals with the truth.

    Args:
        population: the population.
        seeds: number of seeds of the policy.
        reference_seeds: number of seeds of the reference.
        studies: number of studies.
        seed: seed of the draws.
    """
    generator = np.random.default_rng([seed, seeds, reference_seeds])
    truth = population.truth(float(population.reference.labels_T[-1]))
    below = above = claims = 0
    errors, widths = np.zeros(studies), np.full(studies, np.nan)
    for number in range(studies):
        policy, reference = population.draw(generator, seeds, reference_seeds)
        measured = label_savings(policy, reference, population.metric)
        own_truth = truth if measured.budget.gain == 1 else population.truth(measured.budget.labels)
        savings = measured.savings
        below += is_below(savings.high, own_truth)
        above += is_above(savings.low, own_truth)
        claims += savings.p_value <= 0.05
        errors[number], widths[number] = savings.estimate.value - own_truth, width(savings)
    return Coverage(
        population=population.name,
        metric=population.metric,
        seeds=seeds,
        reference_seeds=reference_seeds,
        studies=studies,
        truth=truth,
        coverage=1 - (below + above) / studies,
        too_low=below / studies,
        too_high=above / studies,
        bias=float(np.median(errors)),
        width=float(np.nanmedian(widths)) if np.isfinite(widths).mean() > 0.5 else np.nan,
        claims=claims / studies,
    )


def is_below(high: Estimate, truth: float) -> bool:
    """Return whether an interval with this upper end lies below the truth."""
    return bool(high.kind != Kind.AT_LEAST and high.value < truth - 1e-9)


def is_above(low: Estimate, truth: float) -> bool:
    """Return whether an interval with this lower end lies above the truth."""
    return bool(low.kind != Kind.AT_MOST and low.value > truth + 1e-9)


def width(savings: Inversion) -> float:
    """Return the width of an interval; NaN if an end is only a bound."""
    exact = savings.low.kind == savings.high.kind == Kind.EXACT
    return savings.high.value - savings.low.value if exact else np.nan
