"""The gate: did a policy get worse than its baseline? Pass, regressed, or cannot tell.

For each policy, savings, final level and area are tested against a margin m (see `balbench.reports.gate_measures`):

- pass: every measure lost less than m. Each test has level alpha, and all must succeed, so a policy that truly lost m
  or more in any measure passes with a chance of at most alpha (intersection-union test; Berger 1982, Technometrics 24).
- regressed: some measure is below zero and did not pass. The p-values of all measures and policies are adjusted
  (Holm), so that a gate of unchanged policies is red with a chance of at most alpha. A clear loss that is smaller than
  m is a pass.
- cannot tell: neither of these, too few seeds, or a baseline that did not learn.

Curves that are equal in every value pass without a test, and are left out of the adjustment: they cannot be refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from balbench.harness.errors import BalbenchError
from balbench.reports.compare_studies import changes, world_changes
from balbench.reports.curves import Curve
from balbench.reports.differences import FEWEST_SEEDS
from balbench.reports.gate_measures import Measure, cost, measures
from balbench.reports.gate_records import PolicyRecord, Snapshot
from balbench.reports.inversion import Kind
from balbench.reports.learning import learning
from balbench.reports.multiplicity import holm
from balbench.reports.savings_table import METRICS, SPLITS


class Verdict(StrEnum):
    """The verdict about a policy or a whole gate."""

    PASS = "pass"
    REGRESSED = "regressed"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Rules:
    """What a gate tests.

    Attributes:
        margin: the largest loss that passes, a share of labels (savings) or of the baseline's gain (level, area).
        alpha: level of the tests.
        metric: log_likelihood, accuracy or brier.
        split: test or ood.
        cost: the largest rise of the seconds of selection that passes (0.5 is half as many again); None tests no cost.
    """

    margin: float = 0.05
    alpha: float = 0.05
    metric: str = "log_likelihood"
    split: str = "test"
    cost: float | None = None

    def check(self) -> None:
        """Raise BalbenchError unless all rules are in their range; the message names the rule."""
        for name, value, low, high in (("margin", self.margin, 0, 1), ("alpha", self.alpha, 0, 0.5)):
            if not (_is_number(value) and low < value < high):
                raise BalbenchError(f"{name} {value}: must be above {low} and below {high}", setting=name)
        if self.cost is not None and not (_is_number(self.cost) and 0 < self.cost < math.inf):
            raise BalbenchError(f"cost {self.cost}: must be above 0, for example 0.5", setting="cost")
        for name, text, known in (("metric", self.metric, METRICS), ("split", self.split, SPLITS)):
            if text not in known:
                raise BalbenchError(f"{name} {text!r}: must be one of {', '.join(known)}", setting=name)


@dataclass(frozen=True)
class PolicyVerdict:
    """The verdict about one policy.

    Attributes:
        setting: the grid's values, "" without a grid.
        policy, baseline_policy: labels now and in the baseline.
        verdict: the verdict.
        reason: why, if no measure says it: "same curves", or why nothing was measured; else empty.
        measures: the measures; empty for equal curves and where nothing can be measured.
        p_adjusted: `p_worse` of each measure, adjusted for all measures and policies of the gate.
        seeds: number of seeds.
        same_picks: whether the policy acquired the same pairs in the same order in every round and seed.
        changed: what the policy declares as changed (settings, version, source), empty if nothing.
    """

    setting: str
    policy: str
    baseline_policy: str
    verdict: Verdict
    reason: str
    measures: list[Measure]
    p_adjusted: list[float]
    seeds: int
    same_picks: bool
    changed: str

    @property
    def seeds_needed(self) -> float:
        """The number of seeds that would tell, for the measure that needs the most; NaN if it is unknown."""
        needed = [each.seeds_needed for each in self.measures if not math.isnan(each.seeds_needed)]
        return max(needed, default=math.nan)


@dataclass(frozen=True)
class Gate:
    """The verdicts of a gate.

    Attributes:
        name: name of the study.
        rules: what was tested.
        policies: the verdict about each policy.
    """

    name: str
    rules: Rules
    policies: list[PolicyVerdict]

    @property
    def verdict(self) -> Verdict:
        """The verdict about all policies together: the worst of them."""
        verdicts = {each.verdict for each in self.policies}
        return next(each for each in (Verdict.REGRESSED, Verdict.CANNOT_TELL, Verdict.PASS) if each in verdicts)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each policy and measure: estimate, bounds, p-values, verdict, and what the policy changed."""
        rows = [row for each in self.policies for row in _rows(each)]
        return pd.DataFrame(rows)


