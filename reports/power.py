"""How many seeds a study needs, from the variances of a run with the same data set, posterior and protocol.

The variance of the difference at equal numbers of labels, for S seeds of the policy and M >= S of the reference, is

    var(p) / S + var(r) / M - 2 cov(p, r) / M

with variances and covariance over the seeds at hand. Two questions follow from it:

- The width of the 95% interval is proportional to the critical value of Student's t times the standard error.
- The power to find savings of `effect`. A policy that saves this share reaches with N (1 - effect) labels what the
  reference reaches with N, so at N labels it is ahead by g log2(1 / (1 - effect)), where g is the reference's gain in
  its last doubling of labels. The power is that of a two-sided t test with a noncentral t distribution (Cohen 1988,
  Statistical Power Analysis, chapter 2), at the level of a single comparison or of Holm's first step.

The savings' own test also uses the rounds around the last one, so where the noise of a seed changes from round to round
it finds more than this.

Both take the variances as known, although they come from the run's seeds: with five seeds, they may be wrong by a
factor of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import nctdtr, stdtrit

from balbench.harness.errors import BalbenchError, shortened
from balbench.reports.curves import Curve, check_run
from balbench.reports.differences import FEWEST_SEEDS
from balbench.reports.inversion import CONFIDENCE, Kind
from balbench.reports.learning import DECLINES, NOT_ABOVE_CHANCE, NOT_ABOVE_FIRST, ONE_ROUND, direction
from balbench.reports.resolution import gain_of_last_doubling
from balbench.reports.savings import label_savings
from balbench.reports.savings_table import NO_PAIR_ERRORS, records, report_curves, savings_table
from balbench.reports.statement import why_no_level
from balbench.reports.wording import split_name

if TYPE_CHECKING:
    from balbench.harness.results import Run

MOST_SEEDS = 2000
_REMEDIES = {
    NOT_ABOVE_CHANCE: "; buy more labels or check the training (more seeds only reduce the standard error)",
    NOT_ABOVE_FIRST: "",  # the reason names the remedy
    DECLINES: "",
    NO_PAIR_ERRORS: "",
    ONE_ROUND: "; raise protocol.rounds",
}
FEWEST_REFERENCE_SEEDS = 20  # as in a study without `reference_seeds`


@dataclass(frozen=True)
class Noise:
    """Variances over seeds at the end of the curves.

    Attributes:
        policy, reference: variances of a seed.
        covariance: covariance of the two for equal seeds.
    """

    policy: float
    reference: float
    covariance: float

    def error(self, seeds: int, reference_seeds: int) -> float:
        """Return the standard error of the difference of the means."""
        shared = self.covariance * min(seeds, reference_seeds) / (seeds * reference_seeds)
        return math.sqrt(max(0.0, self.policy / seeds + self.reference / reference_seeds - 2 * shared))


def power_table(
    run: Run, effect: float = 0.1, width: float = 0.2, power: float = 0.8, metric: str = "log_likelihood"
) -> pd.DataFrame:
    """Return the numbers of seeds that each policy of a run needs.

    Args:
        run: a run with at least three seeds of each policy.
        effect: savings to find, as a share of labels in (0, 1).
        width: width of the 95% interval of savings, as a share of labels, above 0.
        power: chance of finding the effect, in (0, 1).
        metric: log_likelihood, accuracy or brier.

    Returns:
        One row for each setting, split and policy other than the reference: seeds, reference_seeds and `width_now` of
        the run; `seeds_for_width` and `seeds_for_effect` (missing above 2,000 seeds or where it is unknown);
        `power_now`, the chance of finding the effect with the seeds of the run; `seeds_for_effect_holm`, as
        `seeds_for_effect` if all policies are tested together. With S seeds of the policy, the reference has
        max(20, 2 S).

    Raises:
        BalbenchError: an argument is out of range, or no policy has enough seeds.
    """
    for name, value, most in (("effect", effect, 1.0), ("width", width, math.inf), ("power", power, 1.0)):
        _check_number(name, value, most)
    check_run(run)
    curves, rows = report_curves(run), []
    table = savings_table(run, metric, curves)
    for row in table[~table["is_reference"] & (table["seeds"] >= FEWEST_SEEDS)].to_dict("records"):
        pair = curves.pair(row["setting"], row["policy"], run.reference, row["split"], metric)
        if pair is not None and not row["no_level"]:
            names = {name: row[name] for name in ("setting", "split", "policy", "seeds", "reference_seeds")}
            rows.append(names | _row(*pair, metric, effect, width, power, len(run.policies) - 1))
    if not rows:
        raise BalbenchError(f"{run.path}: {_why_no_rows(table, run.reference)}")
    return pd.DataFrame(rows)


def _check_number(name: str, value: object, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BalbenchError(f"{name} {shortened(repr(value))}: must be a number", setting=name)
    if not 0 < value < most:
        allowed = f"above 0{' and finite' if most == math.inf else ' and below 1'}"
        raise BalbenchError(f"{name} {value:g}: must be {allowed}", setting=name)


def _why_no_rows(table: pd.DataFrame, reference: str) -> str:
    """Explain why no number of seeds can be computed. More seeds help only where there are too few."""
    rows = table[~table["is_reference"] & (table["seeds"] >= FEWEST_SEEDS)]
    if not len(rows):
        return f"no policy has {FEWEST_SEEDS} seeds that {reference} has too; run the study with more seeds"
    reasons = {
        f"on {split_name(row['split'])}{f' ({setting})' if (setting := row['setting']) else ''}, "
        f"{why_no_level(row, reference)}": None
        for row in records(rows.drop_duplicates(["setting", "split"]))
    }
    first, others = next(iter(reasons)), len(reasons) - 1
    more = f" (and {others} more of this kind)" if others else ""
    remedy = _REMEDIES.get(rows["no_level"].iloc[0], "; more seeds do not help")
    return f"there is no level to plan for: {first}{more}{remedy}"


def _row(
    policy: Curve, reference: Curve, metric: str, effect: float, width: float, power: float, policies: int
) -> dict[str, float]:
    noise, sign = noise_at_end(policy, reference), direction(metric)
    ahead = gain_of_last_doubling(reference, sign) * math.log2(1 / (1 - effect))
    savings = label_savings(policy, reference, metric).savings
    exact = savings.low.kind == savings.high.kind == Kind.EXACT
    now = savings.high.value - savings.low.value if exact else math.nan
    seeds, reference_seeds = len(policy.seeds_S), len(reference.seeds_S)
    alpha = 1 - CONFIDENCE
    return {
        "width_now": now,
        "seeds_for_width": _seeds_for_width(noise, now / _half_width(noise, seeds, reference_seeds), width),
        "power_now": _power(noise, ahead, seeds, reference_seeds, alpha),
        "seeds_for_effect": _seeds_for_effect(noise, ahead, power, alpha),
        "seeds_for_effect_holm": _seeds_for_effect(noise, ahead, power, alpha / policies),
    }


def noise_at_end(policy: Curve, reference: Curve) -> Noise:
    """Estimate the variances over seeds at the last round; without two shared seeds the covariance counts as 0."""
    own_S, other_M = policy.values_ST[:, -1], reference.values_ST[:, -1]
    _, own, other = np.intersect1d(policy.seeds_S, reference.seeds_S, return_indices=True)
    covariance = float(np.cov(own_S[own], other_M[other])[0, 1]) if len(own) > 1 else 0.0
    return Noise(float(own_S.var(ddof=1)), float(other_M.var(ddof=1)), covariance)


def _planned(seeds: int) -> int:
    """Return the number of the reference's seeds in a study with this number of seeds."""
    return max(FEWEST_REFERENCE_SEEDS, 2 * seeds)


