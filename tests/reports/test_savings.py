"""Savings follow their definition: examples by hand, and a slow walk along the curve."""

from __future__ import annotations

import dataclasses
import doctest
import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balbench.harness.errors import BalbenchError
from balbench.reports import savings as savings_module
from balbench.reports.crossings import Estimate, Kind, crossing, interval_ends, savings_at
from balbench.reports.curves import Curve
from balbench.reports.learning import Learning
from balbench.reports.savings import LabelSavings, LevelSavings, Outcome, label_savings, melo2024_savings
from balbench.reports.savings_table import savings_table
from balbench.reports.statistics import bootstrap_indices, resample

LINE = [[0.0, 1.0, 2.0, 3.0]]  # at 10, 20, 30, 40 labels


def slow_crossing(labels: list[float], mean: list[float], tau: float) -> float:
    """The definition: walk back from the end for as long as the curve stays at or above the level."""
    if mean[-1] < tau:
        return math.inf
    for i in range(len(mean) - 2, -1, -1):
        if mean[i] < tau:
            share = (tau - mean[i]) / (mean[i + 1] - mean[i])
            return labels[i] + share * (labels[i + 1] - labels[i])
    return labels[0]


def slow_savings(labels: list[float], policy: list[float], reference: list[float], tau: float) -> tuple[str, float]:
    """The definition of savings and of the kind of bound."""
    n, n_reference = slow_crossing(labels, policy, tau), slow_crossing(labels, reference, tau)
    if math.isinf(n):
        return "not_reached", 1 - labels[-1] / n_reference
    policy_at_start, reference_at_start = min(policy) >= tau, min(reference) >= tau
    kind = "exact"
    if policy_at_start != reference_at_start:
        kind = "at_least" if policy_at_start else "at_most"
    return kind, 1 - n / n_reference


@st.composite
def curve_values(draw):
    """Two matrices of seeds x steps with many ties, so that curves touch their levels."""
    seeds, steps = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    cells = st.lists(st.integers(-4, 4), min_size=seeds * steps, max_size=seeds * steps)
    shape = (seeds, steps)
    return (np.array(draw(cells), float).reshape(shape), np.array(draw(cells), float).reshape(shape))


@settings(max_examples=200, deadline=None)
@given(curve_values(), st.sampled_from(["log_likelihood", "brier"]))
def test_savings_follow_their_definition(curve_of, values, metric):
    policy, reference = (curve_of(values_ST) for values_ST in values)
    sign = -1 if metric == "brier" else 1
    means = [[sum(sign * column) / len(column) for column in curve.values_ST.T] for curve in (policy, reference)]
    savings = label_savings(policy, reference, metric, resamples=20)
    levels = {"final": means[1][-1], "shared": min(means[0][-1], means[1][-1])}
    for name, level in levels.items():
        kind, value = slow_savings(list(policy.labels_T), *means, level)
        part = getattr(savings, name)
        assert part.estimate.kind == kind
        assert part.estimate.value == pytest.approx(value, abs=1e-12)
        assert part.level == pytest.approx(sign * level)
    assert savings.shared.estimate.kind != Kind.NOT_REACHED


@settings(max_examples=50, deadline=None)
@given(curve_values())
def test_every_resample_follows_the_definition_too(curve_of, values):
    policy_BT, reference_BT = values
    labels_T = 10.0 * np.arange(1, policy_BT.shape[1] + 1)
    savings = savings_at(labels_T, policy_BT, labels_T, reference_BT, reference_BT[:, -1])
    for b in range(len(policy_BT)):
        kind, value = slow_savings(list(labels_T), list(policy_BT[b]), list(reference_BT[b]), reference_BT[b, -1])
        assert savings.kind_B[b] == kind
        assert savings.value_B[b] == pytest.approx(value, abs=1e-12)


def test_the_crossing_is_interpolated_between_rounds():
    n_B, at_start_B = crossing(np.array([10.0, 20, 40]), np.array([[0.0, 1, 3]]), np.array([2.5]))
    assert n_B[0] == 35
    assert not at_start_B[0]


