"""The savings of all policies of a run as one tidy table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from balbench.reports.crossings import Estimate, Kind
from balbench.reports.curves import Curve, Curves
from balbench.reports.learning import CHANCE, Learning, direction, learning
from balbench.reports.savings import LevelSavings, Outcome, label_savings, melo2024_savings
from balbench.reports.statistics import RESAMPLES
from balbench.reports.training import FIT, LARGEST_SHARE, Fault, initial_weights, undertrained

if TYPE_CHECKING:
    from balbench.harness.results import Run

SPLITS = ("test", "ood")  # training selects weights on eval, so scores on eval are no test
METRICS = ("log_likelihood", "accuracy", "brier")
NO_PAIR_ERRORS = "no standard errors"

_DIAGNOSTICS = ("brier_chance", "temperature", "temperature_gain")
_FIT_METRICS = ("best_is_initial", "evaluation_loss_start", "evaluation_loss_end")


def report_curves(run: Run) -> Curves:
    """Return the curves that savings, training faults and the figures of a report need."""
    needed = [*METRICS, *(f"{metric}_se" for metric in METRICS), *_DIAGNOSTICS]
    frame = run.curves
    held_out = frame["split"].isin(SPLITS) & frame["metric"].isin(needed)
    fit = (frame["split"] == FIT) & frame["metric"].isin(_FIT_METRICS)
    return Curves(frame[held_out | fit])


def savings_table(
    run: Run, metric: str = "log_likelihood", resamples: int = RESAMPLES, curves: Curves | None = None
) -> pd.DataFrame:
    """Measure every policy of a run: one row for each setting, split of `SPLITS` that has the metric, and policy.

    Args:
        run: from `balbench.harness.results.read_run`.
        metric: "log_likelihood", "accuracy" or "brier".
        resamples: number of bootstrap resamples.
        curves: `report_curves(run)`; computed if not given.

    Returns:
        These columns (savings are shares of labels, n and labels count labels, levels are in the metric's unit):

        - setting, split, metric, policy, is_reference;
        - outcome: an `Outcome`, and no_level: why the reference gives no level, empty if there is one. Without a level,
          all savings and differences below are missing;
        - seeds, rounds: numbers of seeds and rounds that policy and reference share; labels: the policy's labels at
          the last of these rounds. A policy without results has 0 seeds, and all its numbers are missing;
        - savings, kind, bound, reached: at the reference's final level; `savings` is NaN where only an upper
          bound is known, `bound` is NaN where `kind` is exact;
        - low, low_kind, low_bound, high, high_kind, high_bound: the ends of the 95% interval in the same form; NaN
          and "" with fewer than three seeds;
        - share_not_reached: share of the resamples in which the policy does not reach the level;
        - n_policy (NaN if not reached), n_reference, level;
        - chance, reference_gain, reference_gain_se, reference_growth, reference_growth_se: the reference's learning
          (see `balbench.reports.learning`);
        - shared_*: the same at the shared level;
        - melo2024: the paper's own number (see `melo2024_savings`), NaN for the reference;
        - final_level, final_difference (policy minus reference), final_difference_low, final_difference_high.

    Raises:
        BalbenchError: the metric has no savings.
    """
    direction(metric)
    curves = report_curves(run) if curves is None else curves
    rows = [
        _row(curves, {"setting": setting, "split": split, "metric": metric, "policy": policy}, run.reference, resamples)
        for setting in curves.settings
        for split in SPLITS
        if curves.has(setting, split, metric)
        for policy in run.policies
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def sorted_by_savings(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows of one setting and split: by savings, then those that do not reach the level, the reference last."""
    bounded = rows["savings"].isna()
    keys = pd.DataFrame(
        {
            "reference": rows["is_reference"],
            "nothing": rows["seeds"] == 0,
            "bounded": bounded,
            "savings": -rows["savings"].where(~bounded, rows["shared_savings"]).fillna(-math.inf),
        }
    )
    return rows.loc[keys.sort_values(list(keys.columns), kind="stable").index]


def rows_of(table: pd.DataFrame, setting: str, split: str) -> pd.DataFrame:
    """Return the rows of one setting and split."""
    return table[(table["setting"] == setting) & (table["split"] == split)]


def reference_of(rows: pd.DataFrame) -> str:
    """Return the label of the reference."""
    return str(rows.loc[rows["is_reference"], "policy"].iloc[0])


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _row(curves: Curves, key: dict[str, str], reference: str, resamples: int) -> dict[str, Any]:
    setting, split, metric, policy = key.values()
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, np.nan) | dict.fromkeys(_TEXT_COLUMNS, "") | key
    is_reference = policy == reference
    row |= {"is_reference": is_reference, "reached": False, "seeds": 0, "rounds": 0, "outcome": Outcome.NO_RESULTS}
    pair = curves.pair(setting, policy, reference, split, metric)
    if pair is None:
        return row
    own, other = pair
    learnt = learning(other, metric, _chance(curves, setting, reference, split, metric, other))
    no_level = _no_level(curves, key, reference, other, learnt)
    row |= {"seeds": len(own.seeds_S), "rounds": len(own.rounds_T), "labels": own.labels_T[-1], "no_level": no_level}
    row |= _learning_columns(learnt) | {"final_level": own.mean_T[-1]}
    row |= {"outcome": Outcome.NO_LEVEL} if no_level else _savings_columns(own, other, metric, resamples)
    return row | ({"outcome": Outcome.REFERENCE, "melo2024": np.nan} if is_reference else {})


