"""Baselines and gates: did a policy get worse than it was? (See docs/gate.md.)"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balbench.api import CellsFailedWarning, load_study, run_study
from balbench.harness import results
from balbench.harness.errors import BalbenchError, RunDirectoryError
from balbench.reports import compare as compared
from balbench.reports import gate as gates
from balbench.reports.gate import Rules, World, check_world, default_policies, run_gate
from balbench.reports.gate_file import read_baseline, write_baseline
from balbench.reports.gate_records import PolicyRecord, Snapshot, snapshot
from balbench.run import Run, opened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from balbench.harness.study.cell import Cell
    from balbench.harness.study.study import Study

Policies = Sequence[str] | Mapping[str, str] | None


@dataclass(frozen=True, repr=False)
class Gate(gates.Gate):
    """The verdicts of a gate, with the attributes of `balbench.reports.gate.Gate`, in words and as a figure."""

    def __repr__(self) -> str:
        """Return the verdicts as plain text: a table, then a sentence for each policy."""
        from balbench.reports.gate_text import plain_text

        return plain_text(self)

    def markdown(self) -> str:
        """Return the verdicts as Markdown, for a comment on a pull request."""
        from balbench.reports.gate_text import markdown

        return markdown(self)

    def junit(self) -> str:
        """Return the verdicts as JUnit XML: regressed is a failure, cannot tell an error."""
        from balbench.reports.gate_text import junit

        return junit(self)

    def plot(self) -> Figure:
        """Draw each measure of each policy with its bounds and the margin."""
        from balbench.reports.figures.gate import draw

        return draw(self)


def baseline(
    run: str | Path | results.Run, out: str | Path | None = None, *, policies: Sequence[str] | None = None
) -> Snapshot:
    """Take the baseline of a run: what later versions of its policies are compared with.

    Args:
        run: a run, or its directory.
        out: the JSON file to write; by default none is written.
        policies: labels of the policies to keep, all by default. The reference is kept as well.

    Raises:
        BalbenchError: the run has unfinished or failed cells, a policy is unknown, or the file cannot be written.
    """
    found = opened(run)
    reference = [found.reference] if found.reference in found.policies else []
    kept = policies if policies is None else list(dict.fromkeys([*reference, *policies]))
    taken = snapshot(found, kept, _versions_of_run(found))
    if out is not None:
        write_baseline(taken, Path(out))
    return taken


def gate(
    baseline: str | Path | Snapshot,
    candidate: str | Path | Mapping[str, Any] | results.Run,
    *,
    policies: Policies = None,
    margin: float = 0.05,
    alpha: float = 0.05,
    metric: str = "log_likelihood",
    split: str = "test",
    cost: float | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> Gate:
    """Test whether policies got worse than their baseline.

    Args:
        baseline: a baseline, or its file.
        candidate: a run or its directory, or a study, of which the tested policies run with the baseline's seeds.
        policies: labels of the policies to test, by default those of the baseline without its reference. A mapping, or
            a text `NEW=OLD`, gives the label in the baseline of a policy that was renamed or replaced.
        margin: the largest loss that passes, as a share of the labels or of the baseline's gain.
        alpha: level of the tests: the chance of a false alarm, and of a pass despite a loss of the margin.
        metric: log_likelihood, accuracy or brier.
        split: test or ood.
        cost: the largest rise of the seconds of selection over the reference's that passes; not tested by default.
        out: run directory of a study, by default `runs/NAME-gate-HASH` with a hash of the policies' code.
        settings: arguments of `run_study` that say where and how cells run, such as `jobs` and `progress`.

    Raises:
        BalbenchError: an argument or the baseline is wrong, the worlds differ, or a cell failed.
        KeyboardInterrupt: the run was interrupted; the same call continues it.
    """
    rules = Rules(margin, alpha, metric, split, cost)
    rules.check()
    before = as_snapshot(baseline)
    after = candidate_snapshot(before, candidate, policies, with_reference=cost is not None, out=out, **settings)
    found = run_gate(before, after, _renamed(before, policies), rules)
    return Gate(found.name, found.rules, found.policies)


@dataclass(frozen=True, repr=False)
class Comparison(compared.Comparison):
    """A comparison, with the attributes of `balbench.reports.compare.Comparison`, in words and as a figure."""

    def __repr__(self) -> str:
        """Return a sentence for each policy, and what differs in the studies."""
        from balbench.reports.compare_text import sentences

        return "\n".join(sentences(self))

    def plot(self) -> Figure:
        """Draw the curves of each policy before and after."""
        from balbench.reports.figures.compare import draw

        return draw(self)


def compare(
    old: str | Path | results.Run,
    new: str | Path | results.Run | None = None,
    *,
    policies: Sequence[str] | None = None,
    metric: str = "log_likelihood",
    split: str = "test",
) -> Comparison:
    """Compare two runs policy by policy, or two policies of one run.

    Args:
        old, new: runs, or their directories; without `new`, two policies of `old` are compared.
        policies: labels to compare, by default all that both runs have. Without `new`, the old and the new policy.
        metric: log_likelihood, accuracy or brier.
        split: test or ood.

    Raises:
        BalbenchError: a run is unfinished, a policy is missing, or the policies are not two where there is one run.
    """
    Rules(metric=metric, split=split).check()
    runs = [opened(run) for run in (old, new) if run is not None]
    labels = list(policies or [label for label in runs[0].policies if label in runs[-1].policies])
    if len(runs) == 1 and len(labels) != 2:
        raise BalbenchError(
            f"policies: name two of {', '.join(runs[0].policies)}, or give two runs", setting="policies"
        )
    if not labels:
        raise BalbenchError(f"policies: {runs[0].path} and {runs[1].path} have none in common", setting="policies")
    taken = [snapshot(run, labels, _versions_of_run(run)) for run in runs]
    pairs = [(labels[0], labels[1])] if len(runs) == 1 else [(label, label) for label in labels]
    found = compared.compare_snapshots(taken[0], taken[-1], pairs, metric, split)
    return Comparison(found.names, found.metric, found.split, found.policies, found.changes)


def as_snapshot(baseline: str | Path | Snapshot) -> Snapshot:
    """Return a baseline, read from its file if it is a path."""
    return baseline if isinstance(baseline, Snapshot) else read_baseline(Path(baseline))


def candidate_snapshot(
    before: Snapshot,
    candidate: str | Path | Mapping[str, Any] | results.Run,
    policies: Policies,
    *,
    with_reference: bool = False,
    out: str | Path | None = None,
    **settings: Any,
) -> Snapshot:
    """Return the results of a candidate for the policies to test; those of a study run first (see `gate`)."""
    renamed, versions = _renamed(before, policies), None
    if isinstance(candidate, results.Run) or (not isinstance(candidate, Mapping) and os.path.isdir(candidate)):
        run = opened(candidate)
    else:
        run, versions = _run_candidate(before, candidate, renamed, with_reference, out, settings)
    kept = [label for label in run.policies if label in renamed or (with_reference and label == run.reference)]
    return snapshot(run, kept or None, _versions_of_run(run) if versions is None else versions)


def _renamed(before: Snapshot, policies: Policies) -> dict[str, str]:
    """Return the label in the baseline of each policy to test."""
    if policies is None:
        return {label: label for label in default_policies(before)}
    if isinstance(policies, Mapping):
        return dict(policies)
    known = {each.policy for each in before.records}
    return dict(_new_and_old(text, known) for text in ([policies] if isinstance(policies, str) else policies))


def _new_and_old(text: str, known: set[str]) -> tuple[str, str]:
    """Split `NEW=OLD`; a label of the baseline that has an equals sign is a label."""
    new, equals, old = text.rpartition("=")
    return (text, text) if text in known or not (equals and new) else (new, old)


def _run_candidate(
    before: Snapshot,
    candidate: str | Path | Mapping[str, Any],
    renamed: Mapping[str, str],
    with_reference: bool,
    out: str | Path | None,
    settings: dict[str, Any],
) -> tuple[Run, dict[str, Any]]:
    """Run the tested policies of a study with the seeds of the baseline."""
    tested = [each for each in before.records if each.policy in renamed.values()]
    if not tested:
        before.record(before.records[0].setting if before.records else "", next(iter(renamed.values()), ""))
    seeds = list(dict.fromkeys(seed for each in tested for seed in each.seeds_S.tolist()))
    rounds = tested[0].labels_ST.shape[1]
    study = load_study(candidate, overrides={"protocol.rounds": rounds}, seeds=seeds, reference_seeds=seeds)
    cells = tuple(_needed_cells(study, tested, renamed, with_reference))
    # a run directory needs cells of its reference
    reference = study.file.reference if with_reference or not cells else cells[0].label
    study = replace(study, cells=cells, file=study.file.model_copy(update={"reference": reference}))
    versions = _versions(study)
    _check_cells(before, study, renamed, versions)
    directory = Path("runs") / f"{study.file.name}-gate-{_code_hash(study)}" if out is None else Path(out)
    _check_stale(directory, study)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CellsFailedWarning)
        return run_study(study, directory, **settings), versions


def _needed_cells(
    study: Study, tested: Sequence[PolicyRecord], renamed: Mapping[str, str], with_reference: bool
) -> list[Cell]:
    """Return the cells of the tested policies with the baseline's seeds, and of the reference if the cost is tested."""
    seeds = {(each.setting, each.policy): set(each.seeds_S.tolist()) for each in tested}
    needed = []
    for cell in study.cells:
        wanted = seeds.get((cell.setting, renamed.get(cell.label, "")), set())
        is_reference = with_reference and cell.label == study.file.reference
        if cell.seed in wanted or is_reference:
            needed.append(cell)
    return needed


