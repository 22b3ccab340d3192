"""Tests of the verdicts of a gate, of the file of a baseline, and of the texts."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from balbench.harness.errors import BalbenchError
from balbench.reports.figures import gate as figure
from balbench.reports.gate import Rules, Verdict, default_policies, run_gate
from balbench.reports.gate_file import KEY, read_baseline, write_baseline
from balbench.reports.gate_records import PolicyRecord, Snapshot, hash_of, rounded
from balbench.reports.gate_text import gate_table, junit, markdown, plain_text, sentence

LABELS = np.arange(40.0, 280, 40)
STUDY = {"dataset": {"name": "simulated"}, "posterior": {"members": 5}, "protocol": {"initial": 40}}


def record(policy="bald", loss=0.0, noise=0.002, seeds=20, seed=0, flat=False, picks="a"):
    generator = np.random.default_rng(seed)
    mean_T = -0.7 + (0 if flat else 0.25) * (1 - (LABELS / (1 + loss) / 40).clip(1) ** -0.8)
    values_ST = rounded(mean_T + generator.normal(0, noise, size=(seeds, len(LABELS))))
    metrics = {"test/log_likelihood": values_ST, "test/log_likelihood_se": np.full(values_ST.shape, 1e-4)}
    picks_ST = [[*[hash_of([ord(picks)])] * (len(LABELS) - 1), hash_of([])] for _ in range(seeds)]
    return PolicyRecord(
        setting="",
        policy=policy,
        settings={"name": policy},
        key="k",
        world="w",
        dataset="d",
        sources={},
        seeds_S=np.arange(seeds),
        labels_ST=np.tile(LABELS, (seeds, 1)),
        metrics=metrics,
        picks_ST=picks_ST,
        seconds_ST=np.full((seeds, len(LABELS)), 0.1) + generator.uniform(0, 0.01, size=(seeds, len(LABELS))),
    )


def snapshot(*records, name="demo", study=STUDY, versions=None):
    return Snapshot(name, "random", study, versions or {"loop": 11}, [{"cpu": "AVX2"}], list(records))


def one(old, new, **rules):
    found = run_gate(snapshot(old), snapshot(new), {new.policy: old.policy}, Rules(**rules))
    return found.policies[0]


def test_the_same_curves_pass_and_say_so():
    found = one(record(), record(picks="b"))
    assert (found.verdict, found.reason, found.same_picks) == (Verdict.PASS, "same curves", False)
    assert one(record(), record()).same_picks


def test_a_policy_that_needs_more_labels_is_refused():
    found = one(record(), record(loss=0.5, seed=1))
    assert found.verdict == Verdict.REGRESSED
    assert "the baseline needs 3" in sentence(found, 0.05)  # 1 - 1 / 1.5 = 33% fewer


def test_other_noise_alone_passes_where_seeds_are_many_and_is_unclear_where_few():
    assert one(record(seeds=60), record(seeds=60, seed=1)).verdict == Verdict.PASS
    few = one(record(seeds=4, noise=0.02), record(seeds=4, noise=0.02, loss=0.2, seed=1))
    assert few.verdict == Verdict.CANNOT_TELL
    assert few.seeds_needed > 4
    assert f"about {few.seeds_needed:.0f} seeds would tell (now 4)" in sentence(few, 0.05)


def test_a_clear_loss_below_the_margin_passes():
    old = record(noise=1e-5)
    found = one(old, record(noise=1e-5, loss=0.02, seed=1), margin=0.05)
    assert found.verdict == Verdict.PASS
    assert found.measures[0].p_worse < 1e-3


@pytest.mark.parametrize("same", [True, False])
def test_a_baseline_that_did_not_learn_never_passes(same):
    found = one(record(flat=True), record(flat=True, seed=0 if same else 1))
    assert found.verdict == Verdict.CANNOT_TELL
    assert "did not learn" in found.reason


def test_two_seeds_cannot_tell():
    found = one(record(seeds=2, noise=1e-5), record(seeds=2, noise=1e-5, loss=0.5, seed=1))
    assert found.verdict == Verdict.CANNOT_TELL
    assert "fewer than 3 seeds" in found.reason


def test_p_values_are_adjusted_for_all_policies_whose_curves_changed():
    policies = [f"p{number}" for number in range(5)]
    old = snapshot(*(record(policy, seed=number) for number, policy in enumerate(policies)))
    new = snapshot(*(record(policy, seed=number + 100 * (number > 1)) for number, policy in enumerate(policies)))
    found = run_gate(old, new, {policy: policy for policy in policies}, Rules())
    smallest = min(each.p_worse for policy in found.policies for each in policy.measures)
    assert min(p for policy in found.policies for p in policy.p_adjusted) == pytest.approx(min(1, 9 * smallest))


def test_the_gate_has_the_worst_verdict():
    old = snapshot(record("a"), record("b"))
    new = snapshot(record("a"), record("b", loss=0.5, seed=2))
    assert run_gate(old, new, {"a": "a", "b": "b"}, Rules()).verdict == Verdict.REGRESSED
    assert run_gate(old, new, {"a": "a"}, Rules()).verdict == Verdict.PASS


def test_cost_is_relative_to_the_reference():
    slow = record()
    slow = replace(slow, seconds_ST=slow.seconds_ST * 4)
    old, new = snapshot(record("random"), record()), snapshot(record("random", seed=3), slow)
    found = run_gate(old, new, {"bald": "bald"}, Rules(cost=0.5))
    assert found.verdict == Verdict.REGRESSED
    assert "cost x4" in sentence(found.policies[0], 0.05)
    assert run_gate(old, new, {"bald": "bald"}, Rules()).verdict == Verdict.PASS
    with pytest.raises(BalbenchError, match="no such policy"):
        run_gate(snapshot(record()), snapshot(slow), {"bald": "bald"}, Rules(cost=0.5))


def test_the_reference_is_not_tested_unless_it_is_alone():
    assert default_policies(snapshot(record("random"), record("bald"))) == ["bald"]
    assert default_policies(snapshot(record("random"))) == ["random"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": {**STUDY, "posterior": {"members": 9}}}, r"posterior.members: 5 -> 9"),
        ({"versions": {"loop": 12}}, r"version of loop: 11 -> 12"),
        ({}, r"the code of the oracle, the posterior or the loop"),
    ],
)
def test_another_world_is_refused_by_name(change, message):
    new = replace(record(), world="other")
    with pytest.raises(BalbenchError, match=message):
        run_gate(snapshot(record()), snapshot(new, **change), {"bald": "bald"}, Rules())
    with pytest.raises(BalbenchError, match="data file"):
        run_gate(snapshot(record()), snapshot(replace(new, dataset="e")), {"bald": "bald"}, Rules())


def test_missing_seeds_rounds_policies_and_values_are_refused():
    old = snapshot(record(seeds=5))
    with pytest.raises(BalbenchError, match=r"lacks the seeds \[3, 4\] of the baseline"):
        run_gate(old, snapshot(record(seeds=3)), {"bald": "bald"}, Rules())
    short = record(seeds=5)
    short = replace(short, labels_ST=short.labels_ST[:, :4])
    with pytest.raises(BalbenchError, match="has 4 rounds, the baseline has 6"):
        run_gate(old, snapshot(short), {"bald": "bald"}, Rules())
    with pytest.raises(BalbenchError, match="policy 'bold': demo has no such policy; it has bald"):
        run_gate(old, snapshot(record(seeds=5)), {"bold": "bald"}, Rules())
    hole = record(seeds=5)
    hole.metrics["test/log_likelihood"][2, 1] = np.nan
    with pytest.raises(BalbenchError, match="bald: values: is nan"):
        run_gate(old, snapshot(hole), {"bald": "bald"}, Rules())
    with pytest.raises(BalbenchError, match="'ood/brier' has no learning curves"):
        run_gate(old, old, {"bald": "bald"}, Rules(split="ood", metric="brier"))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"margin": 5}, "margin 5: must be above 0 and below 1"),
        ({"margin": float("nan")}, "margin nan"),
        ({"alpha": 0.5}, "alpha 0.5: must be above 0 and below 0.5"),
        ({"cost": -1}, "cost -1: must be above 0"),
        ({"metric": "ece"}, "metric 'ece': must be one of log_likelihood"),
        ({"split": "eval"}, "split 'eval': must be one of test, ood"),
    ],
)
def test_rules_are_checked(rules, message):
    with pytest.raises(BalbenchError, match=message):
        one(record(), record(), **rules)


def test_a_baseline_is_read_as_it_was_written(tmp_path):
    before = snapshot(record("random"), record())
    after = read_baseline(write_baseline(before, tmp_path / "baseline.json"))
    found = run_gate(after, before, {"bald": "bald", "random": "random"}, Rules(cost=0.1))
    assert [each.same_picks for each in found.policies] == [True, True]
    assert {each.reason for each in found.policies} == {"same curves"}
    assert after.machines == before.machines


def test_a_damaged_baseline_is_one_line(tmp_path):
    path = write_baseline(snapshot(record()), tmp_path / "baseline.json")
    text = path.read_text()
    cases = {
        text[: len(text) // 2]: "is torn",
        text.replace("-0.", "-0.1", 1): "was changed after it was written",
        text.replace(f'"{KEY}":1', f'"{KEY}":7'): "has version 7",
        "{}": "is no baseline",
        "[1]": "is no baseline",
        text.replace("40.0", "NaN", 1): "is torn",
        "\xff": "is torn",
    }
    for content, message in cases.items():
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(BalbenchError, match=message) as error:
            read_baseline(path)
        assert "\n" not in str(error.value)
    with pytest.raises(BalbenchError, match="cannot be read"):
        read_baseline(tmp_path / "nothing.json")


def test_texts_of_all_verdicts(tmp_path):
    old = snapshot(record("a"), record("b"), record("c", noise=0.02), record("d|x"))
    new = snapshot(
        record("a"), record("b", loss=0.5, seed=2), record("c", noise=0.02, seed=3), record("e", loss=-0.3, seed=4)
    )
    found = run_gate(old, new, {"a": "a", "b": "b", "c": "c", "e": "d|x"}, Rules())
    assert [str(each.verdict) for each in found.policies] == ["pass", "regressed", "cannot tell", "pass"]
    suite = ElementTree.fromstring(junit(found).split("\n", 1)[1])
    assert (suite.get("failures"), suite.get("errors"), suite.get("tests")) == ("1", "1", "4")
    assert markdown(found).startswith("### balbench gate: regressed\n")
    assert r"e (was d\|x)" in markdown(found)
    assert len({line.count(" | ") for line in markdown(found).splitlines() if line.startswith("|")}) == 1
    assert "b: regressed: savings -" in plain_text(found)
    assert len(gate_table(found).columns) == 7
    paths = figure.write(found, tmp_path / "gate")
    assert {path.suffix for path in paths} == {".png", ".pdf", ".svg", ".csv"}
    assert found.table["p_within"].notna().sum() == 9
    json.loads(json.dumps(json.loads(found.table.to_json())))
