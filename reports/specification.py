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
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from balbench.reports.curves import check_run, chosen
from balbench.reports.run_scores import RunScores
from balbench.reports.savings_table import SPLITS, records
from balbench.reports.vote_slopes import Slope, clustered_sum_error, slope_trend, vote_slope
from balbench.reports.wording import split_name

if TYPE_CHECKING:
    from balbench.harness.results import HeldOut, Run

Array = np.ndarray
EDGES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # quantiles of the distance
BINS = ("nearest quarter", "25 to 50%", "50 to 75%", "75 to 90%", "farthest tenth")
ALL_PAIRS, FARTHEST, TREND = "all pairs", BINS[-1], "change, nearest to farthest"
MISFIT = 0.8  # see `misfits`
NORMAL_975 = 1.959964
OLDER_VERSION = "an older version of balbench made the run, without predictions of held-out pairs; run the study again"
DELETED = "the files predictions.f16 of the reference are missing or damaged"
DAMAGED = "the file held_out.safetensors is damaged"
NO_ROUNDS = "the reference has no finished rounds"
COLUMNS = [
    *["setting", "split", "bin", "low", "high", "pairs", "seeds", "distance"],
    *["slope", "slope_se", "slope_low", "slope_high", "accuracy", "accuracy_se"],
]


def specification(run: Run, setting: str | None = None, split: str = "test") -> pd.DataFrame:
    """Check the last fit of the reference by distance, on the held-out pairs of a split.

    The pairs of all seeds with the most rounds are taken together; errors are clustered by prompt, so they describe
    other held-out prompts for the same models.

    Args:
        run: from `balbench.harness.results.read_run`.
        setting: a setting of the run; by default the first.
        split: "test" or "ood".

    Returns:
        One row for `ALL_PAIRS`, each of `BINS` and `TREND`, or no rows without predictions (see `why_missing`):

        - setting, split, bin; low, high: quantiles of the distance between which the bin's pairs are;
        - pairs, seeds: numbers of pairs with a vote, and of seeds;
        - distance: mean distance of the bin over the mean distance of all pairs;
        - slope, slope_se, slope_low, slope_high: see `vote_slope`, with a 95% interval; for `TREND` see `slope_trend`;
        - accuracy, accuracy_se: share of votes that the model predicts.

    Raises:
        BalbenchError: the run has no such setting, there is no such split, or a file of the run is damaged.
    """
    check_run(run)
    chosen("split", split, SPLITS)
    return _slopes(run, run, chosen("setting", setting, run.cells["setting"]), [split])


def why_missing(run: Run, setting: str, source: RunScores | None = None) -> str:
    """Explain why a setting has no specification check; empty if it has one (arguments as in `check_specification`)."""
    if not len(_reference_cells(run, setting)):
        return NO_ROUNDS
    source = RunScores(run) if source is None else source
    if source.held_out(setting) is None:
        return DAMAGED if source.damages else OLDER_VERSION
    return DELETED if _last_logits(run, source, setting) is None else ""


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
    return (
        table.rename_axis("policy")
        .reset_index()
        .rename_axis(columns=None)
        .assign(setting=setting)[["setting", "policy", "seeds", *metrics]]
    )


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


def check_specification(run: Run, source: RunScores | None = None) -> SpecificationCheck:
    """Check all settings and splits of a run; a setting whose files are damaged has no check.

    Args:
        run: from `balbench.harness.results.read_run`.
        source: the predictions of the run; read if not given.
    """
    source = RunScores(run) if source is None else source
    settings = list(dict.fromkeys(run.cells["setting"]))
    slopes = _joined([_slopes(run, source, setting, SPLITS) for setting in settings])
    bought = _joined([bought_distances(run, setting) for setting in settings])
    checked = set(slopes["setting"])
    missing = {setting: why_missing(run, setting, source) for setting in settings if setting not in checked}
    return SpecificationCheck(slopes, bought, missing, misfit_texts(slopes, bought, run.reference, len(settings)))


def specification_texts(run: Run) -> list[str]:
    """Return the warnings about a run whose reward model does not fit far pairs (see `misfit_texts`)."""
    check_run(run)
    return check_specification(run).texts


