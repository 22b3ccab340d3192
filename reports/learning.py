"""Whether a model learnt beyond chance: the condition for any statement about label savings.

Savings compare the numbers of labels at which two policies reach a level. Where the reference did not learn, its final
level is noise, and so is every number of labels at which a curve crosses that level. These conditions must hold
for a level:

1. The gain over chance at the last round is positive. Chance is the score of a model that predicts 1/2 for every pair:
   a log-likelihood of -ln 2, an accuracy of 1/2, a Brier score of 1/4 for single votes.
2. The last round is better than the first, by a paired t test over seeds.
3. No earlier round is better than the last, by paired t tests over seeds with Bonferroni's correction for the number
   of rounds. More labels make the model of a declining curve worse, so labels to reach its end mean nothing.

Each is a one-sided test at 2.5%, so labels that are coin flips give a level in at most 2.5% of all comparisons.

The error of the gain. Write v_si = mu + a_s + b_i + e_si for the score of the model of seed s on held-out pair i: all
seeds share the pairs, so b_i does not average out over S seeds. The mean over n pairs and S seeds has the variance

    var(a)/S + var(b)/n + var(e)/(S n).

The sample variance of the seeds' means, divided by S, estimates var(a)/S + var(e)/(S n). The square of a seed's
standard error over pairs (clustered by prompt, see `balbench.harness.metrics`) estimates (var(b) + var(e))/n. The sum
of both is never too small in expectation, and too large by var(e)/n:

    error^2 = s^2/S + mean over seeds of (pair error)^2.

The gain is compared with Student's t at the degrees of freedom of Welch and Satterthwaite: the first term has S - 1,
the second, from many pairs, is taken as known. Sources: the two-way random-effects model of generalisability theory
(Brennan 2001, Generalizability Theory, chapter 3); Satterthwaite 1946, Biometrics Bulletin 2.

With a single seed there is no variance over seeds. Both tests then use the errors over pairs only, which is still
valid for coin flips: the expected score of any predictions on random labels is at most chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from balbench.harness.errors import BalbenchError
from balbench.reports.curves import Curve

NOT_ABOVE_CHANCE = "not above chance"
NOT_ABOVE_FIRST = "not above the first round"
ONE_ROUND = "one round only"
DECLINES = "declines"

LEVEL = 0.025  # significance level of each one-sided test
_NORMAL = 1e9  # degrees of freedom at which Student's t is the normal distribution

DIRECTIONS = {"log_likelihood": 1, "accuracy": 1, "brier": -1}
CHANCE = {"log_likelihood": -math.log(2), "accuracy": 0.5, "brier": 0.25}


@dataclass(frozen=True)
class Learning:
    """The learning of a curve, in the metric's own unit; positive is better.

    Attributes:
        chance: the score of a model that predicts 1/2 for every pair.
        gain: the mean of the last round minus chance.
        gain_error: the standard error of `gain` over seeds and held-out pairs; NaN if unknown.
        growth: the mean of the last round minus the mean of the first.
        growth_error: the standard error of `growth` over seeds; of a single seed, over held-out pairs; NaN if unknown.
        decline: the mean of the best round minus the mean of the last, at least 0.
        missing: the condition for a level that fails (NOT_ABOVE_CHANCE, ONE_ROUND, NOT_ABOVE_FIRST or DECLINES); empty
            where the curve learnt beyond chance.
    """

    chance: float
    gain: float
    gain_error: float
    growth: float
    growth_error: float
    decline: float
    missing: str


def direction(metric: str) -> int:
    """Return 1 if more of the metric is better, -1 if less is.

    Raises:
        BalbenchError: the metric has no savings.
    """
    if not isinstance(metric, str) or metric not in DIRECTIONS:
        raise BalbenchError(f"no savings for the metric {metric!r}; choose one of: {', '.join(DIRECTIONS)}")
    return DIRECTIONS[metric]


def learning(curve: Curve, metric: str, chance: float | None = None) -> Learning:
    """Test whether a curve learnt beyond chance (see the module).

    Args:
        curve: the curve of the reference. Without `pair_errors` only the error over seeds is used, which is too small,
            because all seeds share the held-out pairs.
        metric: name of the metric, which gives direction and chance.
        chance: the score of a model that predicts 1/2 for every pair; by default, that of the metric.

    Raises:
        BalbenchError: the metric has no savings.
    """
    sign = direction(metric)
    chance = CHANCE[metric] if chance is None else chance
    first_S, last_S = sign * curve.values_ST[:, 0], sign * curve.values_ST[:, -1]
    gain, growth = float(last_S.mean() - sign * chance), float((last_S - first_S).mean())
    gain_error, gain_freedom = _gain_error(last_S, _pair_error(curve, -1))
    growth_error, growth_freedom = _growth_error(last_S - first_S, curve)
    missing = ""
    if not _exceeds_zero(gain, gain_error, gain_freedom):
        missing = NOT_ABOVE_CHANCE
    elif len(curve.labels_T) < 2:
        missing = ONE_ROUND
    elif not _exceeds_zero(growth, growth_error, growth_freedom):
        missing = NOT_ABOVE_FIRST
    elif _declines(sign * curve.values_ST):
        missing = DECLINES
    decline = float((sign * curve.mean_T).max() - last_S.mean())
    return Learning(chance, gain, gain_error, growth, growth_error, decline, missing)


def seed_error(values_S: np.ndarray) -> float:
    """Return the standard error of a mean over seeds; NaN for a single seed."""
    return float(values_S.std(ddof=1) / math.sqrt(len(values_S))) if len(values_S) > 1 else math.nan


def _pair_error(curve: Curve, step: int) -> float:
    """Return the root mean square over seeds of the errors over pairs at a round; NaN if unknown."""
    return math.nan if curve.pair_errors_ST is None else float(np.sqrt(np.mean(curve.pair_errors_ST[:, step] ** 2)))


def _gain_error(last_S: np.ndarray, pair_error: float) -> tuple[float, float]:
    """Return the standard error of the mean of the last round, and its degrees of freedom."""
    over_seeds = seed_error(last_S)
    if math.isnan(over_seeds):
        return pair_error, _NORMAL
    known = 0.0 if math.isnan(pair_error) else pair_error
    variance = over_seeds**2 + known**2
    freedom = (len(last_S) - 1) * (variance / over_seeds**2) ** 2 if over_seeds else _NORMAL
    return math.sqrt(variance), min(freedom, _NORMAL)


def _growth_error(growth_S: np.ndarray, curve: Curve) -> tuple[float, float]:
    if len(growth_S) > 1:
        return seed_error(growth_S), len(growth_S) - 1
    return math.hypot(_pair_error(curve, 0), _pair_error(curve, -1)), _NORMAL


def _declines(values_ST: np.ndarray) -> bool:
    """Test whether an earlier round is better than the last; a single seed cannot show it."""
    S, T = values_ST.shape
    if S < 2:
        return False
    drop_ST = values_ST[:, :-1] - values_ST[:, -1:]
    error_T = drop_ST.std(axis=0, ddof=1) / math.sqrt(S)
    return bool((drop_ST.mean(axis=0) > float(stdtrit(S - 1, 1 - LEVEL / (T - 1))) * error_T).any())


def _exceeds_zero(mean: float, error: float, freedom: float) -> bool:
    """Test one-sided at `LEVEL` whether a mean is above zero; an unknown error (NaN) says no."""
    return bool(mean > float(stdtrit(freedom, 1 - LEVEL)) * error)