def run_gate(baseline: Snapshot, candidate: Snapshot, renamed: Mapping[str, str], rules: Rules) -> Gate:
    """Compare policies with their baseline.

    Args:
        baseline: the policies before the change.
        candidate: the policies after the change.
        renamed: label in the baseline of each policy of the candidate to test, by its label now.
        rules: what to test.

    Raises:
        BalbenchError: a rule is out of range, the worlds differ, or a policy, seed or round is missing.
    """
    rules.check()
    if not renamed:
        raise BalbenchError("policies: there are none to test; name at least one", setting="policies")
    settings = list(dict.fromkeys(each.setting for each in baseline.records))
    pairs = [
        _matched(baseline, candidate, setting, now, before) for setting in settings for now, before in renamed.items()
    ]
    tested = [_tested(new, old, rules, (candidate, baseline)) for new, old in pairs]
    adjusted = iter(holm([each.p_worse for found, _ in tested for each in found]))
    verdicts = [
        _verdict(new, old, found, reason, [next(adjusted) for _ in found], rules)
        for (new, old), (found, reason) in zip(pairs, tested, strict=True)
    ]
    return Gate(baseline.name, rules, verdicts)


@dataclass(frozen=True)
class World:
    """What all policies of a setting share.

    Attributes:
        name: name of the study.
        study: the resolved study file.
        versions: versions of balbench and its components, as far as they are known.
        key: hash of data set, oracle, posterior, protocol and loop.
        dataset: hash of the data set.
    """

    name: str
    study: Mapping[str, Any]
    versions: Mapping[str, Any]
    key: str
    dataset: str


def check_world(baseline: Snapshot, old: PolicyRecord, world: World) -> None:
    """Check that a policy of a baseline ran in a world.

    Raises:
        BalbenchError: the worlds differ; the message names the first difference.
    """
    if old.world and old.world == world.key:
        return
    lines = [*world_changes(baseline.study, world.study)]
    if not lines and old.dataset != world.dataset:
        lines = ["the data set (a data file, or the code of the data set)"]
    for name, version in baseline.versions.items():
        if name in world.versions and not name.startswith(("policy ", "balbench")):
            lines += changes(version, world.versions[name], f"version of {name}")
    difference = lines[0] if lines else "the code of the oracle, the posterior or the loop"
    raise BalbenchError(
        f"baseline: was made in another world than {world.name}, by {difference} (baseline -> here); "
        "make a new baseline, or give the study of the baseline"
    )


def _matched(
    baseline: Snapshot, candidate: Snapshot, setting: str, now: str, before: str
) -> tuple[PolicyRecord, PolicyRecord]:
    old = baseline.record(setting, before)
    in_setting = [each for each in candidate.records if each.setting == setting]
    for other in in_setting[:1] or candidate.records[:1]:  # the world explains more than a policy that is missing
        check_world(baseline, old, world_of(candidate, other))
    new = candidate.record(setting, now)
    return new.cut(old.seeds_S, old.labels_ST.shape[1]), old


def world_of(candidate: Snapshot, record: PolicyRecord) -> World:
    """Return the world of a record of a snapshot."""
    return World(candidate.name, candidate.study, candidate.versions, record.world, record.dataset)


def _tested(
    new: PolicyRecord, old: PolicyRecord, rules: Rules, runs: tuple[Snapshot, Snapshot]
) -> tuple[list[Measure], str]:
    """Return the measures of a policy, and why there are none or what makes them needless."""
    candidate, baseline = (_curve(each, rules) for each in (new, old))
    is_same = _equal(candidate, baseline)
    if len(old.seeds_S) < FEWEST_SEEDS and not is_same:  # first, because two seeds can hardly show that a curve learnt
        return [], f"fewer than {FEWEST_SEEDS} seeds; make a baseline with more"
    if missing := learning(baseline, rules.metric).missing:
        return [], f"the baseline did not learn ({missing}); no loss can be seen in this study"
    costs = [] if rules.cost is None else [_cost(new, old, rules, runs)]
    if is_same and not costs:
        return [], SAME_CURVES
    found = [] if is_same else measures(candidate, baseline, rules.metric, rules.margin, rules.alpha)
    return [*found, *costs], SAME_CURVES if is_same else ""


