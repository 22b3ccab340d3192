"""Curves from tidy frames of finished and unfinished runs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from balbench.harness.errors import BalbenchError
from balbench.reports.curves import Curve, Curves


def _drop(frame: pd.DataFrame, policy: str, seed: int, first_round: int) -> pd.DataFrame:
    gone = (frame["policy"] == policy) & (frame["seed"] == seed) & (frame["round"] >= first_round)
    return frame[~gone]


def test_a_finished_curve_holds_every_seed_and_round_whatever_the_order_of_the_rows(run):
    shuffled = run.curves.sample(frac=1, random_state=3)
    curve = Curves(shuffled).curve("", "BAL-PM", "test", "accuracy")
    assert curve.values_ST.shape == (5, 14)
    np.testing.assert_array_equal(curve.labels_T, 32.0 * np.arange(1, 15))
    rows = run.curves.query("policy == 'BAL-PM' and split == 'test' and metric == 'accuracy' and seed == 3")
    np.testing.assert_array_equal(curve.values_ST[3], rows.sort_values("round")["value"])


def test_mean_and_standard_error_are_over_seeds(run, curve_of):
    curve = Curves(run.curves).curve("", "BALD", "ood", "brier")
    np.testing.assert_allclose(curve.mean_T[2], np.mean(curve.values_ST[:, 2]))
    np.testing.assert_allclose(curve.standard_error_T[2], np.std(curve.values_ST[:, 2], ddof=1) / 5**0.5)
    assert np.isnan(curve_of([[1, 2, 3]]).standard_error_T).all()


def test_a_seed_that_lags_a_little_shortens_the_curve(run):
    curve = Curves(_drop(run.curves, "BALD", 2, 13)).curve("", "BALD", "test", "brier")
    assert curve.values_ST.shape == (5, 13)


def test_a_seed_that_has_only_begun_is_left_out_rather_than_cutting_the_others(run):
    curve = Curves(_drop(run.curves, "BALD", 2, 1)).curve("", "BALD", "test", "brier")
    assert curve.values_ST.shape == (4, 14)
    assert list(curve.seeds_S) == [0, 1, 3, 4]


def test_a_pair_has_the_shared_seeds_and_all_further_seeds_of_the_reference(run):
    frame = _drop(_drop(run.curves, "BALD", 2, 0), "random", 4, 0)
    policy, reference = Curves(frame).pair("", "BALD", "random", "test", "brier")
    assert list(policy.seeds_S) == [0, 1, 3]
    assert list(reference.seeds_S) == [0, 1, 2, 3]
    expected = Curves(run.curves).curve("", "random", "test", "brier").values_ST[:4]
    np.testing.assert_array_equal(reference.values_ST, expected)


def test_values_that_are_not_finite_count_as_missing(run):
    frame = run.curves.copy()
    last = (frame["policy"] == "BALD") & (frame["round"] == 13) & (frame["seed"] == 1)
    frame.loc[last, "value"] = np.nan
    assert Curves(frame).curve("", "BALD", "test", "brier").values_ST.shape == (5, 13)


def test_missing_curves_are_none(run):
    curves = Curves(run.curves[run.curves["policy"] != "BALD"])
    assert curves.curve("", "BALD", "test", "brier") is None
    assert curves.pair("", "BALD", "random", "test", "brier") is None
    assert curves.curve("", "random", "pool", "brier") is None
    assert curves.has("", "test", "brier")
    assert not curves.has("", "pool", "brier")


def test_an_empty_frame_has_no_settings(run):
    assert Curves(run.curves.iloc[:0]).settings == []


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ([10, 20], [[1, 2], [1]], "values: not an array of numbers with rows of equal length"),
        ([10, 20], [1, 2], r"values: has the shape \(2,\); give seeds x rounds"),
        ([10, 20], [[1, math.nan]], r"values: is nan at index \[0, 1\]; give finite numbers"),
        ([10, 20], [[1, "x"]], "values: not an array of numbers"),
        ([10, 20, 30], [[1, 2]], "labels: has the shape"),
        ([20, 10], [[1, 2]], "labels: must be above 0 and ascending"),
        ([10, 10], [[1, 2]], "labels: must be above 0 and ascending, each once"),
        ([10, 20], [[1, 1j]], "values: not an array of numbers"),
        ([10, 20], np.array([[1, 1j]]), "values: not an array of numbers"),
        ([10, 20], [["1", "2"]], "values: not an array of numbers"),
        ([10, 20], np.ma.masked_less([[1.0, -9.0]], 0), "values: has masked values; leave their rounds or seeds out"),
        ([0, 10], [[1, 2]], "labels: must be above 0"),
        ([], [[]], "labels: has the shape"),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(labels, values, message):
    with pytest.raises(BalbenchError, match=f"^{message}") as error:
        Curve(labels, values)
    assert "\n" not in str(error.value)


def test_seeds_rounds_and_errors_of_another_length_are_refused():
    for name, value in {"seeds": [1], "rounds": [1, 2, 3], "pair_errors": [[0.1, 0.1]]}.items():
        with pytest.raises(BalbenchError, match=f"^{name}: has the shape"):
            Curve([10, 20], [[1, 2], [3, 4]], **{name: value})


@pytest.mark.parametrize("name", ["seeds", "rounds"])
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 1], r"a number occurs twice in \[1, 1\]; remove one"),
        ([0.1, 0.2], "must be whole numbers"),
        ([0, 2.0**63], r"must be whole numbers below 2\*\*63"),
    ],
)
def test_seeds_and_rounds_are_different_whole_numbers(name, numbers, message):
    with pytest.raises(BalbenchError, match=f"^{name}: {message}"):
        Curve([10, 20], [[1, 2], [3, 4]], **{name: numbers})


def test_large_seeds_are_not_rounded(run):
    large = 2**62 + np.arange(5)
    assert list(Curve([10], [[1.0]] * 5, seeds=large).seeds_S) == list(large)
    frame = run.curves.assign(seed=run.curves["seed"] + 2**62)
    assert len(Curves(frame).curve("", "BALD", "test", "accuracy").seeds_S) > 1


def test_negative_errors_over_pairs_are_refused():
    with pytest.raises(BalbenchError, match=r"^pair_errors: some are negative; give standard errors"):
        Curve([10], [[0.6]], pair_errors=[[-0.1]])


def test_a_curve_has_the_errors_over_pairs_where_all_rounds_have_them(run):
    curve = Curves(run.curves).curve("", "BALD", "test", "accuracy")
    assert curve.pair_errors_ST.shape == curve.values_ST.shape
    gone = run.curves["metric"].eq("accuracy_se") & run.curves["round"].eq(3)
    assert Curves(run.curves[~gone]).curve("", "BALD", "test", "accuracy").pair_errors_ST is None
