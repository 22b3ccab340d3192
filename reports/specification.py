"""The specification check: do votes follow the predicted logits equally well among near and among far pairs?

A reward model predicts the logit of a vote. If its form is right, votes depend on this logit with a slope of 1 in any
group of held-out pairs. A model whose logits grow with the distance |phi(y1) - phi(y2)| of the responses expects far
pairs to be clear-cut. Where votes on far pairs are no clearer than others, the slope is above 1 among near pairs and
below 1 among far pairs, and no global temperature or calibration error shows the misfit. Uncertainty policies buy far
pairs, so the misfit confounds their comparison.

Axes: S seeds, N held-out pairs, V votes (held-out pairs with a vote, once for each seed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from balbench.reports.savings_table import SPLITS, records
from balbench.reports.wording import split_name

if TYPE_CHECKING:
    from balbench.harness.results import HeldOut, Run

Array = np.ndarray
EDGES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # quantiles of the distance
BINS = ("nearest quarter", "25 to 50%", "50 to 75%", "75 to 90%", "farthest tenth")
ALL_PAIRS, FARTHEST = "all pairs", BINS[-1]
MISFIT = 0.8  # see `misfits`
STEEPEST = 1e3  # slopes beyond it count as unknown
NORMAL_975 = 1.959964
OLDER_VERSION = "an older version of balbench made the run, without predictions of held-out pairs; run the study again"
DELETED = "the files predictions.f16 of the reference are missing"
NO_ROUNDS = "the reference has no finished rounds"
COLUMNS = [
    *["setting", "split", "bin", "low", "high", "pairs", "seeds", "distance"],
    *["slope", "slope_se", "slope_low", "slope_high", "accuracy", "accuracy_se"],
]


class Slope(NamedTuple):
    """A slope of votes on predicted logits, and its standard error; NaN where it is unknown."""

    value: float
    error: float


def vote_slope(logit_V: Array, share_V: Array, cluster_V: Array) -> Slope:
    """Fit the logistic regression, without intercept, of votes on predicted logits by maximum likelihood.

    The slope is 1 / T for the temperature T that would calibrate these predictions. Its error is the sandwich estimate
    for scores that are independent between clusters only.

    Args:
        logit_V: predicted logits.
        share_V: share of votes for the first response.
        cluster_V: the prompt of each pair, as an index from 0.

    Returns:
        The slope; NaN if all logits are 0 or the slope is beyond +-1000. The error is NaN for fewer than two clusters.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    def score(slope: float) -> float:
        return float(np.sum(logit_V * (share_V - expit(slope * logit_V))))

    if not score(-STEEPEST) > 0 > score(STEEPEST):
        return Slope(np.nan, np.nan)
    slope = float(brentq(score, -STEEPEST, STEEPEST))
    predicted_V = expit(slope * logit_V)
    information = float(np.sum(logit_V**2 * predicted_V * (1 - predicted_V)))
    return Slope(slope, _clustered_sum_error(logit_V * (share_V - predicted_V), cluster_V) / information)


def specification(run: Run, setting: str, split: str) -> pd.DataFrame:
    """Check the last fit of the reference by distance, on the held-out pairs of a split.

    The pairs of all seeds with the most rounds are taken together; errors are clustered by prompt, so they describe
    other held-out prompts for the same models.

    Args:
        run: from `balbench.harness.results.read_run`.
        setting: a setting of the run.
        split: "test" or "ood".

    Returns:
        One row for `ALL_PAIRS` and for each of `BINS`, or no rows if the run has no predictions (see `why_missing`):

        - setting, split, bin; low, high: quantiles of the distance between which the bin's pairs are;
        - pairs, seeds: numbers of pairs with a vote, and of seeds;
        - distance: mean distance of the bin over the mean distance of all pairs;
        - slope, slope_se, slope_low, slope_high: see `vote_slope`, with a 95% interval;
        - accuracy, accuracy_se: share of votes that the model predicts.

    Raises:
        RunDirectoryError: a file of the run is damaged.
    """
    return _slopes(run, setting, [split])


def why_missing(run: Run, setting: str) -> str:
    """Explain why a setting has no specification check; empty if it has one."""
    if not len(_reference_cells(run, setting)):
        return NO_ROUNDS
    if run.held_out(setting) is None:
        return OLDER_VERSION
    return DELETED if _last_logits(run, setting) is None else ""


