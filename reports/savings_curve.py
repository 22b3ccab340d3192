"""Label savings at any level, with a band that holds for all levels at once.

A level is named by the number of labels m with which the reference reaches it. The savings at m are 1 - n / m, where n
is the number of labels with which the policy reaches the reference's mean at m. Each level has its own interval by test
inversion (`low`, `high`). The simultaneous band (`band_low`, `band_high`) uses a larger critical value c, so that all
of its intervals hold together in 95% of all studies: c is the 95% quantile of the largest |t| over all levels, where
t at the estimates is a multivariate t process whose correlation is that of the seeds at hand (Montiel Olea and
Plagborg-Moller 2019, Journal of Applied Econometrics 34).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri, stdtr

from balbench.reports.curve_checks import check_score
from balbench.reports.curves import Curve
from balbench.reports.differences import FEWEST_SEEDS, differences
from balbench.reports.inversion import (
    CONFIDENCE,
    Estimate,
    Kind,
    Path,
    critical_z,
    ends_at,
    monotone_z,
    point_at,
    refined,
)
from balbench.reports.learning import direction

STEPS = 4  # points between two rounds, fewer than for the headline, because there are many levels
DRAWS = 2000  # of the t process
_SEED = 20_241
_SINGLE = critical_z(CONFIDENCE)  # of a single level


def savings_curve(policy: Curve, reference: Curve, metric: str) -> pd.DataFrame:
    """Measure the savings at the level of each round of the reference.

    Args:
        policy: the policy's curve.
        reference: the reference's curve.
        metric: name of the metric, which gives the direction.

    Returns:
        One row for each round of the reference but the first: `reference_labels` (m) and `level` (its mean there),
        `savings`, `low`, `high`, `band_low`, `band_high` each with a column `..._kind` (see `Kind`; a bound is in the
        same column as a number), `first_crossing` and `lasting_crossing`: labels at which the policy's mean first
        reaches the level, and from which on it stays there; infinite if it does not. Intervals are missing with fewer
        than three seeds.

    Raises:
        BalbenchError: the metric has no savings.
    """
    sign, grid_G = direction(metric), refined(policy.labels_T, STEPS)
    has_interval = min(len(policy.seeds_S), len(reference.seeds_S)) >= FEWEST_SEEDS
    own_SG, other_MT = sign * policy.at(grid_G), sign * reference.values_ST
    compared = [
        differences(own_SG, policy.seeds_S, other_MT[:, step, None], reference.seeds_S)
        for step in range(1, len(reference.labels_T))
    ]
    paths = [Path(grid_G, np.full(len(grid_G), labels)) for labels in reference.labels_T[1:]]
    scores = [monotone_z(each) for each in compared]
    points = [point_at(*each) for each in zip(paths, compared, scores, strict=True)]
    critical = _critical(policy, reference, sign, points) if has_interval and points else np.nan
    rows = []
    for step, (path, z_G, (estimate, _)) in enumerate(zip(paths, scores, points, strict=True), start=1):
        row = {"reference_labels": reference.labels_T[step], "level": reference.mean_T[step]}
        row |= _columns("savings", estimate) | _crossings(policy, reference.mean_T[step], sign)
        if has_interval:
            row |= _interval(path, z_G, _SINGLE, "")
            row |= _interval(path, z_G, critical, "band_")
        rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


def labels_to(curve: Curve, target: float, metric: str) -> tuple[float, float, float]:
    """Return the labels with which a curve reaches a target, and the 95% interval of this number.

    Args:
        curve: the curve.
        target: a value of the metric.
        metric: name of the metric, which gives the direction.

    Returns:
        The estimate, the lower and the upper end. 0 means fewer labels than the first round has, infinity more than the
        last round has; the ends are NaN with fewer than three seeds.

    Raises:
        BalbenchError: the metric has no direction, or the target is not a finite number in the metric's range.
    """
    sign, grid_G = direction(metric), refined(curve.labels_T)
    check_score("target", target, metric)
    values_SG = sign * (curve.at(grid_G) - target)
    compared = differences(values_SG, curve.seeds_S, np.zeros_like(values_SG), curve.seeds_S)
    path, z_G = Path(grid_G, np.ones(len(grid_G))), monotone_z(compared)
    labels = [_labels(point_at(path, compared, z_G)[0])]
    if len(curve.seeds_S) < FEWEST_SEEDS:
        return labels[0], np.nan, np.nan
    low, high = ends_at(path, z_G, _SINGLE)
    return labels[0], _labels(high), _labels(low)


def _labels(savings: Estimate) -> float:
    """Return n of savings 1 - n."""
    return {Kind.EXACT: 1 - savings.value, Kind.AT_LEAST: 0.0, Kind.AT_MOST: np.inf}[savings.kind]


def _critical(policy: Curve, reference: Curve, sign: int, points: list[tuple[Estimate, float]]) -> float:
    """Return the critical z score for all levels together."""
    labels_L = np.array([labels for _, labels in points])
    own_SL, other_ML = sign * policy.at(labels_L), sign * reference.values_ST[:, 1:]
    compared = differences(own_SL, policy.seeds_S, other_ML, reference.seeds_S)
    seeds = np.union1d(policy.seeds_S, reference.seeds_S)
    part_UL = np.zeros((len(seeds), len(labels_L)))
    part_UL[np.searchsorted(seeds, policy.seeds_S)] += (own_SL - own_SL.mean(axis=0)) / len(own_SL)
    part_UL[np.searchsorted(seeds, reference.seeds_S)] -= (other_ML - other_ML.mean(axis=0)) / len(other_ML)
    norm_L = np.sqrt((part_UL**2).sum(axis=0))
    varies_L = norm_L > 0
    if not varies_L.any():
        return np.inf
    generator = np.random.default_rng(_SEED)
    normal_DL = generator.normal(size=(DRAWS, len(seeds))) @ (part_UL[:, varies_L] / norm_L[varies_L])
    freedom = float(np.median(compared.freedom_H[varies_L]))
    largest_D = np.abs(normal_DL).max(axis=1) / np.sqrt(generator.chisquare(freedom, DRAWS) / freedom)
    return float(-ndtri(stdtr(freedom, -np.quantile(largest_D, CONFIDENCE))))


def _crossings(policy: Curve, level: float, sign: int) -> dict[str, float]:
    above_T = sign * policy.mean_T >= sign * level
    if not above_T.any():
        return {"first_crossing": np.inf, "lasting_crossing": np.inf}
    below = np.flatnonzero(~above_T)
    last = below[-1] + 1 if len(below) else 0
    lasting = _crossing(policy, level, last) if last < len(above_T) else np.inf
    return {"first_crossing": _crossing(policy, level, int(above_T.argmax())), "lasting_crossing": lasting}


def _crossing(policy: Curve, level: float, step: int) -> float:
    """Return the labels, between the round before a step and the step, at which the mean is at a level."""
    if step == 0:
        return float(policy.labels_T[0])
    (before, after), (start, end) = policy.mean_T[step - 1 : step + 1], policy.labels_T[step - 1 : step + 1]
    return float(start + (level - before) / (after - before) * (end - start))


def _interval(path: Path, z_G: np.ndarray, critical: float, prefix: str) -> dict[str, Any]:
    low, high = ends_at(path, z_G, critical)
    return _columns(f"{prefix}low", low) | _columns(f"{prefix}high", high)


def _columns(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: estimate.value, f"{name}_kind": str(estimate.kind)}


_NUMBERS = ["savings", "low", "high", "band_low", "band_high"]
_COLUMNS = [
    *["reference_labels", "level", *(name for number in _NUMBERS for name in (number, f"{number}_kind"))],
    *["first_crossing", "lasting_crossing"],
]