def misfits(slopes: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `FARTHEST` that show a misfit, with the slope of all pairs as `overall`.

    The rule: the slope is below `MISFIT` times the slope of all pairs, which is clearly positive, and either the upper
    end of its 95% interval is too, or the slope clearly falls with the distance (`TREND`). The farthest tenth of a
    small split has a wide interval; the trend uses all pairs. The comparison with all pairs sets a global lack of
    calibration aside.
    """
    key = ["setting", "split"]
    far = slopes[slopes["bin"] == FARTHEST]
    for name, column, prefix in ((ALL_PAIRS, "slope", "overall"), (ALL_PAIRS, "slope_low", "overall_low")):
        rows = slopes[slopes["bin"] == name]
        far = far.merge(rows[[*key, column]].rename(columns={column: prefix}), on=key)
    trend = slopes[slopes["bin"] == TREND].rename(columns={"slope_high": "trend_high"})
    far = far.merge(trend[[*key, "trend_high"]], on=key)
    limit = MISFIT * far["overall"]
    clear = (far["slope_high"] < limit) | (far["trend_high"] < 0)
    return far[(far["overall_low"] > 0) & (far["slope"] < limit) & clear]


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
    place = f" of {worst['setting']}" if settings > 1 else ""
    group = f"the farthest tenth of {split_name(worst['split'])} pairs{place}"
    clearest = " (the clearest case)" if len(rows) > 1 else ""
    interval = f"{worst['slope']:.2f} [{worst['slope_low']:.2f}, {worst['slope_high']:.2f}]"
    return [
        f"Misfit on {splits}{scope}: among {group}{clearest}, votes follow the logits of {reference}'s last fit with a "
        f"slope of {interval}, against {worst['overall']:.2f} for all pairs. Compared with other pairs, the votes on "
        "pairs that are far apart are less clear-cut than the posterior expects. This is a sign of misfit, not of who "
        "wins: "
        "policies that buy far pairs"
        f"{_farthest_buyer(bought, worst['setting'])} may lose or lead because of it. Compare the verdict under a "
        "second posterior."
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


def _last_logits(run: Run, source: Run | RunScores, setting: str) -> dict[str, Array] | None:
    """Return the logits (S, N) of the reference's last fit by split; None if there are no predictions."""
    cells = [source.predictions(setting, run.reference, seed) for seed in _reference_cells(run, setting)["seed"]]
    known = [cell for cell in cells if cell is not None]
    if not known:
        return None
    return {split: np.stack([cell[split][-1] for cell in known]).astype(np.float64) for split in known[0]}


def _slopes(run: Run, source: Run | RunScores, setting: str, splits: Sequence[str]) -> pd.DataFrame:
    """Return the rows of `specification` for several splits of a setting."""
    held_out, logits = source.held_out(setting), _last_logits(run, source, setting)
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
    rows = [
        {"bin": name, "low": low, "high": high, "pairs": int(inside_N.sum()), "seeds": len(logit_SN)}
        | {"distance": _mean(distance_N[inside_N]) / (_mean(distance_N) or np.nan)}
        | _fit(logit_SN[:, inside_N], share_N[inside_N], prompt_N[inside_N])
        for name, low, high, inside_N in groups
    ]
    rank_N = np.argsort(np.argsort(distance_N, kind="stable"), kind="stable") / max(len(distance_N) - 1, 1)
    trend = slope_trend(*_stacked(logit_SN, share_N, prompt_N, rank_N))
    return [*rows, {**rows[0], "bin": TREND, "accuracy": np.nan, "accuracy_se": np.nan} | _slope_columns(trend)]


def _fit(logit_SN: Array, share_N: Array, prompt_N: Array) -> dict[str, float]:
    """Return slope and accuracy of a group of pairs over all seeds."""
    logit_V, share_V, prompt_V = _stacked(logit_SN, share_N, prompt_N)
    agree_V = np.where(logit_V > 0, share_V, np.where(logit_V < 0, 1 - share_V, 0.5))
    accuracy = _mean(agree_V)
    error = clustered_sum_error(agree_V - accuracy, prompt_V) / max(len(agree_V), 1)
    return _slope_columns(vote_slope(logit_V, share_V, prompt_V)) | {"accuracy": accuracy, "accuracy_se": error}


def _stacked(logit_SN: Array, *facts: Array) -> list[Array]:
    """Return the logits of all seeds (V,), and facts about pairs (N,) repeated for each seed."""
    return [logit_SN.ravel(), *(np.tile(fact_N, len(logit_SN)) for fact_N in facts)]


def _slope_columns(slope: Slope) -> dict[str, float]:
    ends = {"slope_low": slope.value - NORMAL_975 * slope.error, "slope_high": slope.value + NORMAL_975 * slope.error}
    return {"slope": slope.value, "slope_se": slope.error, **ends}


def _mean(value_N: Array) -> float:
    return float(value_N.mean()) if len(value_N) else float("nan")
