"""Regression tests of a policy against a baseline (see docs/gate.md)."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from balbench.gating import Gate, as_snapshot, candidate_snapshot, gate
from balbench.harness import registry
from balbench.harness.errors import BalbenchError
from balbench.harness.policies.policy import Policy
from balbench.reports.gate import Verdict, default_policies
from balbench.reports.gate_records import PolicyRecord, Snapshot

PolicySpec = type[Policy] | Policy | str | Mapping[str, Any]


def assert_no_regression(
    policy: PolicySpec,
    baseline: str | Path | Snapshot,
    *,
    against: str | None = None,
    margin: float = 0.05,
    alpha: float = 0.05,
    metric: str = "log_likelihood",
    split: str = "test",
    cost: float | None = None,
    allow_unclear: bool = False,
    **settings: Any,
) -> Gate:
    """Run a policy in the study of a baseline and raise an error if the policy got worse.

    Args:
        policy: a class, an instance with settings, or a name or mapping as in study files.
        baseline: a baseline, or its file.
        against: label of the policy in the baseline; by default that with the policy's name, or the only one.
        margin, alpha, metric, split, cost: as for `balbench.gate`.
        allow_unclear: whether "cannot tell" is accepted.
        settings: arguments of `balbench.run_study` that say where and how cells run, such as `jobs`.

    Returns:
        The verdicts, whose text is a table.

    Raises:
        AssertionError: the policy got worse, or the seeds cannot tell; the message is the table of the gate.
        BalbenchError: the baseline or an argument is wrong, or a cell failed.
    """
    before = as_snapshot(baseline)
    study, renamed = _study(policy, before, against, with_reference=cost is not None)
    with tempfile.TemporaryDirectory() as directory:
        found = gate(
            before,
            study,
            policies=renamed,
            margin=margin,
            alpha=alpha,
            metric=metric,
            split=split,
            cost=cost,
            out=Path(directory) / "run",
            **{"progress": False, **settings},
        )
    if found.verdict == Verdict.REGRESSED or (found.verdict == Verdict.CANNOT_TELL and not allow_unclear):
        raise AssertionError(f"{found.verdict}\n{found!r}")
    return found


def assert_same_selection(
    policy: PolicySpec,
    baseline: str | Path | Snapshot,
    *,
    against: str | None = None,
    seeds: int | None = None,
    **settings: Any,
) -> None:
    """Run a policy in the study of a baseline and raise an error unless it acquires the same pairs in the same order.

    This is the test of a refactoring that must change nothing. Results have the same bytes only on the same kind of
    processor with the same versions of the libraries (docs/reproducibility.md): elsewhere the last digits of scores
    differ, and sooner or later a pair. A baseline records its machines, and the message names them if they differ.

    Args:
        policy: a class, an instance with settings, or a name or mapping as in study files.
        baseline: a baseline, or its file.
        against: label of the policy in the baseline; by default that with the policy's name, or the only one.
        seeds: number of seeds of the baseline to run, the first; all by default.
        settings: arguments of `balbench.run_study` that say where and how cells run, such as `jobs`.

    Raises:
        AssertionError: a batch differs; the message names the first seed and round.
        BalbenchError: the baseline or an argument is wrong, or a cell failed.
    """
    before = as_snapshot(baseline)
    if seeds is not None:
        before = replace(before, records=[_first_seeds(each, seeds) for each in before.records])
    study, renamed = _study(policy, before, against)
    with tempfile.TemporaryDirectory() as directory:
        options = {"progress": False, **settings}
        after = candidate_snapshot(before, study, renamed, out=Path(directory) / "run", **options)
    for expected in before.records:
        if expected.policy in renamed:
            found = after.record(expected.setting, renamed[expected.policy])
            _compare(found.cut(expected.seeds_S, expected.labels_ST.shape[1]), expected, before, after)


def _compare(found: PolicyRecord, expected: PolicyRecord, before: Snapshot, after: Snapshot) -> None:
    differs_ST = np.array(found.picks_ST) != np.array(expected.picks_ST)
    if not differs_ST.any():
        return
    rows = np.flatnonzero(differs_ST.any(axis=1))
    first_round = int(differs_ST[rows[0]].argmax())
    batches = differs_ST.shape[0] * (differs_ST.shape[1] - 1)
    machines = _machines(before, after)
    raise AssertionError(
        f"{found.title}: acquires other pairs than in the baseline, first in seed {expected.seeds_S[rows[0]]}, round "
        f"{first_round}; {len(rows)} of {len(differs_ST)} seeds and {int(differs_ST.sum())} of {batches} batches "
        f"differ{machines}"
    )


def _machines(before: Snapshot, after: Snapshot) -> str:
    """Say on which machines the results were made, if they differ."""
    texts = [{json.dumps(machine, sort_keys=True) for machine in each.machines} for each in (before, after)]
    if texts[0] == texts[1]:
        return ""
    return f"; the machines differ, which alone can change pairs: {sorted(texts[0])} and {sorted(texts[1])}"


def _study(
    policy: PolicySpec, before: Snapshot, against: str | None, with_reference: bool = False
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the baseline's study with this policy alone, and the label of the policy in the baseline."""
    spec = _spec(policy)
    old = _counterpart(spec, before, against)
    policies, reference = [{**spec, "label": old}], old
    if with_reference and old != before.reference:
        reference = before.reference
        known = before.study["policies"]
        policies += [each for each in known if each.get("label", each["name"]) == reference]
    return {**before.study, "policies": policies, "reference": reference}, {old: old}