def _chance(curves: Curves, setting: str, reference: str, split: str, metric: str, curve: Curve) -> float:
    """Return the metric of a model that predicts 1/2; the Brier score of chance depends on ties and shares of votes."""
    recorded_ST = curves.values(setting, reference, split, f"{metric}_chance", curve.seeds_S, curve.rounds_T[-1:])
    return CHANCE[metric] if recorded_ST is None else float(recorded_ST.mean())


def _no_level(curves: Curves, key: dict[str, str], reference: str, curve: Curve, learnt: Learning) -> str:
    """Return why the reference's final value is no level; empty if it is one."""
    setting, split, metric, _ = key.values()
    if curve.pair_errors_ST is None:
        return NO_PAIR_ERRORS
    unchanged = initial_weights(curves, setting, reference)
    if unchanged is not None and unchanged.share >= LARGEST_SHARE:
        return str(Fault.INITIAL_WEIGHTS)
    if not learnt.missing and metric != "accuracy" and _too_small(curves, setting, reference, split):
        return str(Fault.UNDERTRAINED)
    return learnt.missing


def _too_small(curves: Curves, setting: str, reference: str, split: str) -> bool:
    """Whether one temperature would gain more log-likelihood than all that training gained over chance.

    Log-likelihood and Brier score then measure the size of the logits, which accuracy does not depend on.
    """
    fault = undertrained(curves, setting, reference, split)
    likelihood = curves.curve(setting, reference, split, "log_likelihood")
    if fault is None or likelihood is None:
        return False
    return fault.gain >= learning(likelihood, "log_likelihood").gain


def _learning_columns(learnt: Learning) -> dict[str, float]:
    return {
        "chance": learnt.chance,
        "reference_gain": learnt.gain,
        "reference_gain_se": learnt.gain_error,
        "reference_growth": learnt.growth,
        "reference_growth_se": learnt.growth_error,
    }


def _savings_columns(policy: Curve, reference: Curve, metric: str, resamples: int) -> dict[str, Any]:
    savings = label_savings(policy, reference, metric, resamples=resamples)
    low, high = savings.final_difference_interval or (np.nan, np.nan)
    return (
        {"outcome": savings.outcome}
        | _level_columns(savings.final, "")
        | _level_columns(savings.shared, "shared_")
        | {"melo2024": melo2024_savings(policy, reference, metric), "final_difference": savings.final_difference}
        | {"final_difference_low": low, "final_difference_high": high}
    )


def _level_columns(level: LevelSavings, prefix: str) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "reached": bool(np.isfinite(level.n_policy)),
        "share_not_reached": level.share_not_reached,
        "n_policy": level.n_policy if np.isfinite(level.n_policy) else np.nan,
        "n_reference": level.n_reference,
        "level": level.level,
    }
    columns |= _estimate_columns(level.estimate, "savings", "kind", "bound")
    columns |= _estimate_columns(level.low, "low", "low_kind", "low_bound")
    columns |= _estimate_columns(level.high, "high", "high_kind", "high_bound")
    return {prefix + name: value for name, value in columns.items() if prefix + name in _COLUMNS}


def _estimate_columns(estimate: Estimate | None, number: str, kind: str, bound: str) -> dict[str, Any]:
    if estimate is None:
        return {number: np.nan, kind: "", bound: np.nan}
    return {
        number: np.nan if estimate.is_upper_bound else estimate.value,
        kind: str(estimate.kind),
        bound: np.nan if estimate.kind == Kind.EXACT else estimate.value,
    }


_INTERVAL_COLUMNS = ["low", "low_kind", "low_bound", "high", "high_kind", "high_bound"]
_COLUMNS = [
    *["setting", "split", "metric", "policy", "is_reference", "outcome", "no_level", "seeds", "rounds", "labels"],
    *["savings", "kind", "bound", "reached", *_INTERVAL_COLUMNS, "share_not_reached"],
    *["n_policy", "n_reference", "level"],
    *["chance", "reference_gain", "reference_gain_se", "reference_growth", "reference_growth_se"],
    *["shared_savings", "shared_kind", "shared_bound", *("shared_" + name for name in _INTERVAL_COLUMNS)],
    *["shared_n_policy", "shared_n_reference", "shared_level"],
    *["melo2024", "final_level", "final_difference", "final_difference_low", "final_difference_high"],
]
_TEXT_COLUMNS = ["no_level", *(name for name in _COLUMNS if name.endswith("kind"))]