def test_the_crossing_is_the_lasting_one():
    """Above 2 at 20 labels, below it at 30, and permanently above it from halfway to 40."""
    n_B, _ = crossing(np.array([10.0, 20, 30, 40]), np.array([[0.0, 4, 1, 3]]), np.array([2.0]))
    assert n_B[0] == 35


def test_three_quarters_of_the_labels_are_a_quarter_saved(curve_of):
    policy = curve_of([[0.0, 1.5, 3.0, 4.0]])
    savings = label_savings(policy, curve_of(LINE), "accuracy").final
    assert (savings.n_policy, savings.n_reference) == (30, 40)
    assert savings.estimate.kind == Kind.EXACT
    assert savings.estimate.value == 0.25


def test_a_level_that_is_never_reached_is_a_bound_and_the_shared_level_a_negative_number(curve_of):
    policy = curve_of([[0.0, 0.5, 1.0, 2.0]])
    savings = label_savings(policy, curve_of(LINE), "accuracy")
    assert savings.final.estimate.kind == Kind.NOT_REACHED
    assert savings.final.n_policy == math.inf
    assert savings.final.estimate.value == 0  # savings are below 1 - 40/40
    assert savings.shared.estimate.kind == Kind.EXACT
    assert savings.shared.estimate.value == pytest.approx(1 - 40 / 30)
    assert savings.final_difference == -1


def test_the_bound_is_lower_where_the_reference_was_at_its_level_early(curve_of):
    """The reference is at 2 from 20 labels on, so a policy below it at 40 saves less than 1 - 40/20."""
    savings = label_savings(curve_of([[0.0, 0, 0, 1]]), curve_of([[0.0, 2, 2, 2]]), "accuracy").final
    assert savings.estimate.kind == Kind.NOT_REACHED
    assert savings.estimate.value == -1


def test_a_policy_above_the_level_from_the_start_gives_a_lower_bound(curve_of):
    savings = label_savings(curve_of([[5.0, 6, 7, 8]]), curve_of(LINE), "accuracy").final
    assert savings.estimate.kind == Kind.AT_LEAST
    assert savings.estimate.value == 1 - 10 / 40


def test_a_reference_that_learns_nothing_gives_an_upper_bound(curve_of):
    savings = label_savings(curve_of([[1.0, 0, 2, 2]]), curve_of([[1.0, 1, 1, 1]]), "accuracy").final
    assert savings.estimate.kind == Kind.AT_MOST
    assert savings.estimate.value == 1 - 25 / 10


def test_the_reference_against_itself_saves_exactly_nothing(run):
    row = savings_table(run, resamples=500).query("is_reference and split == 'test'").iloc[0]
    assert row["savings"] == row["low"] == row["high"] == row["shared_savings"] == row["final_difference"] == 0
    assert math.isnan(row["melo2024"])


def test_less_is_better_for_the_brier_score(curve_of):
    faster, slower = curve_of([[4.0, 2, 1, 0]]), curve_of([[4.0, 3, 2, 1]])
    savings = label_savings(faster, slower, "brier")
    assert savings.final.estimate.value == 1 - 30 / 40
    assert savings.final.level == 1
    assert label_savings(faster, slower, "accuracy").final.estimate.kind == Kind.NOT_REACHED


def test_a_metric_without_direction_is_refused(run):
    with pytest.raises(BalbenchError, match=r"'epistemic'; choose one of: log_likelihood, "):
        savings_table(run, "epistemic")


def test_curves_of_different_seeds_are_refused(curve_of):
    with pytest.raises(BalbenchError, match=r"^seeds: policy and reference have .* give curves of the same seeds"):
        label_savings(curve_of(LINE), curve_of([LINE[0], LINE[0]]), "accuracy")