def _spec(policy: PolicySpec) -> dict[str, Any]:
    """Return a policy as a mapping of a study file; a class without a name in studies is registered."""
    if isinstance(policy, str):
        return {"name": policy}
    if isinstance(policy, Mapping):
        return dict(policy)
    if isinstance(policy, type) and issubclass(policy, Policy):
        return {"name": _name(policy)}
    if isinstance(policy, Policy):
        return {"name": _name(type(policy)), **policy.model_dump(mode="json")}
    raise BalbenchError(f"policy: must be a policy's class, instance, name or mapping, not {type(policy).__name__}")


def _name(cls: type[Policy]) -> str:
    """Return the name of a class in studies; register it under one if it has none."""
    place = f"{cls.__module__}:{cls.__qualname__}"
    plugged_in = {point.value: point.name for point in entry_points(group="balbench.policies")}
    built_in = {value: name for name, value in registry.BUILT_IN["policies"].items()}
    if name := (plugged_in | built_in).get(place):
        return name
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    name = f"{name}_under_test" if name in plugged_in.values() or name in built_in.values() else name
    registry.register("policies", name, cls)
    return name


def _counterpart(spec: Mapping[str, Any], before: Snapshot, against: str | None) -> str:
    """Return the label in the baseline of the policy to compare with."""
    labels = list(dict.fromkeys(each.policy for each in before.records))
    if against is not None:
        before.record(before.records[0].setting, against)
        return against
    named = [each.policy for each in before.records if each.settings.get("name") == spec.get("name")]
    for label in (spec.get("label"), *(named[:1] if len(set(named)) == 1 else ())):
        if label in labels:
            return str(label)
    others = default_policies(before)
    if len(others) == 1:
        return others[0]
    raise BalbenchError(
        f"against: the baseline has several policies ({', '.join(labels)}); name one", setting="against"
    )


def _first_seeds(record: PolicyRecord, seeds: int) -> PolicyRecord:
    if not 1 <= seeds <= len(record.seeds_S):
        raise BalbenchError(f"seeds {seeds}: the baseline has 1 to {len(record.seeds_S)}", setting="seeds")
    return record.cut(record.seeds_S[:seeds], record.labels_ST.shape[1])
