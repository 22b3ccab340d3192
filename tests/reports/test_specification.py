"""The specification check finds votes that do not follow the predicted logits among far pairs, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results import HeldOut, RunDirectory, read_run
from balbench.harness.results.held_out import write_held_out
from balbench.harness.results.records import FinishedRound
from balbench.reports.analysis import analyse
from balbench.reports.page import write_report
from balbench.reports.specification import (
    ALL_PAIRS,
    BINS,
    DAMAGED,
    DELETED,
    NO_ROUNDS,
    OLDER_VERSION,
    TREND,
    _rows,
    bought_distances,
    check_specification,
    misfit_texts,
    misfits,
    specification,
    specification_texts,
)
from balbench.reports.vote_slopes import vote_slope

N, SEEDS = 4_000, 3
STUDY = {
    "name": "a", "policies": [{"name": "random"}, {"name": "bald"}], "seeds": [0, 1, 2],
    "protocol": {"rounds": 2}, "reference": "random",
}  # fmt: skip
METRICS = {"test": {"log_likelihood": -0.6, "log_likelihood_se": 0.01, "brier": 0.2, "brier_se": 0.01}}


def cell(policy, seed):
    return {
        "setting": "", "policy": policy, "seed": seed, "key": "k", "directory": f"{policy}-{seed}", "rounds": 2,
        "full_data": False, "keys": {"dataset": "d", "setting": "s", "policy": policy}, "settings": {"name": policy},
    }  # fmt: skip


def votes(slope_of_distance, scale=1.0, seed=0, N=N):
    """Logits that grow with the distance, and votes with a slope on the logits that depends on its quantile."""
    generator = np.random.default_rng(seed)
    distance_N = generator.lognormal(size=N)
    logit_N = distance_N * generator.normal(size=N) / 2
    quantile_N = np.argsort(np.argsort(distance_N)) / N
    share_N = (generator.random(N) < expit(slope_of_distance(quantile_N) * logit_N)).astype(float)
    share_N[::50] = np.nan
    prompt_N = (np.arange(N) // 3).astype(np.int32)
    return scale * logit_N, HeldOut(share_N, prompt_N, distance_N.astype(np.float32))


def write_run(path, logit_N, held_out, predictions=True):
    """A run of two policies; the reference's last fit predicts these logits, its first fit predicts nothing."""
    directory = RunDirectory(path)
    path.mkdir()
    directory.adopt({"study": STUDY, "cells": [cell(p, s) for p in ("random", "bald") for s in range(3)], "lines": {}})
    for policy, distance in (("random", 1.0), ("bald", 1.3)):
        for seed in range(SEEDS):
            log = directory.cell(f"{policy}-{seed}")
            log.open({"key": "k", "sources": {}, "code": ""}, 2)
            for number in range(2):
                log.append([finished(number, distance, logit_N if predictions else None)])
            log.finish({})
    directory.data("d").mkdir(parents=True)
    if predictions:
        write_held_out(directory.data("d"), {"test": held_out})
    return read_run(path)


def finished(number, distance, logit_N):
    batch = (
        {"batch": {"distance_mean": distance, "farthest_share": distance / 20}}
        if number == 0 and logit_N is not None
        else {}
    )
    record = {
        "round": number,
        "labels": 10 * (number + 1),
        "metrics": METRICS | batch,
        "acquired": [1] if number == 0 else [],
    }
    logits = None if logit_N is None else {"test": (number * logit_N).astype(np.float16)}
    return FinishedRound(record, {"round": number, "seconds": {"fit": 1.0}}, logits)


