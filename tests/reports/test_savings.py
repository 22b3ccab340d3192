"""Savings follow their definition: examples by hand, and a slow walk along the curve."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.errors import BalbenchError
from balbench.reports import savings as savings_module
from balbench.reports.curve_checks import check_pair_scores
from balbench.reports.curves import Curve
from balbench.reports.inversion import Kind
from balbench.reports.savings import Outcome, label_savings, level_budget, melo2024_savings, outcome
from balbench.reports.savings_table import savings_table

LINE = [[0.0, 0.1, 0.2, 0.3]]  # at 10, 20, 30, 40 labels
RISES = [number / 100 for number in range(1, 10)]


def slow_n(labels: list[float], mean: list[float], level: float) -> float:
    """The number of labels at which a rising curve reaches a level."""
    for i in range(1, len(mean)):
        if mean[i] >= level:
            return labels[i - 1] + (level - mean[i - 1]) / (mean[i] - mean[i - 1]) * (labels[i] - labels[i - 1])
    return math.inf


@st.composite
def rising_curves(draw):
    """Two rising matrices of seeds x steps that begin with the same values."""
    seeds, steps = draw(st.integers(1, 4)), draw(st.integers(2, 7))
    rises = st.lists(st.sampled_from(RISES), min_size=seeds * (steps - 1), max_size=seeds * (steps - 1))
    start = np.zeros((seeds, 1))
    return [
        np.concatenate([start, np.cumsum(np.reshape(draw(rises), (seeds, steps - 1)), axis=1)], axis=1)
        for _ in range(2)
    ]


@settings(max_examples=200, deadline=None)
@given(rising_curves(), st.sampled_from(["log_likelihood", "brier"]))
def test_savings_of_rising_curves_follow_their_definition(curve_of, values, metric):
    sign, start = (-1, 1) if metric == "brier" else (1, -1)
    policy, reference = (curve_of(start + sign * values_ST) for values_ST in values)
    result = label_savings(policy, reference, metric)
    labels = list(reference.labels_T)
    means = [list(values_ST.mean(axis=0)) for values_ST in values]
    budget = result.budget.labels
    level = min(np.interp(budget, labels, means[1]), means[0][-1])
    expected = 1 - slow_n(labels, means[0], level) / slow_n(labels, means[1], level)
    assert result.savings.estimate.kind == Kind.EXACT
    # between two points of the path, savings are interpolated linearly
    assert result.savings.estimate.value == pytest.approx(expected, abs=0.02)
    assert result.level == pytest.approx(start + sign * level, abs=0.005)


def test_three_quarters_of_the_labels_are_a_quarter_saved(curve_of):
    savings = label_savings(curve_of([[0.0, 0.15, 0.3, 0.4]]), curve_of(LINE), "accuracy").savings
    assert (savings.n_policy, savings.n_reference) == (pytest.approx(30), pytest.approx(40))
    assert savings.estimate.kind == Kind.EXACT
    assert savings.estimate.value == pytest.approx(0.25)


def test_a_policy_below_the_level_is_compared_at_its_own_last_value(curve_of):
    result = label_savings(curve_of([[0.0, 0.05, 0.1, 0.2]]), curve_of(LINE), "accuracy")
    assert (result.savings.n_policy, result.savings.n_reference) == (pytest.approx(40), pytest.approx(30))
    assert result.savings.estimate.value == pytest.approx(1 - 40 / 30)
    assert result.level == pytest.approx(0.2)
    assert result.final_difference == pytest.approx(-0.1)


def test_a_policy_above_the_level_from_the_start_gives_a_lower_bound(curve_of):
    estimate = label_savings(curve_of([[0.5, 0.6, 0.7, 0.8]]), curve_of(LINE), "accuracy").savings.estimate
    assert (estimate.kind, estimate.value) == (Kind.AT_LEAST, 1 - 10 / 40)


def test_a_policy_below_the_first_value_of_the_reference_gives_an_upper_bound(curve_of):
    estimate = label_savings(
        curve_of([[0.1, 0.2, 0.3, 0.4]]), curve_of([[0.5, 0.6, 0.7, 0.8]]), "accuracy"
    ).savings.estimate
    assert (estimate.kind, estimate.value) == (Kind.AT_MOST, 1 - 40 / 10)


def test_a_reference_on_a_plateau_gets_a_smaller_budget(curve_of):
    plateau = curve_of([[0.0, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0, 1.0]] * 3)
    budget = level_budget(plateau, "accuracy")
    assert (budget.labels, budget.gain) == (pytest.approx(20), 0.95)
    assert level_budget(curve_of(LINE * 3), "accuracy").labels == 40
    result = label_savings(curve_of([[0.0, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0, 1.0]]), plateau, "accuracy")
    assert result.savings.estimate.value == pytest.approx(1 - 30 / 20, abs=0.01)


def test_a_plateau_must_be_beyond_the_noise(curve_of):
    noise_ST = np.random.default_rng(4).normal(0, 2, size=(4, 8))
    noisy = curve_of(np.array([[0.0, 9.5, 9.6, 9.7, 9.8, 9.9, 10, 10]]) + noise_ST)
    assert level_budget(noisy, "accuracy").gain == 1


def test_the_budget_ignores_the_policy(run):
    table = savings_table(run).query("split == 'test'")
    assert table["budget"].nunique() == 1


def test_the_reference_against_itself_saves_nothing_and_shows_the_noise(run):
    row = savings_table(run).query("is_reference and split == 'test'").iloc[0]
    assert row["savings"] == row["final_difference"] == 0
    assert row["low"] < 0 < row["high"]
    assert math.isnan(row["p_value"])
    assert math.isnan(row["melo2024"])


def test_less_is_better_for_the_brier_score(curve_of):
    faster, slower = curve_of([[0.4, 0.2, 0.1, 0.0]]), curve_of([[0.4, 0.3, 0.2, 0.1]])
    result = label_savings(faster, slower, "brier")
    assert result.savings.estimate.value == pytest.approx(1 - 30 / 40)
    assert result.level == pytest.approx(0.1)
    assert result.area_difference < 0
    assert label_savings(faster, slower, "accuracy").savings.estimate.value < 0


def test_a_metric_without_direction_is_refused(run):
    with pytest.raises(BalbenchError, match=r"'epistemic'; choose one of: log_likelihood, "):
        savings_table(run, "epistemic")


def test_curves_without_common_labels_are_refused(curve_of):
    with pytest.raises(BalbenchError, match=r"^labels: policy and reference have 100 to 400 and 10 to 40 labels; give"):
        label_savings(curve_of(LINE, [100, 200, 300, 400]), curve_of(LINE), "accuracy")


@pytest.mark.parametrize(("seeds", "has_interval"), [(1, False), (2, False), (3, True)])
def test_fewer_than_three_seeds_give_no_interval(curve_of, seeds, has_interval):
    result = label_savings(curve_of(LINE * seeds), curve_of(LINE * seeds), "accuracy")
    assert result.has_interval == has_interval
    assert (result.final_difference_interval is not None) == has_interval
    assert (result.area_difference_interval is not None) == has_interval


def test_seeds_are_paired_by_their_numbers(curve_of):
    """Seeds differ widely; policy and reference differ by a constant, and the policy's rows are in another order."""
    generator = np.random.default_rng(5)
    reference_ST = np.cumsum(generator.uniform(0.01, 0.04, size=(8, 6)), axis=1) + generator.uniform(
        0, 0.6, size=(8, 1)
    )
    reference = curve_of(reference_ST)
    policy = Curve(reference.labels_T, reference_ST[::-1] + 0.1, seeds=np.arange(8)[::-1])
    low, high = label_savings(policy, reference, "accuracy").final_difference_interval
    assert (low, high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_further_seeds_of_the_reference_narrow_the_interval():
    generator = np.random.default_rng(6)
    labels = np.arange(10, 110, 10)
    widths = {5: [], 40: []}
    for _ in range(20):
        curves = np.linspace(0.4, 0.7, 10) + generator.normal(0, 0.03, size=(40, 10))
        policy = Curve(labels, np.linspace(0.4, 0.76, 10) + generator.normal(0, 0.03, size=(5, 10)))
        for seeds in widths:
            low, high = label_savings(policy, Curve(labels, curves[:seeds]), "accuracy").final_difference_interval
            widths[seeds].append(high - low)
    assert np.mean(widths[40]) < 0.9 * np.mean(widths[5])


def test_the_papers_number_counts_rounds_from_zero(curve_of):
    """The level is exceeded at index 2 of 4, so the number is 1 - 2/4, although 30 of 40 labels were bought."""
    policy, reference = curve_of([[0.0, 0, 9, 9]]), curve_of([[1.0, 1, 1, 1]])
    assert melo2024_savings(policy, reference, "accuracy") == 0.5


def test_the_papers_number_smooths_over_three_rounds(curve_of):
    """The reference's last three rounds average 2; the policy's averages are 0, 1.5, 2 and 3: only the last exceeds."""
    policy, reference = curve_of([[0.0, 3, 3, 3]]), curve_of([[0.0, 1, 2, 3]])
    assert melo2024_savings(policy, reference, "accuracy") == 1 - 3 / 4


def test_the_papers_number_uses_the_first_crossing_and_is_one_if_there_is_none(curve_of):
    reference = curve_of([[1.0, 1, 1, 1, 1]])
    assert melo2024_savings(curve_of([[0.0, 9, 0, 0, 0]]), reference, "accuracy") == 1 - 1 / 5
    assert melo2024_savings(curve_of([[0.0, 0, 0, 0, 0]]), reference, "accuracy") == 1
    assert melo2024_savings(curve_of([[0.0, 0, 0, 0, 0]]), reference, "brier") == 1
    assert melo2024_savings(curve_of([[2.0, 2, 0, 0, 0]]), reference, "brier") == 1 - 3 / 5


def test_the_table_has_a_row_for_each_setting_split_and_policy(run_of):
    run = run_of(["random", "BALD"], seeds=3, rounds=5, splits=["test", "ood"])
    other = run_of(["random", "BALD"], seeds=3, rounds=5, splits=["test"], setting="k=5")
    run.curves = pd.concat([run.curves, other.curves])
    table = savings_table(run, "accuracy")
    assert table[["setting", "split", "policy"]].to_numpy().tolist() == [
        ["", "test", "random"],
        ["", "test", "BALD"],
        ["", "ood", "random"],
        ["", "ood", "BALD"],
        ["k=5", "test", "random"],
        ["k=5", "test", "BALD"],
    ]
    assert (table["seeds"] == 3).all()
    assert (table["labels"] == 160).all()


def test_a_policy_that_has_not_begun_keeps_its_row(run):
    run.curves = run.curves[run.curves["policy"] != "BALD"]
    row = savings_table(run).query("policy == 'BALD' and split == 'test'").iloc[0]
    assert row["seeds"] == 0
    assert math.isnan(row["savings"])
    assert row["kind"] == ""


def test_an_unfinished_policy_is_compared_where_both_have_results(run):
    late = (run.curves["policy"] == "BAL-PM") & (run.curves["round"] > 5)
    run.curves = run.curves[~late]
    row = savings_table(run).query("policy == 'BAL-PM' and split == 'test'").iloc[0]
    assert (row["seeds"], row["rounds"], row["labels"]) == (5, 6, 192)
    reference = run.curves.query("policy == 'random' and split == 'test' and metric == 'log_likelihood'")
    assert row["level"] == pytest.approx(reference[reference["round"] == 5]["value"].mean())


def test_all_seeds_of_the_reference_count_though_a_policy_has_fewer(run_of):
    run = run_of(["random", "BALD"], seeds=9)
    run.curves = run.curves[(run.curves["policy"] == "random") | (run.curves["seed"] < 4)]
    row = savings_table(run).query("policy == 'BALD' and split == 'test'").iloc[0]
    assert (row["seeds"], row["reference_seeds"]) == (4, 9)


def test_verdicts_consider_the_number_of_policies(run_of):
    """The same curves beside twenty-eight others: the interval stays, the adjusted p-value grows."""
    few = savings_table(run_of(["random", "PowerBALD"])).query("split == 'test' and policy == 'PowerBALD'").iloc[0]
    names = ["random", "PowerBALD", *[f"policy {number}" for number in range(28)]]
    many = savings_table(run_of(names)).query("split == 'test' and policy == 'PowerBALD'").iloc[0]
    assert few["p_adjusted"] == few["p_value"] == many["p_value"]
    assert many["p_adjusted"] > many["p_value"]
    assert (few["low"], few["high"]) == (many["low"], many["high"])


def test_labels_may_differ_between_policies():
    """An oracle that abstains: the policy bought 8 labels a round, the reference 10."""
    values_ST = np.array(LINE)
    policy, reference = Curve(8.0 * np.arange(1, 5), values_ST), Curve(10.0 * np.arange(1, 5), values_ST)
    assert label_savings(policy, reference, "accuracy").savings.estimate.value == pytest.approx(1 - 32 / 40)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(savings_module).attempted > 0
    assert doctest.testmod(savings_module).failed == 0


@pytest.mark.parametrize(
    ("is_gain", "p_value", "expected"),
    [
        (True, 0.04, Outcome.SAVED),
        (False, 0.04, Outcome.LOST),
        (True, 0.06, Outcome.UNCLEAR),
        (False, math.nan, Outcome.UNCLEAR),
    ],
)
def test_the_outcome_follows_from_the_p_value(is_gain, p_value, expected):
    assert outcome(is_gain, p_value) == expected


def test_an_outcome_needs_learning_and_seeds(curve_of):
    generator = np.random.default_rng(1)
    noise_ST = generator.normal(0, 0.01, size=(5, 4))
    learnt = curve_of(np.array([[0.5, 0.6, 0.65, 0.7]]) + noise_ST)
    better = curve_of(np.array([[0.5, 0.7, 0.75, 0.8]]) + noise_ST[::-1])
    assert label_savings(better, learnt, "accuracy").outcome == Outcome.SAVED
    assert label_savings(learnt, better, "accuracy").outcome == Outcome.LOST
    flat = curve_of(0.5 + noise_ST)
    assert label_savings(better, flat, "accuracy").outcome == Outcome.NO_LEVEL
    two = Curve(learnt.labels_T, learnt.values_ST[:2]), Curve(learnt.labels_T, better.values_ST[:2])
    assert label_savings(two[1], two[0], "accuracy").outcome in (Outcome.NO_INTERVAL, Outcome.NO_LEVEL)


@pytest.mark.parametrize("scores", [5, (1, 2), [], "ab"])
def test_pair_scores_are_checked(scores):
    check_pair_scores(None)
    with pytest.raises(BalbenchError, match=r"^pair_scores: must be the PairScores of policy and reference, not "):
        check_pair_scores(scores)


def test_chance_may_be_a_number_of_numpy():
    curve = Curve([10, 20, 30, 40], np.array(LINE))
    assert label_savings(curve, curve, "accuracy", chance=np.float32(0.5)).reference.chance == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": LINE}, "policy: must be a balbench.Curve, not list"),
        ({"chance": math.nan}, "chance: must be a finite number, not nan"),
        ({"chance": "half"}, "chance: must be a finite number, not 'half'"),
        ({"chance": True}, "chance: must be a finite number, not True"),
        ({"metric": ["accuracy"]}, "no savings for the metric"),
        ({"chance": 50}, "chance: log_likelihood must be at most 0, not 50; give"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(change, message):
    curve = Curve([10, 20, 30, 40], np.array(LINE) - 1)
    with pytest.raises(BalbenchError, match=f"^{message}"):
        label_savings(**{"policy": curve, "reference": curve} | change)


@pytest.mark.parametrize(
    ("metric", "wrong", "right", "message"),
    [
        ("accuracy", 61.0, 0.61, "accuracy must be from 0 to 1, not 61; give shares, 0.61 not 61"),
        ("accuracy", -0.2, 0.0, "accuracy must be from 0 to 1, not -0.2; give shares"),
        ("brier", 1.2, 1.0, "brier must be from 0 to 1, not 1.2; give"),
        ("log_likelihood", 0.61, -0.61, "log_likelihood must be at most 0, not 0.61; give"),
    ],
)
@pytest.mark.parametrize("name", ["policy", "reference"])
def test_values_that_the_metric_cannot_have_are_refused(metric, wrong, right, message, name):
    curves = {key: Curve([10, 20], [[right, right]] * 3) for key in ("policy", "reference")}
    label_savings(**curves, metric=metric)
    with pytest.raises(BalbenchError, match=f"^{name}: {message}"):
        label_savings(**curves | {name: Curve([10, 20], [[right, right]] * 2 + [[right, wrong]])}, metric=metric)


@pytest.mark.parametrize(("height", "outcome"), [(0.8, "unclear"), (0.6, "lost")])
def test_a_policy_that_starts_above_the_budget_cannot_be_said_to_save(height, outcome):
    """The reference is on a plateau from 20 labels on; the policy's first round has 150."""
    flat = [[0.55, 0.7, 0.7, 0.701], [0.55, 0.7, 0.701, 0.7], [0.551, 0.7, 0.7, 0.702]]
    policy = Curve([150, 200], [[height, height + 0.01], [height + 0.01, height + 0.02], [height, height + 0.015]])
    result = label_savings(policy, Curve([10, 20, 100, 200], flat), "accuracy")
    assert result.budget.labels < 150
    assert result.outcome == outcome
