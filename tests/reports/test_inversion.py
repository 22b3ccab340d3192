"""Savings by test inversion: the path, the ends of the interval, bounds, p-values, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from balbench.reports.curves import Curve
from balbench.reports.differences import Differences
from balbench.reports.inversion import CONFIDENCE, Kind, invert, savings_path
from balbench.reports.savings import label_savings

LABELS = np.array([10.0, 20, 30, 40])


def _compared(t_H, freedom=10.0):
    t_H = np.asarray(t_H, dtype=float)
    return Differences(t_H, np.ones_like(t_H), np.full_like(t_H, freedom))


def test_the_path_leads_from_the_most_savings_to_the_least():
    path = savings_path(LABELS, LABELS, 40)
    assert (path.policy_H[0], path.reference_H[0]) == (10, 40)
    assert (path.policy_H[-1], path.reference_H[-1]) == (40, 10)
    assert (np.diff(path.savings_H) < 0).all()
    assert 0 in path.savings_H


def test_a_smaller_budget_leaves_the_policy_all_of_its_labels():
    path = savings_path(LABELS, LABELS, 25)
    assert path.reference_H.max() == 25
    assert path.policy_H.max() == 40
    assert path.savings_H[0] == 1 - 10 / 25


@pytest.mark.parametrize("policy", [[7.0], [7.0, 9.0]])
def test_one_round_is_a_path_too(policy):
    path = savings_path(np.array(policy), np.array([10.0]), 10)
    assert path.savings_H[0] == 1 - 7 / 10
    assert len(path.reference_H) == len(path.policy_H)


def test_ends_are_where_the_test_begins_and_ceases_to_reject():
    path = savings_path(LABELS, LABELS, 40)
    t_H = np.linspace(-6, 6, len(path.policy_H))
    inverted = invert(path, _compared(t_H))
    z_H = stats.norm.ppf(stats.t.cdf(t_H, df=10))
    expected = np.interp(stats.norm.ppf([0.975, 0.025]), z_H, path.savings_H)
    assert inverted.estimate.value == pytest.approx(np.interp(0, t_H, path.savings_H))
    assert [inverted.low.value, inverted.high.value] == pytest.approx(expected)


def test_a_lone_outlier_does_not_widen_the_interval():
    """The hull of all savings that are not rejected would reach to the outlier."""
    path = savings_path(LABELS, LABELS, 40)
    t_H = np.linspace(-6, 6, len(path.policy_H))
    plain = invert(path, _compared(t_H))
    t_H[2] = 0.0
    outlier = invert(path, _compared(t_H))
    assert outlier.high.value == pytest.approx(plain.high.value)
    assert outlier.low.value == pytest.approx(plain.low.value)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=49, max_size=49))
def test_ends_and_p_values_are_those_of_the_monotone_scores(t_values):
    """The slow definition of isotonic regression: the min-max formula of Barlow et al. 1972."""
    path = savings_path(LABELS, LABELS, 40)
    z = stats.norm.ppf(stats.t.cdf(t_values, df=10))
    sums, H = np.append(0, z.cumsum()), len(z)
    mean = {(a, b): (sums[b + 1] - sums[a]) / (b + 1 - a) for a in range(H) for b in range(a, H)}
    monotone = np.array([max(min(mean[a, b] for b in range(i, H)) for a in range(i + 1)) for i in range(H)])
    inverted = invert(path, _compared(t_values))
    zero = int(np.flatnonzero(path.savings_H == 0)[0])
    assert inverted.p_saved == pytest.approx(stats.norm.sf(monotone[zero]), abs=1e-9)
    inside = path.savings_H[np.abs(monotone) < stats.norm.ppf(0.975) - 1e-9]
    if len(inside):
        assert inverted.low.value <= inside.min() + 1e-9
        assert inverted.high.value >= inside.max() - 1e-9
        step = np.abs(np.diff(path.savings_H)).max()
        assert inverted.low.value >= inside.min() - step
        assert inverted.high.value <= inside.max() + step


@pytest.mark.parametrize(
    ("t", "low", "high"),
    [
        (-9.0, Kind.AT_MOST, Kind.AT_MOST),  # below even where it is compared with the reference's first round
        (9.0, Kind.AT_LEAST, Kind.AT_LEAST),
        (0.0, Kind.AT_MOST, Kind.AT_LEAST),  # nothing is known
    ],
)
def test_an_end_beyond_the_path_is_a_bound(t, low, high):
    path = savings_path(LABELS, LABELS, 40)
    inverted = invert(path, _compared(np.full(len(path.policy_H), t)))
    assert (inverted.low.kind, inverted.high.kind) == (low, high)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=49, max_size=49), st.floats(2, 40))
def test_interval_and_p_value_agree(t_values, freedom):
    path = savings_path(LABELS, LABELS, 40)
    inverted = invert(path, _compared(t_values, freedom))
    low, high = inverted.low, inverted.high
    assert low.value <= high.value + 1e-12
    tail = (1 - CONFIDENCE) / 2
    assert (inverted.p_saved < tail) == (low.value > 0 and low.kind != Kind.AT_MOST)
    assert (inverted.p_lost < tail) == (high.value < 0 and high.kind != Kind.AT_LEAST)
    assert 0 <= inverted.p_value <= 1


def test_the_interval_is_mirrored_when_policy_and_reference_change_places():
    generator = np.random.default_rng(3)
    labels = np.arange(10, 160, 10)
    first, second = (
        Curve(labels, 0.5 + gain * (1 - (labels / 10) ** -0.6) + generator.normal(0, 0.005, size=(6, 15)))
        for gain in (0.25, 0.3)
    )
    saved, lost = (label_savings(a, b, "accuracy").savings for a, b in ((second, first), (first, second)))
    assert saved.estimate.value > 0 > lost.estimate.value
    # 1 - n / N and 1 - N / n
    assert (1 - saved.estimate.value) * (1 - lost.estimate.value) == pytest.approx(1, abs=0.01)
    assert saved.p_saved == pytest.approx(lost.p_lost)


@pytest.mark.parametrize(("seeds", "reference_seeds"), [(5, 20), (10, 10)])
def test_intervals_cover_the_truth(seeds, reference_seeds):
    """1,500 simulated studies; a policy that saves 42%. More in docs/measured/trust.md."""
    generator = np.random.default_rng(seeds)
    labels = np.arange(32, 32 * 13, 32.0)
    shape = 1 - (labels / 32) ** -0.5
    level, own = 0.5 + 0.25 * shape[-1], 0.5 + 0.28 * (1 - (labels / 32) ** -0.6)
    truth = 1 - np.interp(level, own, labels) / labels[-1]
    high = low = 0
    for _ in range(1500):
        noise = generator.normal(0, 0.01, size=(seeds + reference_seeds, len(labels)))
        noise = noise.cumsum(axis=1) * 0.3 + noise
        noise[seeds : 2 * seeds] += 0.5 * noise[:seeds]
        policy, reference = Curve(labels, own + noise[:seeds]), Curve(labels, 0.5 + 0.25 * shape + noise[seeds:])
        savings = label_savings(policy, reference, "accuracy").savings
        high += savings.high.value < truth and savings.high.kind != Kind.AT_LEAST
        low += savings.low.value > truth
    assert 0.01 <= high / 1500 <= 0.04
    assert 0.01 <= low / 1500 <= 0.04


def test_the_interval_of_curves_without_noise_contains_the_estimate():
    policy, reference = (Curve(LABELS, [values] * 3) for values in ([0.5, 0.66, 0.72, 0.74], [0.5, 0.6, 0.64, 0.7]))
    savings = label_savings(policy, reference, "accuracy").savings
    assert savings.low.value < savings.estimate.value < savings.high.value


def test_one_seed_says_nothing_about_the_ends():
    policy, reference = (Curve(LABELS, [values]) for values in ([0.5, 0.66, 0.72, 0.74], [0.5, 0.6, 0.64, 0.7]))
    savings = label_savings(policy, reference, "accuracy").savings
    assert (savings.low.kind, savings.high.kind) == (Kind.AT_MOST, Kind.AT_LEAST)
    assert savings.low.value < savings.high.value
