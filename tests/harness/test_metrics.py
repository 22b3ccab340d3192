import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from balbench.harness.metrics import calibration_error, held_out_metrics, spearman


def test_votes_are_judged_by_definition():
    rng = np.random.default_rng(0)
    p, q = rng.random(50), rng.integers(0, 4, size=50) / 3
    found = held_out_metrics(p, q)
    assert found["log_likelihood"] == pytest.approx(
        np.mean([b * math.log(a) + (1 - b) * math.log(1 - a) for a, b in zip(p, q, strict=False)])
    )
    assert found["accuracy"] == pytest.approx(np.mean([b if a > 0.5 else 1 - b for a, b in zip(p, q, strict=False)]))
    assert found["brier"] == pytest.approx(np.mean([(a - b) ** 2 for a, b in zip(p, q, strict=False)]))


def test_pairs_without_votes_are_left_out():
    with_gap = held_out_metrics(np.array([0.9, 0.2, 0.1]), np.array([1.0, 0.0, np.nan]))
    assert with_gap == held_out_metrics(np.array([0.9, 0.2]), np.array([1.0, 0.0]))


def test_a_coin_has_half_accuracy_and_ln_2():
    found = held_out_metrics(np.full(4, 0.5), np.array([1.0, 0.0, 1.0, 1.0]))
    assert found["accuracy"] == 0.5
    assert found["log_likelihood"] == pytest.approx(-math.log(2))


def test_certainty_in_error_is_punished_but_finite():
    assert -30 < held_out_metrics(np.array([1.0]), np.array([0.0]))["log_likelihood"] < -20


def test_calibration_error_by_definition():
    rng = np.random.default_rng(1)
    confidence, agree = 0.5 + rng.random(300) / 2, rng.integers(0, 2, 300).astype(float)
    wanted = 0.0
    for low in np.arange(10) * 0.05 + 0.5:
        inside = (confidence >= low) & (confidence < low + 0.05)
        if inside.any():
            wanted += inside.mean() * abs(confidence[inside].mean() - agree[inside].mean())
    assert calibration_error(confidence, agree) == pytest.approx(wanted)
    assert calibration_error(np.ones(5), np.ones(5)) == 0


def test_spearman_is_scipys_and_constant_sides_have_none():
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 9, 40), rng.integers(0, 9, 40)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman(np.ones(4), np.arange(4)) is None
