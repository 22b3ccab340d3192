"""Seeds are added until all intervals are narrow at two looks in a row; intervals keep their coverage."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from balbench.harness.errors import StudyError
from balbench.reports.stopping import StoppingRule, Widest, widest


def table(*rows):
    columns = ["setting", "split", "policy", "is_reference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


REFERENCE = ("", "test", "random", True, -0.9, 0.9)


def test_the_widest_interval_of_all_policies_and_settings_on_test():
    rows = [
        REFERENCE,
        ("", "test", "bald", False, 0.1, 0.3),
        ("k=5", "test", "bal_pm", False, -0.2, 0.3),
        ("", "ood", "bald", False, -0.9, 0.9),
    ]
    assert widest(table(*rows)) == Widest(0.5, "bal_pm", "k=5")


@pytest.mark.parametrize("ends", [(np.nan, 0.3), (0.3, np.nan), (np.nan, np.nan)])
def test_an_interval_without_an_end_is_infinitely_wide(ends):
    assert widest(table(REFERENCE, ("", "test", "a", False, 0, 0.1), ("", "test", "b", False, *ends))).width == math.inf


def test_a_study_without_a_policy_beside_the_reference_is_refused():
    with pytest.raises(StudyError, match="until_width: no policy is compared with the reference; add a policy"):
        widest(table(REFERENCE))


@pytest.mark.parametrize(
    ("seeds", "most", "looks"), [(5, 20, [5, 10, 15, 20]), (3, 12, [3, 8, 12]), (8, 20, [8, 16, 20]), (5, 5, [5])]
)
def test_looks_are_a_block_apart(seeds, most, looks):
    assert list(StoppingRule(0.2, most).looks(seeds)) == looks


@pytest.mark.parametrize(
    ("widths", "is_narrow"),
    [([0.1], False), ([0.3, 0.1], False), ([0.3, 0.2, 0.2], True), ([0.1, 0.3, 0.1], False), ([math.inf, 0.1], False)],
)
def test_intervals_are_narrow_at_two_looks_in_a_row(widths, is_narrow):
    assert StoppingRule(0.2).is_narrow(widths) == is_narrow


@pytest.mark.parametrize(
    ("rule", "setting", "message"),
    [
        (StoppingRule(0), "until_width", "until_width 0: must be finite and greater than 0"),
        (StoppingRule(math.nan), "until_width", "until_width nan: must be finite and greater than 0"),
        (StoppingRule(math.inf), "until_width", "until_width inf: must be finite and greater than 0"),
        (StoppingRule("wide"), "until_width", "until_width 'wide': must be a number"),
        (StoppingRule(0.2, 5.5), "max_seeds", "max_seeds 5.5: must be a whole number"),
        (StoppingRule(0.2, 4), "max_seeds", "max_seeds 4: must be at least the number of seeds, 5"),
    ],
)
def test_faults_of_a_rule(rule, setting, message):
    with pytest.raises(StudyError, match=message) as fault:
        rule.check(5)
    assert fault.value.setting == setting


def coverage(value_RS, until_width, looks_in_a_row):
    """Coverage of the 95% t intervals of the mean 0 at the look at which each row stops."""
    rule, rows = StoppingRule(until_width), len(value_RS)
    width_LR, covers_LR = [], []
    for seeds in rule.looks(5):
        part_RS = value_RS[:, :seeds]
        half_R = stats.t.ppf(0.975, seeds - 1) * stats.sem(part_RS, axis=1)
        width_LR.append(2 * half_R)
        covers_LR.append(abs(part_RS.mean(axis=1)) <= half_R)
    if looks_in_a_row == 1:  # stops at the first narrow look
        narrow_LR = np.array(width_LR) <= until_width
    else:
        narrow_LR = np.array(
            [
                [rule.is_narrow([*column[: look + 1]]) for column in np.transpose(width_LR)]
                for look in range(len(width_LR))
            ]
        )
    narrow_LR[-1] = True
    return np.array(covers_LR)[narrow_LR.argmax(axis=0), np.arange(rows)].mean()


@pytest.mark.parametrize("until_width", [0.7, 0.9, 1.2, 2.0])
def test_intervals_cover_after_stopping(until_width):
    value_RS = np.random.default_rng(5).normal(size=(10_000, 40))
    assert coverage(value_RS, until_width, 2) > 0.935
    if until_width == 1.2:
        assert coverage(value_RS, until_width, 1) < 0.93  # the reason for the second look
