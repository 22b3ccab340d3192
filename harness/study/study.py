"""Load a study: read its file, check all settings, and expand them into cells."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from balbench.harness import registry
from balbench.harness.datasets.dataset import Dataset
from balbench.harness.errors import BalbenchError, DataError, StudyError, in_one_line, shortened
from balbench.harness.policies.policy import Policy
from balbench.harness.results.records import StudyHeader
from balbench.harness.study.cell import Cell, Part, SettingKeys
from balbench.harness.study.grid import number_of_settings, settings_of
from balbench.harness.study.settings import make_component, shown, validated
from balbench.harness.study.study_file import (
    COMPONENTS,
    MOST_CELLS,
    REQUIREMENTS,
    StudyFile,
    default_reference_seeds,
    extended,
    reference_seeds,
    with_seeds,
)
from balbench.harness.study.yaml_file import override, plain, read_yaml

FULL_DATA = "full data"  # label of the policy that `full_data` adds


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes:
        file: the resolved file.
        cells: the cells, in order.
        notes: lines that a run prints first.
        source_data: folders of another run with facts about data sets, by `Cell.dataset_key`: a run of this study uses
            these data sets.
    """

    file: StudyFile
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    source_data: Mapping[str, Path] = field(default_factory=dict)

    @property
    def running_order(self) -> list[Cell]:
        """The cells in the order in which they run: further seeds of the reference are last.

        The results of an unfinished run are then comparable early.
        """
        seeds = set(self.file.seeds)
        return sorted(self.cells, key=lambda cell: cell.seed not in seeds)

    @property
    def header(self) -> StudyHeader:
        """The contents of study.json before the data are built."""
        file = json.loads(self.file.model_dump_json())
        return {"study": file, "cells": [cell.header for cell in self.cells], "lines": {}}


def load_study(
    source: Path | Mapping[str, Any],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    seeds: int | Sequence[int] | None = None,
    reference_seeds: int | Sequence[int] | None = None,
) -> Study:
    """Read, override, check and expand a study.

    Args:
        source: a YAML file, or a mapping with the keys of a study file.
        overrides: values of dotted keys, as a mapping or as texts `key.path=value`.
        seeds: number of seeds, or a list of seeds, instead of the study's seeds.
        reference_seeds: number of seeds of the reference, or a list of seeds, instead of the study's. By default the
            study's, and with other `seeds` at least these.

    Raises:
        StudyError: a key or a value is invalid; the message names the key and the most similar valid name.
        DataError: the data set is missing, or lacks something that a policy needs.
    """
    name = str(source) if isinstance(source, Path) else "study"
    raw = read_yaml(source) if isinstance(source, Path) else copy.deepcopy(dict(source))
    written = raw.get("seeds"), raw.get("reference_seeds")
    override(raw, overrides)
    if seeds is not None:
        if isinstance(seeds, int) and seeds < 1:
            raise StudyError(f"seeds {seeds}: must be at least 1", setting="seeds")
        raw["seeds"] = _as_written(seeds)
    if reference_seeds is not None:
        raw["reference_seeds"] = _as_written(reference_seeds)
    elif raw.get("seeds") != written[0] and raw.get("reference_seeds") == written[1]:
        raw["reference_seeds"] = with_seeds(raw.get("reference_seeds"), raw.get("seeds"))
    return check_study(raw, name)


def with_more_seeds(study: Study, number: int) -> Study:
    """Return a study with a larger number of seeds; the earlier seeds are the first.

    The policies get the further seeds of the reference first, so that these pairs of cells share a seed. The reference
    gets the default number of seeds if it had the default number before, and otherwise at least `number` seeds.
    """
    file = study.file
    before = reference_seeds(file, file.name)
    seeds = extended(file.seeds, chain(before, count()), number)
    is_default = len(before) == default_reference_seeds(len(file.seeds))
    needed = default_reference_seeds(number) if is_default else max(len(before), number)
    changes = {"seeds": seeds, "reference_seeds": extended(seeds, chain(before, count()), needed)}
    return check_study(file.model_dump(mode="json") | changes, file.name)