def _check_cells(before: Snapshot, study: Study, renamed: Mapping[str, str], versions: dict[str, Any]) -> None:
    """Check, before anything runs, that the study has the baseline's world and the tested policies."""
    file = json.loads(study.file.model_dump_json())
    for new, old in renamed.items():
        cells = [cell for cell in study.cells if cell.label == new]
        for record in (each for each in before.records if each.policy == old):
            cell = next((each for each in cells if each.setting == record.setting), None)
            if cell is not None:
                world = World(study.file.name, file, versions, cell.keys.setting, cell.keys.dataset)
                check_world(before, record, world)
        if not cells:
            labels = ", ".join(str(policy.get("label", policy["name"])) for policy in file["policies"])
            raise BalbenchError(
                f"policies: {study.file.name} has no policy {new!r} in the settings of the baseline; it has {labels}",
                setting="policies",
            )


def _code_hash(study: Study) -> str:
    """Return eight digits for the keys and the code of all cells, so that edited code runs in a new directory."""
    facts = [cell.facts for cell in study.cells]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def _check_stale(directory: Path, study: Study) -> None:
    """Check that a directory has no results of other code of the same policies: they would count as the candidate's.

    Raises:
        RunDirectoryError: it has some.
    """
    run = results.RunDirectory(directory)
    for cell in study.cells:
        facts = run.cell(cell.directory).facts
        if facts is not None and facts != cell.facts:
            raise RunDirectoryError(
                f"out {directory}: has results of other code of {cell.label}; give a new directory", setting="out"
            )


def _versions_of_run(run: results.Run) -> dict[str, Any]:
    """Return the versions of a run's components if today's code would give the run's cells; else none are known."""
    try:
        study = load_study(run.study)
    except BalbenchError:  # the data or a plug-in is missing here
        return {}
    keys = {cell.key for cell in study.cells}
    return _versions(study) if set(run.cells["key"]) <= keys else {}


def _versions(study: Study) -> dict[str, Any]:
    from importlib.metadata import version

    from balbench.harness.study.cell import LOOP_VERSION

    versions: dict[str, Any] = {"balbench": version("balbench"), "loop": LOOP_VERSION}
    for cell in study.cells:
        versions[f"dataset {study.file.dataset['name']}"] = type(cell.dataset).version
        versions[f"oracle {study.file.oracle['name']}"] = type(cell.oracle).version
        versions[f"posterior {cell.own_posterior or cell.posterior_name}"] = type(cell.posterior).version
        versions[f"policy {cell.policy_name}"] = type(cell.policy).version
    return versions