@pytest.mark.parametrize(("seeds", "has_interval"), [(1, False), (2, False), (3, True)])
def test_fewer_than_three_seeds_give_no_interval(curve_of, seeds, has_interval):
    savings = label_savings(curve_of(LINE * seeds), curve_of(LINE * seeds), "accuracy", resamples=50)
    assert (savings.final.low is not None) == has_interval
    assert (savings.final_difference_interval is not None) == has_interval
    assert math.isnan(savings.final.share_not_reached) != has_interval


def test_the_bootstrap_is_the_same_each_time_and_takes_less_than_a_second(run):
    start = time.process_time()
    first = savings_table(run)
    # 12 comparisons of 10,000 resamples
    assert time.process_time() - start < 6
    pd.testing.assert_frame_equal(first, savings_table(run))


def test_the_bootstrap_is_paired(curve_of):
    """Seeds differ widely, but policy and reference differ by a constant, also when both are resampled together."""
    generator = np.random.default_rng(5)
    reference_ST = np.cumsum(generator.uniform(0.5, 2, size=(8, 6)), axis=1) + generator.normal(0, 9, size=(8, 1))
    policy, reference = curve_of(reference_ST + 0.25), curve_of(reference_ST)
    low, high = label_savings(policy, reference, "accuracy").final_difference_interval
    assert (low, high) == (pytest.approx(0.25), pytest.approx(0.25))
    same = label_savings(reference, reference, "accuracy").final
    assert same.low.value == same.high.value == 0


def test_the_interval_covers_what_resampling_by_hand_gives(curve_of):
    generator = np.random.default_rng(6)
    policy_ST = np.cumsum(generator.uniform(0.9, 1.5, size=(5, 8)), axis=1)
    reference_ST = np.cumsum(generator.uniform(0.8, 1.2, size=(5, 8)), axis=1)
    policy, reference = curve_of(policy_ST), curve_of(reference_ST)
    values = []
    for _ in range(2000):
        drawn_S = generator.integers(5, size=5)
        means = policy_ST[drawn_S].mean(axis=0), reference_ST[drawn_S].mean(axis=0)
        values.append(slow_savings(list(policy.labels_T), *map(list, means), means[1][-1])[1])
    savings = label_savings(policy, reference, "accuracy").final
    np.testing.assert_allclose([savings.low.value, savings.high.value], np.quantile(values, [0.025, 0.975]), atol=0.02)


def test_an_end_among_censored_resamples_is_a_bound():
    value_B = np.concatenate([np.full(60, -0.5), np.full(40, -0.1), np.linspace(0.1, 0.2, 900)])
    kind_B = np.array([Kind.NOT_REACHED] * 100 + [Kind.EXACT] * 900, dtype=object)
    low, high = interval_ends(value_B, kind_B)
    assert (low.kind, low.value) == (Kind.NOT_REACHED, -0.5)
    assert high.kind == Kind.EXACT
    assert 0.19 < high.value < 0.2


def test_censored_resamples_sort_below_numbers_that_are_smaller_than_their_bounds():
    """Two in a hundred are only known to be below 0.9: the low end is the least of the numbers, not this bound."""
    value_B = np.concatenate([np.full(20, 0.9), np.linspace(0, 1, 980)])
    kind_B = np.array([Kind.NOT_REACHED] * 20 + [Kind.EXACT] * 980, dtype=object)
    low, _ = interval_ends(value_B, kind_B)
    assert low.kind == Kind.EXACT
    assert low.value < 0.01


def test_an_end_beyond_the_start_of_the_curve_is_a_lower_bound():
    value_B = np.concatenate([np.linspace(0.1, 0.2, 900), np.full(100, 0.3)])
    kind_B = np.array([Kind.EXACT] * 900 + [Kind.AT_LEAST] * 100, dtype=object)
    _, high = interval_ends(value_B, kind_B)
    assert (high.kind, high.value) == (Kind.AT_LEAST, 0.3)


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
    table = savings_table(run, "accuracy", resamples=50)
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


def test_an_unreached_level_is_never_a_number_in_the_table(run):
    row = savings_table(run, resamples=500).query("policy == 'BALD' and split == 'test'").iloc[0]
    assert row["kind"] == "not_reached"
    assert not row["reached"]
    assert math.isnan(row["savings"])
    assert math.isnan(row["n_policy"])
    assert row["bound"] == 0
    assert row["shared_savings"] < 0