SAME_CURVES = "same curves"


def _verdict(
    new: PolicyRecord, old: PolicyRecord, found: list[Measure], reason: str, p_adjusted: list[float], rules: Rules
) -> PolicyVerdict:
    failed = [each for each in found if not each.p_within <= rules.alpha]
    worse = [each for each, p in zip(found, p_adjusted, strict=True) if p <= rules.alpha and each in failed]
    is_pass = not failed and (bool(found) or reason == SAME_CURVES)
    return PolicyVerdict(
        setting=new.setting,
        policy=new.policy,
        baseline_policy=old.policy,
        verdict=Verdict.REGRESSED if worse else Verdict.PASS if is_pass else Verdict.CANNOT_TELL,
        reason=reason,
        measures=found,
        p_adjusted=p_adjusted,
        seeds=len(old.seeds_S),
        same_picks=new.picks_ST == old.picks_ST,
        changed=what_changed(new, old),
    )


def what_changed(new: PolicyRecord, old: PolicyRecord) -> str:
    """Say what a policy declares as changed: its settings, its version or its source; empty if nothing."""
    before, now = old.settings, new.settings
    if before.get("name") != now.get("name"):  # settings of another policy are not changes of this one
        before, now = ({"name": each.get("name")} for each in (before, now))
    lines = list(changes(before, now))
    if not lines and new.key != old.key:
        lines.append("version")
    names = dict.fromkeys([*old.sources, *new.sources])
    lines += [f"source of {name}" for name in names if old.sources.get(name) != new.sources.get(name)]
    return ", ".join(lines)


def _curve(record: PolicyRecord, rules: Rules) -> Curve:
    try:
        return record.curve(rules.split, rules.metric)
    except BalbenchError as error:
        raise BalbenchError(f"{record.title}: {error}") from None


def _equal(candidate: Curve, baseline: Curve) -> bool:
    return np.array_equal(candidate.values_ST, baseline.values_ST) and np.array_equal(
        candidate.labels_T, baseline.labels_T
    )


def _cost(new: PolicyRecord, old: PolicyRecord, rules: Rules, runs: tuple[Snapshot, Snapshot]) -> Measure:
    assert rules.cost is not None  # the caller checks it
    ratios = []
    for record, run in zip((new, old), runs, strict=True):
        reference = run.record(record.setting, run.reference).cut(record.seeds_S, record.labels_ST.shape[1])
        if record.seconds_ST is None or reference.seconds_ST is None:
            raise BalbenchError(f"{record.title}: has no seconds of selection; run it again, or leave out `cost`")
        # the last round selects nothing
        own_S, other_S = (each[:, :-1].sum(axis=1) for each in (record.seconds_ST, reference.seconds_ST))
        if not ((own_S > 0).all() and (other_S > 0).all()):
            raise BalbenchError(f"{record.title}: has a selection of no seconds; leave out `cost`")
        ratios.append(own_S / other_S)
    return cost(ratios[0], ratios[1], old.seeds_S, rules.cost, rules.alpha)


def _rows(each: PolicyVerdict) -> list[dict[str, Any]]:
    names = {
        "setting": each.setting,
        "policy": each.policy,
        "baseline_policy": each.baseline_policy,
        "verdict": str(each.verdict),
        "reason": each.reason,
        "seeds": each.seeds,
        "same_picks": each.same_picks,
        "changed": each.changed,
    }
    if not each.measures:
        return [names]
    return [names | _numbers(found, p) for found, p in zip(each.measures, each.p_adjusted, strict=True)]


def _numbers(found: Measure, p_adjusted: float) -> dict[str, Any]:
    ends = {name: getattr(found, name) for name in ("estimate", "low", "high")}
    numbers: dict[str, Any] = {"measure": found.name}
    for name, end in ends.items():
        numbers |= {name: end.value} | ({} if end.kind == Kind.EXACT else {f"{name}_kind": str(end.kind)})
    tests = {"p_within": found.p_within, "p_worse": found.p_worse, "p_worse_adjusted": p_adjusted}
    return numbers | {"margin": found.margin, **tests, "seeds_needed": found.seeds_needed}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def default_policies(baseline: Snapshot) -> list[str]:
    """Return the labels of a baseline's policies other than its reference; the reference if there are no others."""
    labels = list(dict.fromkeys(each.policy for each in baseline.records))
    return [label for label in labels if label != baseline.reference] or labels