def test_seeds_that_predict_the_same_add_no_information(tmp_path):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: 1.0))
    rows = specification(run, "", "test")
    logit_N, held_out = votes(lambda quantile_N: 1.0)
    voted_N = ~np.isnan(held_out.share_N)
    one = vote_slope(
        logit_N.astype(np.float16).astype(float)[voted_N], held_out.share_N[voted_N], held_out.prompt_N[voted_N]
    )
    assert rows["slope"].iloc[0] == pytest.approx(one.value)
    assert rows["slope_se"].iloc[0] == pytest.approx(one.error)
    assert rows["bin"].tolist() == [ALL_PAIRS, *BINS, TREND]
    assert rows["seeds"].tolist() == [SEEDS] * 7
    assert rows["pairs"].tolist() == [round(voted_N.sum() * share) for share in (1, 0.25, 0.25, 0.25, 0.15, 0.1, 1)]
    assert rows["distance"].iloc[0] == 1
    assert rows["distance"].iloc[1:6].is_monotonic_increasing


@pytest.mark.parametrize("scale", [1.0, 0.2, 3.0])
def test_a_global_lack_of_calibration_is_no_misfit(tmp_path, scale):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: 1.0, scale))
    rows = specification(run, "", "test").set_index("bin")
    assert rows["slope"][ALL_PAIRS] == pytest.approx(1 / scale, rel=0.15)
    assert specification_texts(run) == []


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_votes_on_far_pairs_that_are_no_clearer_than_others_are_a_misfit(tmp_path, scale):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: np.where(quantile_N > 0.9, 0.3, 1.2), scale))
    rows = specification(run, "", "test").set_index("bin")
    assert rows["slope"][BINS[-1]] == pytest.approx(0.3 / scale, abs=0.15 / scale)
    (text,) = specification_texts(run)
    assert text.startswith(
        "Misfit on test: among the farthest tenth of test pairs, votes follow the logits of random's last"
    )
    assert f"a slope of {rows['slope'][BINS[-1]]:.2f} [" in text
    assert "policies that buy far pairs (bald most: 1.30 times the pool's mean distance) may lose or lead" in text


def is_misfit(slope_of_distance, seed, pairs):
    """Whether a split shows a misfit."""
    logit_N, held_out = votes(slope_of_distance, seed=seed, N=pairs)
    rows = pd.DataFrame([{"setting": "", "split": "test", **row} for row in _rows(logit_N[None], held_out)])
    return len(misfits(rows)) == 1


def test_few_small_splits_of_the_right_form_are_called_a_misfit_and_most_others_are():
    assert sum(is_misfit(lambda quantile_N: 1.0, seed, 600) for seed in range(200)) <= 10
    assert sum(is_misfit(lambda quantile_N: 1.8 - 1.4 * quantile_N, seed, 2_000) for seed in range(50)) >= 35


def test_one_warning_describes_the_worst_of_several_settings():
    def rows(setting, far, trend_high):
        slopes = {ALL_PAIRS: (1.0, 0.8, 1.2), BINS[-1]: (far, far - 0.3, far + 0.3), TREND: (-1.0, -2.0, trend_high)}
        return [
            {"setting": setting, "split": "test", "bin": name, "slope": slope, "slope_low": low, "slope_high": high}
            for name, (slope, low, high) in slopes.items()
        ]

    slopes = pd.DataFrame([*rows("a", 0.6, -0.1), *rows("b", 0.3, 0.1), *rows("c", 0.6, 0.1), *rows("d", 0.9, -0.1)])
    assert misfits(slopes)["setting"].tolist() == ["a", "b"]
    bought = pd.DataFrame([{"setting": "b", "policy": "bald", "distance_mean": 1.5, "farthest_share": 0.2}])
    (text,) = misfit_texts(slopes, bought, "random", settings=4)
    assert text.startswith(
        "Misfit on test in 2 of 4 settings: among the farthest tenth of test pairs of b (the clearest case), votes"
    )
    assert "a slope of 0.30 [0.00, 0.60], against 1.00 for all pairs" in text


