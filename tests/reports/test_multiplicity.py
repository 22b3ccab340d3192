"""Holm's adjustment: the definition, and the error rate over several comparisons."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from balbench.reports.multiplicity import holm


def slow_rejects(p_values: list[float], alpha: float) -> list[bool]:
    """The definition: reject from the smallest p-value on, until one exceeds alpha / (number left)."""
    rejected, left = [False] * len(p_values), len(p_values)
    for index in sorted(range(len(p_values)), key=lambda index: p_values[index]):
        if p_values[index] > alpha / left:
            break
        rejected[index], left = True, left - 1
    return rejected


@given(st.lists(st.floats(0, 1), max_size=12), st.sampled_from([0.01, 0.05, 0.3]))
def test_adjusted_p_values_reject_what_holms_steps_reject(p_values, alpha):
    adjusted = holm(p_values)
    for p_adjusted, rejects, p_value in zip(adjusted, slow_rejects(p_values, alpha), p_values, strict=True):
        if not np.isclose(p_adjusted, alpha):
            assert (p_adjusted <= alpha) == rejects
        assert p_value <= p_adjusted <= 1


def test_thirty_policies_that_save_nothing_give_a_claim_in_one_table_of_twenty():
    tables = np.random.default_rng(0).random((2000, 30))
    assert np.mean([min(holm(list(row))) <= 0.05 for row in tables]) < 0.065
