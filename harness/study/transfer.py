"""A study that trains other posteriors on the labels that the policies of a finished run bought.

Each finished cell of the run gives a cell whose policy repeats the recorded batches (`Recorded`), with the same data,
oracle, protocol and seed. So the successor models see the same labels in the same order as the models that chose them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from balbench.harness.errors import RunDirectoryError, StudyError
from balbench.harness.machine import count
from balbench.harness.policies.policy import Policy
from balbench.harness.policies.recorded import Recorded
from balbench.harness.results import RunDirectory
from balbench.harness.results.records import CellHeader, StudyHeader, up_to
from balbench.harness.study.cell import Cell, Keys, Part, digest, plug_in_sources
from balbench.harness.study.grid import value_name
from balbench.harness.study.settings import make_component
from balbench.harness.study.study import Study, check_study
from balbench.harness.study.study_file import StudyFile

PosteriorSettings = str | Mapping[str, Any]
_BOUGHT_WITH = re.compile(r"(^|, )posterior=")  # the posterior in the name of a setting


@dataclass(frozen=True, kw_only=True)
class Transfer(Study):
    """A study of successor models.

    Attributes:
        bought_with: names of the posteriors with which the labels were chosen.
        learnt_by: names of the successors.
        notes: a line for each cell of the source that gives no cell here, with the reason.
    """

    bought_with: tuple[str, ...]
    learnt_by: tuple[str, ...]

    @property
    def header(self) -> StudyHeader:
        """The contents of study.json; the key `transfer` of the study names the posteriors."""
        header = super().header
        header["study"]["transfer"] = {"bought_with": list(self.bought_with), "learnt_by": list(self.learnt_by)}
        return header


def load_transfer(source: RunDirectory, posteriors: Sequence[PosteriorSettings]) -> Transfer:
    """Make the cells of all successors, for each finished cell of a run.

    Args:
        source: the run whose policies bought the labels.
        posteriors: name, or name and settings, of each successor; several successors become settings of the study.

    Raises:
        RunDirectoryError: the directory has no run, a run of a transfer, or no finished cell.
        StudyError: a posterior is invalid, or the run's study cannot be loaded by this version.
        DataError: a data file is missing.
    """
    header = _header(source)
    successors = _successors(posteriors)
    older = {"reference_seeds": header["study"]["seeds"]}  # in directories of versions without this key
    study = check_study(older | header["study"], str(source.path / "study.json"))
    templates = {cell.setting: cell for cell in study.cells}
    usable, skipped = _usable(source, header["cells"])
    buyers = [_buyer(cell, templates[cell["setting"]]) for cell in usable]
    recorded = [(cell, _policy(cell, buyer, source, study)) for cell, buyer in zip(usable, buyers, strict=True)]
    cells = [
        _cell(cell, policy, templates[cell["setting"]], name, successor)
        for name, successor in successors.items()
        for cell, policy in recorded
    ]
    bought_with = tuple(dict.fromkeys(buyer["bought_with"] for buyer in buyers))
    return Transfer(
        file=_file(study.file, bought_with, posteriors, list(successors.values())),
        cells=tuple(cells),
        bought_with=bought_with,
        learnt_by=tuple(part.name for part in successors.values()),
        notes=tuple(skipped),
        source_data={templates[cell["setting"]].dataset_key: source.data(cell["keys"]["dataset"]) for cell in usable},
    )


def _header(source: RunDirectory) -> StudyHeader:
    header = source.header if source.path.is_dir() else None
    if header is None:
        raise RunDirectoryError(f"{source.path}: holds no run (no study.json); give the directory of a run")
    if "transfer" in header["study"]:
        raise RunDirectoryError(f"{source.path}: is a transfer itself; give the run whose policies bought the labels")
    return header


def _successors(posteriors: Sequence[PosteriorSettings]) -> dict[str, Part]:
    """Return the successors by the end of their settings' names; a single successor adds nothing to the names."""
    parts = [_successor(settings) for settings in posteriors]
    if not parts:
        raise StudyError("posterior: none is given; name at least one", setting="posterior")
    names = [f"learnt_by={value_name(settings, posteriors)}" for settings in posteriors]
    if len(set(names)) < len(names):
        raise StudyError("posterior: one occurs twice; remove one", setting="posterior")
    return dict(zip(names if len(names) > 1 else [""], parts, strict=True))