def test_a_policy_that_has_not_begun_keeps_its_row(run):
    run.curves = run.curves[run.curves["policy"] != "BALD"]
    row = savings_table(run, resamples=50).query("policy == 'BALD' and split == 'test'").iloc[0]
    assert row["seeds"] == 0
    assert math.isnan(row["savings"])
    assert row["kind"] == ""


def test_an_unfinished_policy_is_compared_where_both_have_results(run, curve_of):
    late = (run.curves["policy"] == "BAL-PM") & (run.curves["round"] > 5)
    run.curves = run.curves[~late]
    row = savings_table(run, resamples=50).query("policy == 'BAL-PM' and split == 'test'").iloc[0]
    assert (row["seeds"], row["rounds"], row["labels"]) == (5, 6, 192)
    reference = run.curves.query("policy == 'random' and split == 'test' and metric == 'log_likelihood'")
    assert row["level"] == pytest.approx(reference[reference["round"] == 5]["value"].mean())


def test_labels_may_differ_between_policies():
    """An oracle that abstains: the policy bought 8 labels a round, the reference 10."""
    values_ST = np.array(LINE)
    policy = Curve(8.0 * np.arange(1, 5), values_ST)
    reference = Curve(10.0 * np.arange(1, 5), values_ST)
    assert label_savings(policy, reference, "accuracy").final.estimate.value == pytest.approx(1 - 32 / 40)


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(savings_module).attempted > 0
    assert doctest.testmod(savings_module).failed == 0


def _level(low, high, share=0.0):
    return LevelSavings(Estimate(share, Kind.EXACT), low, high, 0.0, 0.0, 1.0, 1.0)


EXACT, AT_MOST, NOT_REACHED, AT_LEAST = Kind.EXACT, Kind.AT_MOST, Kind.NOT_REACHED, Kind.AT_LEAST


@pytest.mark.parametrize(
    ("low", "high", "shared", "outcome"),
    [
        ((0.12, EXACT), (0.45, EXACT), 0.1, Outcome.SAVED),
        ((0.12, EXACT), (0.45, AT_LEAST), 0.1, Outcome.SAVED),
        ((-0.3, EXACT), (0.04, EXACT), 0.1, Outcome.UNCLEAR),
        ((0, NOT_REACHED), (0.45, EXACT), -0.1, Outcome.UNCLEAR),
        ((0.1, AT_MOST), (0.45, EXACT), 0.1, Outcome.UNCLEAR),
        ((-0.3, EXACT), (-0.04, EXACT), -0.1, Outcome.LOST),
        ((-0.4, NOT_REACHED), (0, NOT_REACHED), -0.1, Outcome.LOST),
        ((-0.3, EXACT), (-0.04, EXACT), 0.05, Outcome.UNCLEAR),  # it saves labels at the shared level
    ],
)
def test_the_outcome_follows_from_the_interval(low, high, shared, outcome):
    learnt = Learning(0.5, 0.1, 0.01, 0.1, 0.01, "")
    ends = Estimate(*low), Estimate(*high)
    savings = LabelSavings(_level(*ends), _level(None, None, shared), 0.6, 0.0, None, learnt)
    assert savings.outcome == outcome
    assert dataclasses.replace(savings, final=_level(None, None)).outcome == Outcome.NO_INTERVAL
    not_learnt = dataclasses.replace(learnt, missing="not above chance")
    assert dataclasses.replace(savings, reference=not_learnt).outcome == Outcome.NO_LEVEL


def test_distinct_resamples_represent_all_that_are_drawn():
    index_US, use_B = resample(5, 10_000)
    np.testing.assert_array_equal(index_US[0], range(5))
    assert len(index_US) == math.comb(9, 5)
    np.testing.assert_array_equal(index_US[use_B], np.sort(bootstrap_indices(5, 10_000), axis=1))
    assert len(resample(5, 0)[1]) == 0
