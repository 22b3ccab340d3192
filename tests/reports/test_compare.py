"""Tests of comparisons, and of what differs between studies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from balbench.harness.errors import BalbenchError
from balbench.reports.compare import compare_snapshots
from balbench.reports.compare_studies import changes, study_changes
from balbench.reports.compare_text import sentences
from balbench.reports.gate_records import PolicyRecord, Snapshot

LABELS = np.arange(40.0, 280, 40)


def record(loss=0.0, seed=0, seeds=10, setting="", first=0):
    noise_ST = np.random.default_rng(seed).normal(0, 0.001, size=(seeds, len(LABELS)))
    values_ST = -0.7 + 0.25 * (1 - (LABELS / (1 + loss) / 40).clip(1) ** -0.8) + noise_ST
    labels_ST, picks_ST = np.tile(LABELS, (seeds, 1)), [[""] * len(LABELS)] * seeds
    metrics = {"test/log_likelihood": values_ST}
    seeds_S = np.arange(first, first + seeds)
    return PolicyRecord(setting, "p", {}, "k", "w", "d", {}, seeds_S, labels_ST, metrics, picks_ST, None)


def snapshot(each, study=None):
    return Snapshot("demo", "random", study or {}, {"loop": 1}, [], [each])


def compared(old, new, **studies):
    return compare_snapshots(snapshot(old), snapshot(new, **studies), [("p", "p")], "log_likelihood", "test")


def test_changes_name_the_path_and_both_values():
    before = {"a": {"b": 1, "c": [1]}, "d": None, "e": "x", "f": 0}
    now = {"a": {"b": 2, "c": [1]}, "d": {}, "g": False}
    assert list(changes(before, now)) == ["a.b: 1 -> 2", "e: x -> nothing", "f: 0 -> nothing", "g: nothing -> false"]
    assert list(changes(before, before)) == []


def test_policies_are_matched_by_label():
    before = {"policies": [{"name": "random"}, {"name": "bald", "label": "B"}]}
    now = {"policies": [{"name": "bald", "label": "B", "k": 3}, {"name": "random"}, {"name": "epig"}]}
    assert list(study_changes(before, now)) == [
        "policies.B.k: nothing -> 3",
        'policies.epig: nothing -> {"name": "epig"}',
    ]


def test_a_comparison_says_how_many_labels_more():
    found = compared(record(), record(loss=0.5, seed=1), study={"seeds": 5})
    lines = list(sentences(found))
    assert lines[0].startswith("p: needs 5")
    assert "more labels (-5" in lines[0]
    assert lines[1:] == ["The studies differ, so a difference may come from them:", "  seeds: nothing -> 5"]
    assert found.table["p"].max() < 0.001
    assert "saves 3" in next(sentences(compared(record(loss=0.5), record(seed=1))))
    assert "no clear difference" in next(sentences(compared(record(), record(seed=1))))


def test_seeds_and_rounds_may_differ():
    found = compared(record(seeds=8), record(seed=1, seeds=12, first=4)).policies[0]
    assert found.shared_seeds == 4
    short = replace(
        (whole := record(seed=1)),
        labels_ST=whole.labels_ST[:, :4],
        metrics={name: values_ST[:, :4] for name, values_ST in whole.metrics.items()},
    )
    assert compared(record(), short).policies[0].curves[0].labels_T[-1] == LABELS[3]


def test_what_cannot_be_compared_is_named():
    assert "fewer than 3 seeds" in next(sentences(compared(record(seeds=2), record(seeds=2, seed=1))))
    with pytest.raises(BalbenchError, match="has no setting of demo"):
        compared(record(), record(setting="x=1"))
