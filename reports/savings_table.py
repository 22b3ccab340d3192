"""The savings of all policies of a run as one tidy table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from balbench.reports.curves import Curve, Curves, check_run
from balbench.reports.inversion import Estimate, Inversion, Kind
from balbench.reports.learning import CHANCE, Learning, direction, learning
from balbench.reports.multiplicity import holm
from balbench.reports.noise_floor import noise_floor
from balbench.reports.pair_scores import PairScores
from balbench.reports.resolution import resolution
from balbench.reports.run_scores import RunScores
from balbench.reports.savings import Outcome, label_savings, melo2024_savings, outcome
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
    run: Run, metric: str = "log_likelihood", curves: Curves | None = None, scores: RunScores | None = None
) -> pd.DataFrame:
    """Measure every policy of a run: one row for each setting, split of `SPLITS` that has the metric, and policy.

    Args:
        run: from `balbench.harness.results.read_run`.
        metric: "log_likelihood", "accuracy" or "brier".
        curves: `report_curves(run)`; computed if not given.
        scores: the predictions of the run; read if not given.

    Returns:
        These columns (savings are shares of labels, n and labels count labels, levels are in the metric's unit):

        - setting, split, metric, policy, is_reference;
        - outcome: an `Outcome` by `p_adjusted`, and no_level: why the reference gives no level, empty if there is one.
          Without a level, all savings and differences below are missing;
        - seeds, rounds: numbers of seeds of the policy, and of the rounds that all of them have; reference_seeds: seeds
          of the reference; labels: the policy's labels at the last of these rounds. A policy without results has 0
          seeds, and all its numbers are missing;
        - savings, kind, bound: `savings` is NaN where only a bound is known, `bound` is NaN where `kind` is exact;
        - low, low_kind, low_bound, high, high_kind, high_bound: the ends of the 95% interval over seeds in the same
          form; NaN and "" with fewer than three seeds;
        - p_value: of savings of zero, two-sided; p_adjusted: by Holm 1979, for all policies of a setting, split and
          metric;
        - pairs_low, ..., pairs_high_bound: the 95% interval over seeds and held-out pairs; NaN and "" for runs
          without predictions of single pairs;
        - n_policy, n_reference, level: labels and level at `savings`; budget, budget_gain: labels of the reference that
          set the level, and its share of the reference's gain (see `balbench.reports.savings`);
        - resolution: standard error of the reference's level in shares of labels (see `balbench.reports.resolution`);
        - chance, reference_gain, reference_gain_se, reference_growth, reference_growth_se, reference_decline: the
          reference's learning (see `balbench.reports.learning`);
        - melo2024: the paper's own number (see `melo2024_savings`), NaN for the reference;
        - final_level, final_difference (policy minus reference), final_difference_low, final_difference_high;
        - area_difference, area_difference_low, area_difference_high: of the mean height of the curves.

        The row of the reference is the noise floor: its interval has the savings that cannot be told from zero, however
        many seeds the policies have (see `balbench.reports.noise_floor`).

    Raises:
        BalbenchError: the metric has no savings, or the argument is not a run.
    """
    return savings_tables(run, [metric], curves, scores)[metric]


def savings_tables(
    run: Run, metrics: Sequence[str], curves: Curves | None = None, scores: RunScores | None = None
) -> dict[str, pd.DataFrame]:
    """Return the `savings_table` of each metric; the predictions of a policy are read once for all of them.

    Raises:
        BalbenchError: a metric has no savings, or the argument is not a run.
    """
    check_run(run)
    for metric in metrics:
        direction(metric)
    curves = report_curves(run) if curves is None else curves
    scores = RunScores(run) if scores is None else scores
    rows: dict[str, list[dict[str, Any]]] = {metric: [] for metric in metrics}
    for setting in curves.settings:
        groups = [(split, metric) for metric in metrics for split in SPLITS if curves.has(setting, split, metric)]
        by_policy = [[_row(scores, curves, (setting, *group, policy)) for group in groups] for policy in run.policies]
        for (_, metric), of_policies in zip(groups, zip(*by_policy, strict=True), strict=True):
            rows[metric] += _adjusted(list(of_policies))
    return {metric: pd.DataFrame(rows[metric], columns=_COLUMNS) for metric in metrics}


def sorted_by_savings(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows of one setting and split by savings; bounds count as their numbers, the reference is last."""
    keys = pd.DataFrame(
        {
            "reference": rows["is_reference"],
            "nothing": rows["seeds"] == 0,
            "savings": -rows["savings"].fillna(rows["bound"]).fillna(-math.inf),
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


def _row(scores: RunScores, curves: Curves, names: tuple[str, str, str, str]) -> dict[str, Any]:
    setting, split, metric, policy = names
    reference, key = scores.run.reference, dict(zip(["setting", "split", "metric", "policy"], names, strict=True))
    row: dict[str, Any] = dict.fromkeys(_COLUMNS, np.nan) | dict.fromkeys(_TEXT_COLUMNS, "") | key
    is_reference = policy == reference
    row |= {"is_reference": is_reference, "outcome": Outcome.NO_RESULTS}
    row |= {"seeds": 0, "rounds": 0, "reference_seeds": 0}
    pair = curves.pair(setting, policy, reference, split, metric)
    if pair is None:
        return row
    own, other = pair
    learnt = learning(other, metric, _chance(curves, setting, reference, split, metric, other))
    no_level = _no_level(curves, key, reference, other, learnt)
    row |= {"seeds": len(own.seeds_S), "reference_seeds": len(other.seeds_S), "rounds": len(own.rounds_T)}
    row |= {"labels": own.labels_T[-1], "no_level": no_level}
    row |= _learning_columns(learnt) | {"final_level": own.mean_T[-1], "resolution": resolution(other, metric)}
    row |= {"outcome": Outcome.NO_LEVEL} if no_level else _savings_columns(scores, key, own, other)
    return row | ({"outcome": Outcome.REFERENCE, "melo2024": np.nan, "p_value": np.nan} if is_reference else {})


def _adjusted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adjust the p-values of all policies of a table for their number, and set the outcomes that they allow."""
    tested = [row for row in rows if not row["is_reference"] and not math.isnan(row["p_value"])]
    for row, p_adjusted in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_adjusted"] = p_adjusted
        if row["outcome"] in (Outcome.SAVED, Outcome.LOST, Outcome.UNCLEAR):
            row["outcome"] = outcome(row["is_gain"], p_adjusted)
    return rows


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
    # log-likelihood and Brier score of an undertrained model measure the size of its logits, accuracy does not
    if not learnt.missing and metric != "accuracy" and undertrained(curves, setting, reference, split):
        return str(Fault.UNDERTRAINED)
    return learnt.missing


def _learning_columns(learnt: Learning) -> dict[str, float]:
    return {
        "chance": learnt.chance,
        "reference_gain": learnt.gain,
        "reference_gain_se": learnt.gain_error,
        "reference_growth": learnt.growth,
        "reference_growth_se": learnt.growth_error,
        "reference_decline": learnt.decline,
    }


def _savings_columns(scores: RunScores, key: dict[str, str], policy: Curve, reference: Curve) -> dict[str, Any]:
    metric = key["metric"]
    of_pairs = _pair_scores(scores, key, policy, reference)
    measured = label_savings(policy, reference, metric, pair_scores=of_pairs)
    savings, new_pairs = measured.savings, measured.new_pairs
    if key["policy"] == scores.run.reference:
        savings, new_pairs = noise_floor(reference, metric, None if of_pairs is None else of_pairs[1])
    columns: dict[str, Any] = {
        "outcome": measured.outcome,
        "is_gain": savings.p_saved < savings.p_lost,
        "n_policy": savings.n_policy,
        "n_reference": savings.n_reference,
        "level": measured.level,
        "budget": measured.budget.labels,
        "budget_gain": measured.budget.gain,
        "final_difference": measured.final_difference,
        "area_difference": measured.area_difference,
        "melo2024": melo2024_savings(policy, reference, metric),
    }
    columns |= _estimate_columns(savings.estimate, "savings", "kind", "bound")
    if measured.has_interval:
        columns |= {"p_value": savings.p_value} | _interval_columns(savings, "")
        columns |= _ends("final_difference", measured.final_difference_interval)
        columns |= _ends("area_difference", measured.area_difference_interval)
        if new_pairs is not None:
            columns |= _interval_columns(new_pairs, "pairs_")
    return columns


def _pair_scores(
    scores: RunScores, key: dict[str, str], policy: Curve, reference: Curve
) -> tuple[PairScores, PairScores] | None:
    setting, split, metric, name = key.values()
    own = scores.scores(setting, name, split, metric, policy)
    other = None if own is None else scores.scores(setting, scores.run.reference, split, metric, reference)
    return None if own is None or other is None else (own, other)


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, float]:
    low, high = interval or (np.nan, np.nan)
    return {f"{name}_low": low, f"{name}_high": high}


def _interval_columns(savings: Inversion, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}{name}": value
        for end in ("low", "high")
        for name, value in _estimate_columns(getattr(savings, end), end, f"{end}_kind", f"{end}_bound").items()
    }


def _estimate_columns(estimate: Estimate, number: str, kind: str, bound: str) -> dict[str, Any]:
    exact = estimate.kind == Kind.EXACT
    return {
        number: estimate.value if exact else np.nan,
        kind: str(estimate.kind),
        bound: np.nan if exact else estimate.value,
    }


_INTERVAL_COLUMNS = ["low", "low_kind", "low_bound", "high", "high_kind", "high_bound"]
_COLUMNS = [
    *["setting", "split", "metric", "policy", "is_reference", "outcome", "no_level"],
    *["seeds", "reference_seeds", "rounds", "labels"],
    *["savings", "kind", "bound", *_INTERVAL_COLUMNS, "p_value", "p_adjusted"],
    *["pairs_" + name for name in _INTERVAL_COLUMNS],
    *["n_policy", "n_reference", "level", "budget", "budget_gain", "resolution"],
    *["chance", "reference_gain", "reference_gain_se", "reference_growth", "reference_growth_se", "reference_decline"],
    *["melo2024", "final_level", "final_difference", "final_difference_low", "final_difference_high"],
    *["area_difference", "area_difference_low", "area_difference_high"],
]
_TEXT_COLUMNS = ["no_level", *(name for name in _COLUMNS if name.endswith("kind"))]
