"""Predictions are read once for all metrics and splits; a damaged file counts as missing, with a warning."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results import HeldOut
from balbench.reports.analysis import analyse
from balbench.reports.run_scores import RunScores
from balbench.reports.savings_table import METRICS, savings_table, savings_tables

PAIRS, ROUNDS, SEEDS = 40, 6, 4


@dataclass
class Stored:
    """Predictions of a simulated run, with damaged files."""

    reads: Counter = field(default_factory=Counter)
    damaged: set = field(default_factory=set)

    def predictions(self, setting, policy, seed):
        self.reads[policy, seed] += 1
        if (policy, seed) in self.damaged:
            raise RunDirectoryError(f"{policy}-{seed}/predictions.f16: the row of round 0 is damaged; delete the file")
        generator = np.random.default_rng([seed, len(policy)])
        return {split: generator.normal(size=(ROUNDS, PAIRS)).astype(np.float16) for split in ("test", "ood")}

    def held_out(self, setting):
        share_N = np.random.default_rng(0).integers(2, size=PAIRS).astype(float)
        return dict.fromkeys(("test", "ood"), HeldOut(share_N, np.arange(PAIRS), np.ones(PAIRS, dtype=np.float32)))


@pytest.fixture
def run(run_of):
    made = run_of(["random", "BALD", "BAL-PM"], rounds=ROUNDS, seeds=SEEDS)
    made.stored = Stored()
    made.predictions, made.held_out = made.stored.predictions, made.stored.held_out
    return made


def test_each_file_is_read_once_for_all_metrics_and_splits(run):
    tables = savings_tables(run, METRICS)
    assert set(run.stored.reads.values()) == {1}
    assert len(run.stored.reads) == 3 * SEEDS
    for metric, table in tables.items():
        assert len(table) == 2 * 3
        assert table["pairs_low_kind"].ne("").all()
        assert table.equals(savings_table(run, metric))


def test_the_report_reads_the_files_of_the_reference_once_too(run):
    analysis = analyse([run])[0]
    assert len(analysis.tables) == 3
    assert len(analysis.specification.slopes)
    assert set(run.stored.reads.values()) == {1}


def test_damaged_predictions_leave_out_the_interval_of_their_policy_only(run):
    run.stored.damaged = {("BALD", 1)}
    scores = RunScores(run)
    table = savings_tables(run, METRICS, scores=scores)["accuracy"].set_index(["policy", "split"])
    assert (table.loc["BALD", "pairs_low_kind"] == "").all()
    assert (table.loc["BALD", "low_kind"] != "").all()
    assert (table.loc["BAL-PM", "pairs_low_kind"] != "").all()
    assert scores.warnings == [
        "Left out what needs a damaged file: BALD-1/predictions.f16: the row of round 0 is damaged; delete the file."
    ]


def test_many_damaged_files_are_counted(run):
    run.stored.damaged = {(policy, seed) for policy in run.policies for seed in range(SEEDS)}
    scores = RunScores(run)
    for policy in run.policies:
        for seed in range(SEEDS):
            assert scores.predictions("", policy, seed) is None
            assert scores.predictions("", policy, seed) is None
    assert len(scores.warnings) == 4
    assert scores.warnings[-1] == "9 more files of held-out pairs are damaged."