def bought_distances(run: Run, setting: str) -> pd.DataFrame:
    """Return how far apart the responses of the acquired pairs are, as means over rounds and seeds.

    Returns:
        One row for each policy that has acquired a batch: setting, policy, seeds, distance_mean (mean distance of a
        batch over the pool's mean) and farthest_share (share of a batch among the farthest 5% of the pool; 0.05 for a
        random choice). No rows for runs of older versions.
    """
    frame = run.curves
    metrics = ["distance_mean", "farthest_share"]
    frame = frame[(frame["setting"] == setting) & (frame["split"] == "batch") & frame["metric"].isin(metrics)]
    means = frame.groupby(["policy", "seed", "metric"])["value"].mean().unstack().reindex(columns=metrics)
    table = means.groupby("policy").mean()
    table.insert(0, "seeds", means.groupby("policy").size())
    table = table.reindex([policy for policy in run.policies if policy in table.index])
    return table.rename_axis("policy").reset_index().assign(setting=setting)[["setting", "policy", "seeds", *metrics]]


@dataclass(frozen=True)
class SpecificationCheck:
    """The specification check of all settings of a run.

    Attributes:
        slopes: the rows of `specification`.
        bought: the rows of `bought_distances`.
        missing: why settings have no check, by setting.
        texts: warnings (see `misfit_texts`).
    """

    slopes: pd.DataFrame
    bought: pd.DataFrame
    missing: dict[str, str]
    texts: list[str]


def check_specification(run: Run) -> SpecificationCheck:
    """Check all settings and splits of a run.

    Raises:
        RunDirectoryError: a file of the run is damaged.
    """
    settings = list(dict.fromkeys(run.cells["setting"]))
    slopes = _joined([_slopes(run, setting, SPLITS) for setting in settings])
    bought = _joined([bought_distances(run, setting) for setting in settings])
    checked = set(slopes["setting"])
    missing = {setting: why_missing(run, setting) for setting in settings if setting not in checked}
    return SpecificationCheck(slopes, bought, missing, misfit_texts(slopes, bought, run.reference, len(settings)))


def specification_texts(run: Run) -> list[str]:
    """Return the warnings about a run whose reward model does not fit far pairs (see `misfit_texts`)."""
    return check_specification(run).texts


