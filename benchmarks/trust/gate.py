"""How often a gate is wrong: false alarms, missed losses, and passes despite a loss of the margin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from balbench.benchmarks.trust.gate_population import SHARES, label
from balbench.reports.curves import Curve
from balbench.reports.gate import Gate, Rules, Verdict, run_gate
from balbench.reports.gate_measures import AREA, LEVEL, SAVINGS
from balbench.reports.gate_records import PolicyRecord, Snapshot

SHIPPED = Path(__file__).parent / "populations" / "gate" / "ci.npz"
METRIC = "test/log_likelihood"
SEEDS = (10, 20, 30)
STUDY_SEEDS = 30  # of the study `ci`: the aim of power is for this number
POWER = 0.8
Change = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: what changed.
        policies: the policy of the population that takes the place of each policy of the baseline.
        fresh: whether the candidate has the results of other seeds, the noise of a policy that picks other pairs.
        wrong: the verdict that must be rare; None if the right verdict is `regressed`.
        change: makes the candidate lose exactly the margin, from its values (S, T), the baseline's means (T,), the
            labels (T,) and the margin; None changes nothing.
        measure: the measure whose test is counted alone; the whole gate if it is empty.
    """

    name: str
    policies: Mapping[str, str]
    fresh: bool
    wrong: Verdict | None
    change: Change | None = None
    measure: str = ""


@dataclass(frozen=True)
class Rates:
    """The verdicts of many gates, as shares.

    Attributes:
        case: the row.
        seeds: number of seeds of each policy.
        gates: number of gates.
        shares: share of each verdict.
        rules: the rules of the gates.
    """

    case: Case
    seeds: int
    gates: int
    shares: dict[Verdict, float]
    rules: Rules

    @property
    def is_met(self) -> bool:
        """Whether wrong verdicts are at most alpha (but for sampling error), or losses are seen often enough."""
        if self.case.wrong is None:
            return self.shares[Verdict.REGRESSED] >= POWER
        alpha = self.rules.alpha
        return self.shares[self.case.wrong] <= alpha + 1.645 * np.sqrt(alpha * (1 - alpha) / self.gates)


def cases() -> Iterator[Case]:
    """Yield the rows: no change, a loss of exactly the margin in one measure, and worsened policies."""
    both = {"bald": "bald", "bal_pm": "bal_pm"}
    for name, policies in (("bald", {"bald": "bald"}), ("bal_pm", {"bal_pm": "bal_pm"}), ("both policies", both)):
        yield Case(f"no change, {name}, fresh seeds", policies, True, Verdict.REGRESSED)
    for measure, change in ((SAVINGS, _needs_more_labels), (LEVEL, _falls), (AREA, _falls)):
        name = f"loses the margin, {measure} alone, fresh seeds"
        yield Case(name, {"bald": "bald"}, True, Verdict.PASS, change, measure)
    for share in SHARES:
        yield Case(f"{label(share)}, same seeds", {"bald": label(share)}, False, None)
        yield Case(f"{label(share)}, fresh seeds", {"bald": label(share)}, True, None)


def rates(arrays: Mapping[str, np.ndarray], case: Case, seeds: int, gates: int, rules: Rules | None = None) -> Rates:
    """Run many gates on seeds of a population.

    Args:
        arrays: from `read_arrays`: `labels` (T,), and values (S, T) by "test/log_likelihood/POLICY".
        case: the row.
        seeds: number of seeds of each policy.
        gates: number of gates.
        rules: what the gates test; the defaults by default.
    """
    rules, labels_T = rules or Rules(), arrays["labels"]
    generator = np.random.default_rng([seeds, *case.name.encode()])
    counts = dict.fromkeys(Verdict, 0)
    for _ in range(gates):
        drawn = generator.permutation(len(arrays[f"{METRIC}/bald"]))
        own, other = drawn[:seeds], drawn[seeds : 2 * seeds] if case.fresh else drawn[:seeds]
        before, after = [], []
        for old, new in case.policies.items():
            base_ST, values_ST = arrays[f"{METRIC}/{old}"], arrays[f"{METRIC}/{new}"][other]
            if case.change is not None:
                values_ST = case.change(values_ST, base_ST.mean(axis=0), labels_T, rules.margin)
            before.append(_record(old, labels_T, base_ST[own]))
            after.append(_record(old, labels_T, values_ST))
        found = run_gate(_snapshot(before), _snapshot(after), {policy: policy for policy in case.policies}, rules)
        counts[_verdict(found, case.measure)] += 1
    return Rates(case, seeds, gates, {verdict: count / gates for verdict, count in counts.items()}, rules)


def gate_rows(arrays: Mapping[str, np.ndarray], gates: int) -> Iterator[str]:
    """Yield the rows of the table as Markdown."""
    for case in cases():
        for seeds in SEEDS:
            found = rates(arrays, case, seeds, gates)
            shares = [f"{found.shares[verdict]:.1%}" for verdict in Verdict]
            aim = f"{case.wrong} at most {100 * found.rules.alpha:g}%" if case.wrong else ""
            if case.wrong is None and seeds == STUDY_SEEDS:
                aim = f"{Verdict.REGRESSED} at least {100 * POWER:g}%"
            verdict = "-" if not aim else "met" if found.is_met else "missed"
            cells = [case.name, str(seeds), *shares, aim or "-", verdict]
            yield f"| {' | '.join(cells)} |"


def _verdict(found: Gate, measure: str) -> Verdict:
    if not measure:
        return found.verdict
    tested = [each for policy in found.policies for each in policy.measures if each.name == measure]
    passed = bool(tested) and all(each.p_within <= found.rules.alpha for each in tested)
    return Verdict.PASS if passed else Verdict.CANNOT_TELL


def _needs_more_labels(values_ST: np.ndarray, base_T: np.ndarray, labels_T: np.ndarray, margin: float) -> np.ndarray:
    return Curve(labels_T, values_ST).at(labels_T / (1 + margin))


def _falls(values_ST: np.ndarray, base_T: np.ndarray, labels_T: np.ndarray, margin: float) -> np.ndarray:
    return values_ST - margin * (base_T[-1] - base_T[0])


def _snapshot(records: list[PolicyRecord]) -> Snapshot:
    return Snapshot("ci", "random", {}, {}, [], records)


def _record(policy: str, labels_T: np.ndarray, values_ST: np.ndarray) -> PolicyRecord:
    S, T = values_ST.shape
    return PolicyRecord(
        setting="",
        policy=policy,
        settings={},
        key="",
        world="ci",
        dataset="",
        sources={},
        seeds_S=np.arange(S),
        labels_ST=np.tile(labels_T, (S, 1)),
        metrics={METRIC: values_ST},
        picks_ST=[[""] * T] * S,
        seconds_ST=None,
    )