def _half_width(noise: Noise, seeds: int, reference_seeds: int) -> float:
    return float(stdtrit(seeds - 1, (1 + CONFIDENCE) / 2)) * noise.error(seeds, reference_seeds)


def _seeds_for_width(noise: Noise, scale: float, width: float) -> float:
    """Return the fewest seeds whose interval is narrow enough; `scale` turns a half width into a width of savings."""
    if not math.isfinite(scale):
        return math.nan
    fits = (s for s in range(FEWEST_SEEDS, MOST_SEEDS) if scale * _half_width(noise, s, _planned(s)) <= width)
    return next(fits, math.nan)


def _power(noise: Noise, ahead: float, seeds: int, reference_seeds: int, alpha: float) -> float:
    """Return the chance that a two-sided t test finds a difference."""
    error = noise.error(seeds, reference_seeds)
    if error == 0 or not ahead > 0:
        return float(ahead > 0)
    critical = float(stdtrit(seeds - 1, 1 - alpha / 2))
    return float(1 - nctdtr(seeds - 1, ahead / error, critical))


def _seeds_for_effect(noise: Noise, ahead: float, power: float, alpha: float) -> float:
    if not ahead > 0:
        return math.nan
    enough = (s for s in range(FEWEST_SEEDS, MOST_SEEDS) if _power(noise, ahead, s, _planned(s), alpha) >= power)
    return next(enough, math.nan)