def misfits(slopes: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `FARTHEST` that show a misfit, with the slope of all pairs as `overall`.

    The rule: the upper end of the slope's 95% interval is below `MISFIT` times the slope of all pairs, and the latter
    is clearly positive. The comparison with all pairs sets a global lack of calibration aside.
    """
    key = ["setting", "split"]
    overall = slopes[slopes["bin"] == ALL_PAIRS].rename(columns={"slope": "overall", "slope_low": "overall_low"})
    far = slopes[slopes["bin"] == FARTHEST].merge(overall[[*key, "overall", "overall_low"]], on=key)
    return far[(far["overall_low"] > 0) & (far["slope_high"] < MISFIT * far["overall"])]


def misfit_texts(slopes: pd.DataFrame, bought: pd.DataFrame, reference: str, settings: int) -> list[str]:
    """Describe misfits, one text for all settings and splits of a run; no text if there are none.

    Args:
        slopes: from `specification`.
        bought: from `bought_distances`.
        reference: label of the reference.
        settings: how many settings the study has.
    """
    rows = records(misfits(slopes))
    if not rows:
        return []
    worst = min(rows, key=lambda row: row["slope"] / row["overall"])
    splits = " and ".join(dict.fromkeys(split_name(row["split"]) for row in rows))
    affected = len({row["setting"] for row in rows})
    scope = f" in {affected} of {settings} settings" if settings > 1 else ""
    interval = f"{worst['slope']:.2f} [{worst['slope_low']:.2f}, {worst['slope_high']:.2f}]"
    return [
        f"Misfit on {splits}{scope}: among the farthest tenth of {split_name(worst['split'])} pairs, votes follow the "
        f"logits of {reference}'s last fit with a slope of {interval}, against {worst['overall']:.2f} for all pairs. "
        "The posterior expects pairs that are far apart to be clear-cut, and the votes are not. This is a sign of "
        f"misfit, not of who wins: policies that buy far pairs{_farthest_buyer(bought, worst['setting'])} may lose or "
        "lead because of it. Compare the verdict under a second posterior."
    ]


def _farthest_buyer(bought: pd.DataFrame, setting: str) -> str:
    """Name the policy that buys the farthest pairs of a setting, in brackets."""
    rows = [row for row in records(bought[bought["setting"] == setting]) if np.isfinite(row["distance_mean"])]
    if not rows:
        return ""
    farthest = max(rows, key=lambda row: row["distance_mean"])
    return f" ({farthest['policy']} most: {farthest['distance_mean']:.2f} times the pool's mean distance)"


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tables with the same columns; tables without rows have no types and are left out."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _reference_cells(run: Run, setting: str) -> pd.DataFrame:
    """Return the cells of the reference with the most finished rounds, at least one."""
    cells = run.cells
    cells = cells[(cells["setting"] == setting) & (cells["policy"] == run.reference) & (cells["rounds_done"] > 0)]
    return cells[cells["rounds_done"] == cells["rounds_done"].max()]


def _last_logits(run: Run, setting: str) -> dict[str, Array] | None:
    """Return the logits (S, N) of the reference's last fit by split; None if there are no predictions."""
    cells = [run.predictions(setting, run.reference, seed) for seed in _reference_cells(run, setting)["seed"]]
    known = [cell for cell in cells if cell is not None]
    if not known:
        return None
    return {split: np.stack([cell[split][-1] for cell in known]).astype(np.float64) for split in known[0]}


def _slopes(run: Run, setting: str, splits: Sequence[str]) -> pd.DataFrame:
    """Return the rows of `specification` for several splits of a setting."""
    held_out, logits = run.held_out(setting), _last_logits(run, setting)
    rows = [
        {"setting": setting, "split": split, **row}
        for split in splits
        if held_out is not None and logits is not None and split in held_out and split in logits
        for row in _rows(logits[split], held_out[split])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(logit_SN: Array, held_out: HeldOut) -> list[dict[str, object]]:
    """Return the rows of `specification` for the logits of a split."""
    voted_N = ~np.isnan(held_out.share_N)
    logit_SN, distance_N = logit_SN[:, voted_N], held_out.distance_N[voted_N].astype(np.float64)
    share_N, prompt_N = held_out.share_N[voted_N], held_out.prompt_N[voted_N]
    bin_N = np.searchsorted(np.quantile(distance_N, EDGES[1:-1]), distance_N)
    groups = [(ALL_PAIRS, EDGES[0], EDGES[-1], np.ones(len(bin_N), dtype=bool))]
    groups += [(name, EDGES[i], EDGES[i + 1], bin_N == i) for i, name in enumerate(BINS)]
    return [
        {"bin": name, "low": low, "high": high, "pairs": int(inside_N.sum()), "seeds": len(logit_SN)}
        | {"distance": _mean(distance_N[inside_N]) / (_mean(distance_N) or np.nan)}
        | _fit(logit_SN[:, inside_N], share_N[inside_N], prompt_N[inside_N])
        for name, low, high, inside_N in groups
    ]


def _fit(logit_SN: Array, share_N: Array, prompt_N: Array) -> dict[str, float]:
    """Return slope and accuracy of a group of pairs over all seeds."""
    logit_V, share_V, prompt_V = (each.ravel() for each in np.broadcast_arrays(logit_SN, share_N[None], prompt_N[None]))
    slope, error = vote_slope(logit_V, share_V, prompt_V)
    agree_V = np.where(logit_V > 0, share_V, np.where(logit_V < 0, 1 - share_V, 0.5))
    accuracy = _mean(agree_V)
    accuracy_error = _clustered_sum_error(agree_V - accuracy, prompt_V) / max(len(agree_V), 1)
    return {
        "slope": slope,
        "slope_se": error,
        "slope_low": slope - NORMAL_975 * error,
        "slope_high": slope + NORMAL_975 * error,
        "accuracy": accuracy,
        "accuracy_se": accuracy_error,
    }


def _clustered_sum_error(value_V: Array, cluster_V: Array) -> float:
    """Return the standard error of a sum of values with mean 0 that are independent between clusters only."""
    clusters = len(np.unique(cluster_V))
    if clusters < 2:
        return float("nan")
    sum_P = np.bincount(cluster_V, weights=value_V)
    return float(np.sqrt(clusters / (clusters - 1) * np.sum(sum_P**2)))


def _mean(value_N: Array) -> float:
    return float(value_N.mean()) if len(value_N) else float("nan")
