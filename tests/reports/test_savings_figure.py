"""The figure of savings at every level."""

from __future__ import annotations

import pytest

from balbench.reports.curves import Curves
from balbench.reports.figures.savings_curves import MOST_POLICIES, draw, make_panel, numbers
from balbench.reports.savings_table import savings_table
from balbench.reports.style import looks


def _panel(run, split="test"):
    rows = savings_table(run).query(f"split == '{split}'")
    return make_panel(Curves(run.curves), rows, run.reference)


def test_the_policy_that_saves_most_has_the_band(run):
    panel = _panel(run)
    assert next(iter(panel.curves)) == "BAL-PM"
    figure = draw(panel, looks(run.policies, "random"))
    assert len(figure.axes[0].collections) == 1
    # the line at zero and one line for each policy
    assert len(figure.axes[0].lines) == 1 + 3


def test_many_policies_are_in_the_numbers_and_few_in_the_figure(run_of):
    run = run_of(["random", *[f"policy {number}" for number in range(10)]], seeds=3, rounds=5)
    panel = _panel(run)
    assert numbers(panel)["policy"].nunique() == 10
    assert len(draw(panel, looks(run.policies, "random")).axes[0].lines) == 1 + MOST_POLICIES


@pytest.mark.parametrize("rounds", [1, 2])
def test_without_levels_there_is_no_figure(run_of, rounds):
    assert _panel(run_of(["random", "BALD"], rounds=rounds)) is None


def test_two_seeds_give_lines_without_a_band(run_of):
    panel = _panel(run_of(["random", "BALD"], seeds=2))
    assert len(draw(panel, looks(["random", "BALD"], "random")).axes[0].collections) == 0
