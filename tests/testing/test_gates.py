"""Tests of the assertions against a baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest

import balbench
from balbench.harness.errors import BalbenchError
from balbench.harness.policies.uncertainty import Bald
from balbench.testing import assert_no_regression, assert_same_selection
from support.gates import Refactored, Turned, quiet

ONE = {"jobs": 1}


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gates")
    run = balbench.run_study(quiet(), folder / "run", progress=False, jobs=1)
    return balbench.baseline(run, folder / "baseline.json")


def test_a_refactoring_passes_and_acquires_the_same_pairs(baseline):
    found = assert_no_regression(Refactored, baseline, against="bald", **ONE)
    assert found.policies[0].reason == "same curves"
    assert_same_selection(Refactored(), baseline, seeds=2, **ONE)


def test_a_turned_sign_is_refused_with_the_table(baseline):
    with pytest.raises(AssertionError, match=r"(?s)regressed\n.*savings.*bald: regressed"):
        assert_no_regression(Turned, baseline, **ONE)
    with pytest.raises(AssertionError, match=r"first in seed 0, round 0; 2 of 2 seeds and 8 of 8 batches differ$"):
        assert_same_selection(Turned, baseline, seeds=2, **ONE)


def test_other_machines_are_named(baseline):
    elsewhere = replace(baseline, machines=[{"cpu": "AVX9"}])
    with pytest.raises(AssertionError, match=r"the machines differ.*AVX9"):
        assert_same_selection(Turned, elsewhere, seeds=1, **ONE)


def test_unclear_is_an_error_unless_it_is_allowed(baseline):
    few = replace(baseline, records=[each.cut(each.seeds_S[:2], 5) for each in baseline.records])
    with pytest.raises(AssertionError, match=r"(?s)^cannot tell\n.*fewer than 3 seeds"):
        assert_no_regression(Turned, few, **ONE)
    assert_no_regression(Turned, few, allow_unclear=True, **ONE)


def test_the_policy_of_the_baseline_is_found(baseline):
    with pytest.raises(BalbenchError, match="policy 'bold': quiet has no such policy"):
        assert_no_regression(Bald, baseline, against="bold")
    with pytest.raises(BalbenchError, match="must be a policy's class"):
        assert_no_regression(5, baseline)
    with pytest.raises(BalbenchError, match="seeds 9: the baseline has 1 to 5"):
        assert_same_selection(Bald, baseline, seeds=9)
