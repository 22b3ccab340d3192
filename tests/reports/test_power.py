"""The number of seeds that a study needs: the formula, and whether studies of that size have the power it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

from balbench.harness.errors import BalbenchError
from balbench.reports.curves import Curve
from balbench.reports.differences import differences
from balbench.reports.power import Noise, _seeds_for_effect, noise_at_end, power_table
from balbench.reports.savings import label_savings

LABELS = 64.0 * np.arange(1, 16)


def test_the_error_is_that_of_the_comparison():
    generator = np.random.default_rng(0)
    own, other = generator.normal(size=(30, 2)), generator.normal(size=(80, 2))
    other[:30] += own
    compared = differences(own, np.arange(30), other, np.arange(80))
    noise = noise_at_end(Curve([1, 2], own), Curve([1, 2], other))
    assert noise.error(30, 80) == pytest.approx(compared.error_H[-1], rel=0.1)
    assert Noise(1.0, 1.0, 1.0).error(5, 5) == 0


def test_more_is_needed_for_smaller_effects_narrower_intervals_and_more_policies(run):
    wide, narrow = power_table(run, 0.3, 0.4), power_table(run, 0.1, 0.1)
    for name in ("seeds_for_width", "seeds_for_effect"):
        assert (narrow[name].fillna(math.inf) >= wide[name]).all()
    assert (wide["seeds_for_effect_holm"] >= wide["seeds_for_effect"]).all()
    assert (narrow["power_now"] <= wide["power_now"]).all()
    assert set(wide["policy"]) == {"BAL-PM", "BALD", "PowerBALD"}


def _study(generator, seeds, reference_seeds, effect, noise=0.01, *, is_shift=True):
    """A policy that saves `effect` everywhere, and a reference that gains the same in each doubling of labels.

    The noise shifts the whole curve of a seed, or is independent in each round.
    """
    curves = []
    for number, faster in ((seeds, 1 / (1 - effect)), (reference_seeds, 1.0)):
        shape = (number, 1 if is_shift else len(LABELS))
        values = 0.02 * np.log2(LABELS * faster) + generator.normal(0, noise, size=shape)
        curves.append(Curve(LABELS, 0.55 + values))
    return curves


@pytest.mark.parametrize(("is_shift", "most"), [(True, 0.9), (False, 1.0)])
def test_studies_of_the_size_that_it_names_find_the_effect(is_shift, most):
    """Noise that is independent over rounds leaves more power than is promised."""
    generator, effect = np.random.default_rng(1), 0.3
    pilot = _study(generator, 400, 400, effect, is_shift=is_shift)
    noise = noise_at_end(*pilot)
    seeds = int(_seeds_for_effect(noise, 0.02 * math.log2(1 / (1 - effect)), 0.8, 0.05))
    studies = (_study(generator, seeds, max(20, 2 * seeds), effect, is_shift=is_shift) for _ in range(400))
    results = [label_savings(*study, "accuracy") for study in studies]
    share = np.mean([result.savings.p_value <= 0.05 and result.savings.estimate.value > 0 for result in results])
    assert 0.72 <= share <= most


@pytest.mark.parametrize(
    ("setting", "message"), [({"effect": 0}, "effect 0"), ({"power": 1.2}, "power 1.2"), ({"width": -1}, "width -1")]
)
def test_numbers_out_of_range_are_refused_in_one_line(run, setting, message):
    with pytest.raises(BalbenchError, match=f"^{message}: must be above 0") as error:
        power_table(run, **setting)
    assert error.value.setting in setting


def test_a_run_without_enough_seeds_is_refused(run_of):
    with pytest.raises(BalbenchError, match="no policy has 3 seeds that random has too; run the study with more seeds"):
        power_table(run_of(["random", "BALD"], seeds=2))


@pytest.mark.parametrize(
    ("change", "reason", "remedy"),
    [
        (
            lambda round_N: -math.log(2) + 0.0 * round_N,
            "on test, random did not learn beyond chance",
            "buy more labels",
        ),
        (
            lambda round_N: -0.5 - 0.01 * round_N,
            "on test, random did not clearly improve between",
            "more labels or seeds",
        ),
        (
            lambda round_N: -0.6 + 0.1 * (round_N == 5) + 0.01 * round_N,
            "the curve of random declines",
            "posterior.epochs",
        ),
    ],
)
def test_where_there_is_no_level_the_reason_is_given_in_place_of_more_seeds(run_of, change, reason, remedy):
    run = run_of(["random", "BALD"], splits=["test", "ood"])
    flat = run.curves["metric"] == "log_likelihood"
    noise_N = np.random.default_rng(0).normal(0, 1e-3, flat.sum())
    run.curves.loc[flat, "value"] = change(run.curves.loc[flat, "round"].to_numpy()) + noise_N
    with pytest.raises(BalbenchError, match="there is no level to plan for") as error:
        power_table(run)
    assert reason in str(error.value)
    assert remedy in str(error.value)
    assert "run the study with more seeds" not in str(error.value)