def _successor(settings: PosteriorSettings) -> Part:
    settings = {"name": settings} if isinstance(settings, str) else settings
    try:
        component = make_component("posteriors", settings, "", "posterior")
    except StudyError as error:
        raise StudyError(str(error).removeprefix(": "), setting="posterior") from None
    return Part("posteriors", settings["name"], component)


def _usable(source: RunDirectory, cells: Sequence[CellHeader]) -> tuple[list[CellHeader], list[str]]:
    """Return the finished cells, and a line for each other cell. Models of the full data need no finished cell."""
    usable, skipped = [], []
    for cell in cells:
        log = source.cell(cell["directory"])
        if cell["full_data"] or log.is_finished(cell["rounds"]):
            usable.append(cell)
        else:
            setting = f" ({cell['setting']})" if cell["setting"] else ""
            rounds = f"{log.count()} of {count(cell['rounds'], 'round')}"
            skipped.append(f"left out: {cell['policy']}, seed {cell['seed']}{setting}: not finished ({rounds})")
    if all(cell["full_data"] for cell in usable):
        raise RunDirectoryError(f"{source.path}: no cell of a policy is finished; finish the run first")
    return usable, skipped


def _policy(cell: CellHeader, buyer: dict[str, Any], source: RunDirectory, study: Study) -> tuple[Policy, str]:
    """Return the policy of a cell's successors, and a hash of what the policy does in all rounds."""
    if cell["full_data"]:
        policy = next(other.policy for other in study.cells if other.policy.acquires_all)
        return policy, digest(["full data", cell["keys"]["policy"]])
    records = up_to(source.cell(cell["directory"]).rounds(), cell["rounds"])
    batches = tuple(tuple(record["acquired"]) for record in records)
    return Recorded(buyer=buyer, batches=batches), digest([cell["key"], batches])


def _buyer(cell: CellHeader, template: Cell) -> dict[str, Any]:
    """Return the settings of a policy, and the name of the posterior with which it chose the labels."""
    settings = dict(cell["settings"])
    bought_with = settings.pop("posterior", template.posterior_name)
    return settings | {"bought_with": bought_with}


def _cell(source: CellHeader, recorded: tuple[Policy, str], template: Cell, setting: str, successor: Part) -> Cell:
    """Return the cell of a successor; `template` is any cell of the source's setting."""
    policy, recording = recorded
    setting_key = digest([template.keys.setting, successor.identity])
    keys = Keys(template.dataset_key, setting_key, recording, digest([setting_key, recording, source["seed"]]))
    return replace(
        template,
        setting=", ".join(filter(None, [_BOUGHT_WITH.sub(r"\1bought_with=", source["setting"]), setting])),
        policy_name=source["settings"]["name"],
        label=source["policy"],
        seed=source["seed"],
        posterior=successor.component,
        posterior_name=successor.name,
        policy=policy,
        protocol=template.protocol.model_copy(update={"rounds": source["rounds"]}),
        keys=keys,
        sources=_sources(template, successor),
        own_posterior="",
    )


def _sources(template: Cell, successor: Part) -> dict[str, str]:
    kept = {name: source for name, source in template.sources.items() if name.startswith(("datasets ", "oracles "))}
    return kept | plug_in_sources([successor])


def _file(
    file: StudyFile, bought_with: Sequence[str], posteriors: Sequence[PosteriorSettings], successors: Sequence[Part]
) -> StudyFile:
    """Return the study file of the transfer for study.json. Its name is the title of reports."""
    settings = [{"name": each} if isinstance(each, str) else dict(each) for each in posteriors]
    names = ", ".join(part.name for part in successors)
    changes = {
        "name": f"{file.name}: labels bought with {', '.join(bought_with)}, learnt by {names}",
        "posterior": settings[0],
        "posteriors": {},
        "policies": [{key: value for key, value in policy.items() if key != "posterior"} for policy in file.policies],
        "grid": file.grid | ({"learnt_by": settings} if len(settings) > 1 else {}),
    }
    return file.model_copy(update=changes)
