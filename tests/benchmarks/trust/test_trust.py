"""A small version of the tables in docs/measured/trust.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from balbench.benchmarks.trust.__main__ import app
from balbench.benchmarks.trust.coverage import coverage, is_above, is_below
from balbench.benchmarks.trust.false_claims import coin_flip_claims, new_pairs_claims
from balbench.benchmarks.trust.gate import SHIPPED, cases, rates
from balbench.benchmarks.trust.populations import (
    against_itself,
    of_arrays,
    read_arrays,
    resampled,
    shipped,
    synthetic,
    write_arrays,
)
from balbench.benchmarks.trust.stopping import coverage_after_stopping
from balbench.harness.errors import BalbenchError
from balbench.reports.curves import Curve
from balbench.reports.inversion import Estimate, Kind
from balbench.reports.stopping import StoppingRule

LABELS = np.array([10.0, 20, 30, 40])


def _curve(values, seeds=1):
    return Curve(LABELS, np.array([values] * seeds, dtype=float))


@pytest.mark.parametrize(
    ("policy", "truth"),
    [
        ([0, 2, 3, 4], 1 - 30 / 40),
        ([0, 1, 2, 3], 0),
        ([0, 0.5, 1, 2], 1 - 40 / 30),
        ([0, 3, 1, 4], 1 - (30 + 20 / 3) / 40),  # the lasting crossing
        ([-3, -3, -3, -1], -np.inf),
    ],
)
def test_the_truth_is_where_the_mean_curves_cross_for_good(policy, truth):
    population = resampled("x", "accuracy", _curve(policy), _curve([0, 1, 2, 3]))
    assert population.truth(40) == pytest.approx(truth, abs=0.02)


def test_a_population_is_read_as_it_was_written(tmp_path):
    arrays = {"labels": LABELS, "test/accuracy/random": np.ones((40, 4)), "test/accuracy/a b, c": np.zeros((30, 4))}
    write_arrays(arrays, tmp_path / "p.npz")
    names = [each.name for each in of_arrays("p", read_arrays(tmp_path / "p.npz"))]
    assert names == ["p, test, random with other seeds", "p, test, a b, c"]
    (tmp_path / "damaged.npz").write_bytes(b"no archive")
    with pytest.raises(BalbenchError, match="cannot be read as a population"):
        read_arrays(tmp_path / "damaged.npz")


def test_ends_that_are_bounds_cannot_miss():
    assert is_below(Estimate(0.1, Kind.EXACT), 0.2)
    assert not is_below(Estimate(0.1, Kind.AT_LEAST), 0.2)
    assert is_below(Estimate(-9.0, Kind.AT_MOST), 0.2)
    assert is_above(Estimate(0.3, Kind.EXACT), 0.2)
    assert not is_above(Estimate(0.3, Kind.AT_MOST), 0.2)


def test_real_cells_come_with_balbench():
    names = [population.name for population in shipped()]
    assert "quickstart, test, bald" in names
    assert sum("synthetic" in name for name in names) == 4


@pytest.mark.parametrize("name", ["quickstart, test, bald", "quickstart, ood, bal_pm", "synthetic, labels lost"])
def test_intervals_cover_the_savings_of_a_population(name):
    population = next(each for each in shipped() if each.name == name and each.metric == "log_likelihood")
    measured = coverage(population, 5, 20, 400)
    assert 0.92 <= measured.coverage <= 0.985
    assert max(measured.too_low, measured.too_high) <= 0.055
    assert abs(measured.bias) < 0.05


def test_intervals_cover_after_seeds_were_added_until_they_are_narrow():
    population = next(synthetic())
    stopped = coverage_after_stopping(population, StoppingRule(0.45, 20), 150)
    assert 10 < stopped.seeds < 20
    assert stopped.coverage > 0.9
    assert stopped.coverage + stopped.too_low + stopped.too_high == pytest.approx(1)
    at_once = coverage_after_stopping(population, StoppingRule(9.0, 20), 20)
    assert at_once.seeds == 10  # the second look


def test_where_nothing_can_be_saved_claims_are_rare():
    reference = next(iter(synthetic())).draw(np.random.default_rng(0), 3, 60)[1]
    measured = coverage(against_itself("same", "log_likelihood", reference), 5, 20, 400)
    assert measured.claims <= 0.07
    assert measured.truth == pytest.approx(0, abs=1e-9)


def test_coin_flips_are_seldom_claimed_to_save_labels():
    assert max(coin_flip_claims(300, seeds=3).values()) <= 0.05


def test_over_new_test_splits_the_interval_of_seeds_errs_and_that_of_pairs_does_not():
    excluded = new_pairs_claims(300)
    assert excluded["new_pairs"] <= 0.06
    assert excluded["savings"] > 0.15


def test_the_commands_print_tables(tmp_path):
    arrays = {"labels": LABELS, "test/accuracy/random": np.ones((40, 4))}
    write_arrays(arrays, tmp_path / "p.npz")
    result = CliRunner().invoke(app, ["false-claims", "--studies", "2"])
    assert result.exit_code == 0
    assert "| coin-flip labels, 5 seeds, brier |" in result.output
    result = CliRunner().invoke(app, ["stopping", "--studies", "1", "--max-seeds", "5"])
    assert result.exit_code == 0
    assert "| synthetic, labels lost | log likelihood | 5 |" in result.output


def test_gates_are_rarely_wrong_and_see_a_worsened_policy():
    arrays = read_arrays(SHIPPED)
    for case in cases():
        if "bal_pm" not in case.name:
            found = rates(arrays, case, seeds=20, gates=40)
            assert found.is_met, (case.name, found.shares)
    unchanged = next(cases())
    assert not rates(arrays, replace(unchanged, policies={"bald": "bald, 50% random"}), 20, 20).is_met