def test_the_page_has_the_check_and_its_tables(tmp_path):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: np.where(quantile_N > 0.9, 0.3, 1.2)))
    text = write_report(analyse([run]), tmp_path / "report").read_text()
    assert "Specification check" in text
    assert "Misfit on test" in text
    assert '<tr class="lost"><th scope="row">farthest tenth</th>' in text
    assert "<td>1.30</td><td>6%</td>" in text
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    check = content["specification"]["a"]
    assert [row["bin"] for row in check["slopes"]] == [ALL_PAIRS, *BINS, TREND]
    assert len(check["warnings"]) == 1
    assert [row["policy"] for row in check["bought"]] == ["random", "bald"]
    for name in ("specification.csv", "distances.csv"):
        assert any(path.endswith(name) for path in content["files"])


def test_bought_distances_are_means_over_rounds_and_seeds(run_of):
    run = run_of(["random", "BALD"], seeds=2, rounds=3, metrics=["brier"], splits=["test"])
    rows = [
        ("", policy, seed, number, 0, "batch", metric, float(10 * (policy == "BALD") + 2 * seed + number))
        for policy in ("random", "BALD")
        for seed in range(2)
        for number in range(2)
        for metric in ("distance_mean", "farthest_share")
    ]
    run = replace(run, curves=type(run.curves)(rows, columns=run.curves.columns))
    table = bought_distances(run, "")
    assert table["policy"].tolist() == ["random", "BALD"]
    assert table["distance_mean"].tolist() == [1.5, 11.5]
    assert table["seeds"].tolist() == [2, 2]


def test_a_run_of_an_older_version_says_why_there_is_no_check(tmp_path):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: 1.0), predictions=False)
    check = check_specification(run)
    assert check.missing == {"": OLDER_VERSION}
    assert not len(check.slopes)
    assert not len(check.bought)
    assert check.texts == []
    text = write_report(analyse([run]), tmp_path / "report").read_text()
    assert f"No slopes by distance: {OLDER_VERSION}." in text


def test_deleted_predictions_leave_the_rest_of_the_report(tmp_path):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: 1.0))
    for path in (tmp_path / "run").glob("cells/*/predictions.f16"):
        path.unlink()
    check = check_specification(run)
    assert check.missing == {"": DELETED}
    assert check.bought["policy"].tolist() == ["random", "bald"]


def test_damaged_predictions_are_named(tmp_path):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: 1.0))
    path = tmp_path / "run" / "cells" / "random-1" / "predictions.f16"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunDirectoryError, match="the row of round 1 is damaged"):
        specification(run)


def test_a_damaged_file_is_a_warning_and_leaves_the_rest_of_the_report(tmp_path):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: 1.0))
    whole = analyse([run])[0].specification.slopes
    assert set(whole["seeds"]) == {3}
    path = tmp_path / "run" / "cells" / "random-1" / "predictions.f16"
    path.write_bytes(path.read_bytes()[:-1])
    analysis = analyse([run])[0]
    assert set(analysis.specification.slopes["seeds"]) == {2}
    (warning,) = analysis.damages
    assert warning.startswith(f"Left out what needs a damaged file: {path}: the row of round 1 is damaged; delete the")
    assert warning in analysis.warnings
    page = write_report([analysis], tmp_path / "report")
    assert "the row of round 1 is damaged" in page.read_text()
    path.unlink()
    write_report(analyse([run]), tmp_path / "report")
    assert "is damaged" not in page.read_text()


def test_damaged_held_out_pairs_are_a_warning(tmp_path):
    run = write_run(tmp_path / "run", *votes(lambda quantile_N: 1.0))
    (path,) = (tmp_path / "run").glob("data/*/held_out.safetensors")
    path.write_bytes(b"junk")
    analysis = analyse([run])[0]
    assert analysis.specification.missing == {"": DAMAGED}
    (warning,) = analysis.damages
    assert "held_out.safetensors: cannot be read" in warning


def test_a_reference_without_rounds_has_no_check(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.adopt({"study": STUDY, "cells": [cell("random", 0)], "lines": {}})
    assert check_specification(read_run(tmp_path)).missing == {"": NO_ROUNDS}