def check_study(raw: dict[str, Any], source: str) -> Study:
    """Check a study and expand it into cells.

    Args:
        raw: the keys of a study file.
        source: name of the file, for errors.

    Raises:
        StudyError, DataError: as in `load_study`.
    """
    file = _checked_file(plain(raw, source), source)
    if len(set(file.seeds)) < len(file.seeds):
        raise StudyError(f"{source}: seeds: a seed occurs twice in {shown(file.seeds)}; remove one")
    _check_posteriors(file, source)
    of_reference = reference_seeds(file, source)
    file = file.model_copy(update={"reference_seeds": of_reference})
    in_setting = len(file.seeds) * (len(file.policies) - 1) + len(of_reference)
    number = in_setting * number_of_settings(file)
    if number > MOST_CELLS:
        raise StudyError(f"{source}: has {number:,} cells, more than {MOST_CELLS:,}; take fewer seeds or grid values")
    cells: list[Cell] = []
    settings: dict[tuple[tuple[str, int], ...], str] = {}  # names of settings, by their cells
    for setting, point in settings_of(file, source):
        point_cells = _point_cells(file, point, setting, source)
        twin = settings.setdefault(tuple((cell.directory, cell.rounds) for cell in point_cells), setting)
        if twin != setting or any(cell.setting == setting for cell in cells):
            key = "grid" if file.grid else "posteriors"
            raise StudyError(f"{source}: {key}: {shown(twin)} and {shown(setting)} are the same; remove one")
        cells += point_cells
    return Study(file.model_copy(update={"reference": reference_label(file, source)}), tuple(cells))


def _as_written(seeds: Any) -> Any:
    """Return seeds as a study file has them: a list instead of other sequences; the check refuses all other types."""
    return list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, str) else seeds


def _checked_file(raw: dict[str, Any], source: str) -> StudyFile:
    return validated(StudyFile, raw, source, requirements=REQUIREMENTS)


def _check_posteriors(file: StudyFile, source: str) -> None:
    if file.posterior is None and not file.posteriors:
        raise StudyError(
            f"{source}: posterior: is missing; give one, such as `posterior: ensemble`, or several as `posteriors`"
        )
    if file.posterior is not None and file.posteriors:
        raise StudyError(f"{source}: posterior: `posteriors` is given too; remove one of the two")
    for label, settings in file.posteriors.items():
        if not label.strip():
            raise StudyError(f"{source}: posteriors: a label is empty; name each posterior")
        _part("posteriors", settings, source, f"posteriors.{label}")


def _point_cells(file: StudyFile, point: dict[str, Any], setting: str, source: str) -> list[Cell]:
    """Make the cells of a grid point; errors that the grid values cause name these values."""
    if not setting:
        return _cells(file, setting, source)
    try:
        return _cells(_checked_file(point, source), setting, source)
    except BalbenchError as error:
        if str(error) == _error_without_grid(file, source):
            raise
        reason = str(error).removeprefix(f"{source}: ")
        raise type(error)(f"{source}: grid: {shortened(setting)}: {reason}") from None


def _error_without_grid(file: StudyFile, source: str) -> str:
    """Return the error of a study without its grid, with its first posterior; empty if there is none."""
    posterior = next(iter(file.posteriors.values()), file.posterior)
    try:
        _cells(file.model_copy(update={"posterior": posterior}), "", source)
    except BalbenchError as error:
        return str(error)
    return ""


def _cells(file: StudyFile, setting: str, source: str) -> list[Cell]:
    parts = {key: _part(kind, getattr(file, key), source, key) for key, kind in COMPONENTS.items()}
    policies = _policies(file, source)
    reference = _checked_reference(file, policies, source)
    _check_contents(parts["dataset"].component, [part.component for part, _ in policies.values()], source)
    keys = SettingKeys(**parts, protocol=file.protocol)
    components = {key: part.component for key, part in parts.items()}
    cells = []
    for label, (policy, own) in policies.items():
        shared: dict[str, Any] = components | {"setting": setting, "policy_name": policy.name, "label": label}
        shared |= {"posterior_name": parts["posterior"].name}
        shared |= {"policy": policy.component, "protocol": file.protocol, "sources": keys.sources(policy, own)}
        if own is not None:
            shared |= {"posterior": own.component, "own_posterior": own.name}
        seeds = reference_seeds(file, source) if label == reference else file.seeds
        keys_S = keys.keys(policy, own, seeds)
        cells += [Cell(**shared, seed=seed, keys=key) for seed, key in zip(seeds, keys_S, strict=True)]
    return cells


