"""Results in sentences: which policies saved labels, which did not, and why some results allow no statement."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from balbench.reports.differences import FEWEST_SEEDS
from balbench.reports.inversion import Kind
from balbench.reports.learning import DECLINES, DIRECTIONS, NOT_ABOVE_CHANCE, NOT_ABOVE_FIRST, ONE_ROUND
from balbench.reports.savings import Outcome
from balbench.reports.savings_table import NO_PAIR_ERRORS, records, reference_of, sorted_by_savings
from balbench.reports.training import Fault, TrainingFault
from balbench.reports.wording import interval_words, metric_name, percent, point_text, split_name

ALPHA = 0.05  # significance level of a claim
MOST_NAMED = 6  # largest number of policies that a sentence lists

Row = Mapping[str, Any]


def statement(rows: pd.DataFrame) -> str:
    """Describe the result of one setting and split; empty if there is no policy beside the reference.

    Args:
        rows: the rows of `savings_table` for one setting and split.
    """
    reference, most = reference_of(rows), rows["rounds"].max()
    others = [
        {**row, "policy": row["policy"] + _so_far(row, most, reference), "is_early": is_early(row, most)}
        for row in records(sorted_by_savings(rows))
        if not row["is_reference"]
    ]
    if not others:
        return ""
    groups: dict[str, list[Row]] = {outcome: [] for outcome in Outcome}
    for row in others:
        groups[row["outcome"]].append(row)
    sentences = [
        _no_level(groups[Outcome.NO_LEVEL], reference),
        _saved(groups, reference),
        _unclear(groups[Outcome.UNCLEAR], reference),
        _lost(groups[Outcome.LOST], reference),
        _these_pairs_only([*groups[Outcome.SAVED], *groups[Outcome.LOST]]),
        _no_interval(groups[Outcome.NO_INTERVAL], reference),
        _no_results(groups[Outcome.NO_RESULTS]),
    ]
    return f"On {split_name(rows['split'].iloc[0])}: " + " ".join(filter(None, sentences))


def is_early(row: Row, most_rounds: int) -> bool:
    """Return whether a policy has results, but fewer rounds than the row with the most rounds."""
    return bool(0 < row["rounds"] < most_rounds)


def _so_far(row: Row, most_rounds: int, reference: str) -> str:
    if not is_early(row, most_rounds):
        return ""
    rounds = f" (so far {row['rounds']} rounds"
    if row["no_level"]:
        return f"{rounds})"
    return f"{rounds}: compared at {reference}'s level after {row['budget']:,.0f} labels)"


def tally(table: pd.DataFrame, split: str) -> str:
    """Describe a study of several settings: in how many settings each policy saved or lost labels."""
    rows = table[(table["split"] == split) & ~table["is_reference"]]
    parts, no_level = [], 0
    for policy, group in rows.groupby("policy", sort=False):
        outcomes = list(group["outcome"])
        saved, lost, none = (outcomes.count(part) for part in (Outcome.SAVED, Outcome.LOST, Outcome.NO_LEVEL))
        no_level = max(no_level, none)
        if none < len(outcomes):
            parts.append(f"{policy} needed fewer labels in {saved} of {len(outcomes)} settings and more in {lost}")
    if no_level:
        parts.append(f"no label savings are stated for {no_level} settings, because the reference did not learn there")
    return f"On {split_name(split)}: {'; '.join(parts)}." if parts else ""


def why_no_level(row: Row, reference: str) -> str:
    """Explain why the reference gives no level, as the part of a sentence that follows "because"."""
    final = row["chance"] + DIRECTIONS[row["metric"]] * row["reference_gain"]
    growth = f"by {row['reference_growth']:+.4f} with a standard error of {row['reference_growth_se']:.4f}"
    details = {
        NOT_ABOVE_CHANCE: f": its final {metric_name(row['metric'])} is {final:.4f} with a standard error of "
        f"{row['reference_gain_se']:.4f}, and chance is {row['chance']:.4f}",
        NOT_ABOVE_FIRST: f" ({growth}; more labels or seeds may show an improvement)",
        DECLINES: f": its best {metric_name(row['metric'])} is {row['reference_decline']:.4f} better than its last; "
        "more labels make the model worse, so check the training, for example posterior.epochs and posterior.patience",
        NO_PAIR_ERRORS: ", or because all held-out pairs have one prompt; run the study again with this version",
    }
    return in_short(row["no_level"], reference) + details.get(row["no_level"], "")


def in_short(no_level: str, reference: str) -> str:
    """Explain why there is no level in one line, for a figure."""
    reasons = {
        NOT_ABOVE_CHANCE: f"{reference} did not learn beyond chance",
        NOT_ABOVE_FIRST: f"{reference} did not clearly improve between its first round and its last",
        ONE_ROUND: "there is one round only",
        DECLINES: f"the curve of {reference} declines",
        NO_PAIR_ERRORS: "the results have no standard errors: they were made by an older version of balbench",
        Fault.UNDERTRAINED: f"{reference} is undertrained (its logits are too small)",
        Fault.INITIAL_WEIGHTS: f"training improved nothing in at least half of the members of {reference}",
    }
    return reasons[no_level]


def fault_texts(faults: list[TrainingFault], settings: int) -> list[str]:
    """Describe faults of training with their remedies, one text for all policies and settings with the same fault.

    Args:
        faults: from `training_faults`.
        settings: how many settings the study has.
    """
    groups: dict[tuple[str, Fault, bool], list[TrainingFault]] = {}
    for fault in faults:
        groups.setdefault((fault.split, fault.fault, fault.diverged), []).append(fault)
    texts = []
    for (_, kind, _), members in groups.items():
        affected = len({fault.setting for fault in members})
        scope = f" in {affected} of {settings} settings" if settings > 1 else ""
        texts.append((_undertrained if kind == Fault.UNDERTRAINED else _initial_weights)(members, scope))
    return texts


def _undertrained(faults: list[TrainingFault], scope: str) -> str:
    names = _joined(_shortened(list(dict.fromkeys(fault.policy for fault in faults))))
    most = max(faults, key=lambda fault: fault.gain)
    remedy = "raise posterior.learning_rate or posterior.epochs"
    if not most.trained:
        remedy = "check the scale of the posterior's prior and of the features"
    return (
        f"Undertrained on {split_name(most.split)}{scope}: {names}. Accuracy is above chance, but the logits are too "
        f"small: log-likelihood would gain {'up to ' if len(faults) > 1 else ''}{most.gain:.3f} nats from a "
        f"temperature of {most.temperature:.2g}; {remedy}."
    )


def _initial_weights(faults: list[TrainingFault], scope: str) -> str:
    shares: dict[str, float] = {}
    for fault in faults:
        shares[fault.policy] = max(fault.share, shares.get(fault.policy, 0.0))
    up_to = "up to " if scope else ""
    parts = [f"{policy} ({up_to}{percent(share)}% of the members)" for policy, share in shares.items()]
    listed = _joined(_shortened(parts))
    cause, remedy = "the loss on the eval split did not fall", "raise posterior.learning_rate or posterior.epochs"
    if faults[0].diverged:
        cause, remedy = "the loss on the eval split rose", "lower posterior.learning_rate"
    return (
        f"Training did not help{scope}: {listed}. The best weights of these members at the last round are the initial "
        f"ones, because {cause}; {remedy}, or check that the labels can be predicted."
    )


def _no_level(rows: list[Row], reference: str) -> str:
    return f"no label savings are stated, because {why_no_level(rows[0], reference)}." if rows else ""


def _saved(groups: Mapping[str, list[Row]], reference: str) -> str:
    rows = groups[Outcome.SAVED]
    compared = [*rows, *groups[Outcome.UNCLEAR], *groups[Outcome.LOST]]
    if not compared:
        return ""
    finished = [row for row in compared if not row["is_early"]]
    level = level_name(finished[0], reference) if finished else f"{reference}'s level after as many labels"
    if not rows:
        return f"no policy reached {level} with clearly fewer labels than {reference}."
    listed = [f"{row['policy']} with {point_text(row)} fewer ({interval_words(row)})" for row in rows]
    return f"these policies reached {level} with fewer labels than {reference}: {_joined(_shortened(listed))}."


def _unclear(rows: list[Row], reference: str) -> str:
    return f"No clear difference from {reference}: {_listed(rows)}." if rows else ""


def _lost(rows: list[Row], reference: str) -> str:
    return f"Clearly more labels than {reference}: {_listed(rows)}." if rows else ""


def _these_pairs_only(rows: list[Row]) -> str:
    """Name the policies whose interval for other held-out pairs contains zero, although that over seeds does not."""
    names = [str(row["policy"]) for row in rows if _end(row, "pairs_low") <= 0 <= _end(row, "pairs_high")]
    return f"On other held-out pairs the difference may be absent: {_joined(_shortened(names))}." if names else ""


def _end(row: Row, name: str) -> float:
    """Return an end of an interval, infinite where only a bound is known, NaN if there is no interval."""
    kind = row[f"{name}_kind"]
    return -math.inf if kind == Kind.AT_MOST else math.inf if kind == Kind.AT_LEAST else float(row[name])


def level_name(row: Row, reference: str) -> str:
    """Name the level of the savings: the reference's final value, or the value at 95% of its gain."""
    if row["budget_gain"] == 1:
        return f"{reference}'s final {metric_name(row['metric'])}"
    return f"{percent(row['budget_gain'])}% of {reference}'s gain in {metric_name(row['metric'])}"


def _listed(rows: list[Row]) -> str:
    return _joined(_shortened([f"{row['policy']} ({_in_brackets(row)})" for row in rows]))


def _in_brackets(row: Row) -> str:
    text = f"savings of {point_text(row)}, {interval_words(row)}"
    if row["outcome"] == Outcome.UNCLEAR and row["p_value"] <= ALPHA:
        return f"{text}, not clear when all policies are considered"
    return text


def _no_interval(rows: list[Row], reference: str) -> str:
    if not rows:
        return ""
    listed = _joined(_shortened([f"{row['policy']} {point_text(row)}" for row in rows]))
    return (
        f"there are fewer than {FEWEST_SEEDS} seeds, so there are no intervals and every difference may be chance; "
        f"savings against {reference} in these seeds: {listed}."
    )


def _no_results(rows: list[Row]) -> str:
    return f"No results yet: {_joined(_shortened([str(row['policy']) for row in rows]))}." if rows else ""


def _shortened(parts: list[str]) -> list[str]:
    """Shorten a long list to its first parts and the number of the others; the table lists all."""
    return parts if len(parts) <= MOST_NAMED else [*parts[: MOST_NAMED - 1], f"{len(parts) - MOST_NAMED + 1} more"]


def _joined(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