def _part(kind: str, settings: Any, source: str, key: str, more_keys: Sequence[str] = ()) -> Part:
    """Make a component, with its name (errors as in `make_component`)."""
    component = make_component(kind, settings, source, key, more_keys)
    return Part(kind, settings if isinstance(settings, str) else settings["name"], component)


def _check_contents(dataset: Dataset, policies: Sequence[Policy], source: str) -> None:
    """Check that the data have what policies need, if the contents are known before the data are built."""
    with in_one_line(dataset.contents.__qualname__):
        contents = dataset.contents()
    if contents is None:
        return
    for number, policy in enumerate(policies):
        try:
            policy.check_data(contents)
        except DataError as error:
            raise DataError(f"{source}: policies.{number}: {error}") from None


def _policies(file: StudyFile, source: str) -> dict[str, tuple[Part, Part | None]]:
    """Return the policies by label, each with its own posterior if it has one."""
    policies: dict[str, tuple[Part, Part | None]] = {}
    for number, settings in enumerate(file.policies):
        key = f"policies.{number}"
        here = f"{source}: {key}"
        label = _label(settings, here)
        if label in policies:
            raise StudyError(f"{here}: two policies are called {shown(label)}; give one a label")
        policy = _policy(settings, source, key)
        if (twin := next((other for other, made in policies.items() if made == policy), None)) is not None:
            raise StudyError(f"{here}: {shown(label)} and {shown(twin)} have the same settings; remove one")
        policies[label] = policy
    if file.full_data and not any(policy.component.acquires_all for policy, _ in policies.values()):
        if FULL_DATA in policies:
            raise StudyError(f"{source}: policies: the label {FULL_DATA!r} is taken; give another or full_data: false")
        policies[FULL_DATA] = _part("policies", "full_data", source, "full_data"), None
    return policies


def _label(settings: Mapping[str, Any], here: str) -> str:
    label = settings.get("label", settings.get("name", ""))
    if not isinstance(label, str) or ("name" in settings and not label.strip()):
        raise StudyError(f"{here}.label: must be a text, not {shown(label)}")
    return label


def _policy(settings: Mapping[str, Any], source: str, key: str) -> tuple[Part, Part | None]:
    own = settings.get("posterior")
    policy_settings = {name: value for name, value in settings.items() if name not in ("label", "posterior")}
    policy = _part("policies", policy_settings, source, key, more_keys=("label", "posterior"))
    return policy, None if own is None else _part("posteriors", own, source, f"{key}.posterior")


def _checked_reference(file: StudyFile, policies: Mapping[str, tuple[Part, Part | None]], source: str) -> str:
    """Return the label of the reference."""
    label = reference_label(file, source)
    if policies[label][0].component.acquires_all:
        raise StudyError(f"{source}: reference: {shown(label)} buys all labels at once; name a policy with a curve")
    return label


def reference_label(file: StudyFile, source: str) -> str:
    """Return the label of the policy that `reference` names, by its label or by a name that only one policy has.

    Raises:
        StudyError: no policy has that label or name, or several have the name.
    """
    names = {str(policy.get("label", policy["name"])): str(policy["name"]) for policy in file.policies}
    if file.reference in names:
        return file.reference
    labels = [label for label, name in names.items() if name == file.reference]
    if len(labels) > 1:
        raise StudyError(
            f"{source}: reference: {len(labels)} policies have the name {shown(file.reference)}; give the label of "
            f"one: {', '.join(labels)}"
        )
    if not labels:
        near = registry.nearest(file.reference, list(names))
        raise StudyError(f"{source}: reference: no policy is called {shown(file.reference)}; {near}")
    return labels[0]
