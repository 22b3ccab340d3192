"""The study file: which cells to run. Everything in it is checked before anything runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from balbench.harness import registry
from balbench.harness.datasets.dataset import Dataset
from balbench.harness.errors import BalbenchError, DataError, StudyError, in_one_line
from balbench.harness.policies.policy import Policy
from balbench.harness.results.records import StudyHeader
from balbench.harness.study.cell import Cell, Part, Protocol, SettingKeys, digest
from balbench.harness.study.settings import A_PART, make_component, shown, validated
from balbench.harness.study.yaml_file import normalised, override, read_yaml, set_path

FULL_DATA = "full data"
GRID_ROOTS = ("dataset", "oracle", "posterior", "policies", "protocol")
PARTS = {"dataset": "datasets", "oracle": "oracles", "posterior": "posteriors"}
MOST_CELLS = 1_000_000  # of a study, all of which are made at once
SEEDS = "must be a number of seeds, or a list of seeds"
# What keys must be, where their types say too little.
WANTED = {
    "name": "must be 1 to 100 letters, digits and . _ -, and begin with a letter or a digit; quote a number",
    "description": "must be a text; quote it",
    "reference": "must be the label of a policy",
    "seeds": SEEDS,
    "protocol": "must be a mapping of initial, batch and rounds",
    "grid": "must be a mapping such as {posterior.members: [2, 5]}; leave it out where nothing varies",
    "grid.*": "must be a list of values, as in {posterior.members: [2, 5]}",
    "policies": "must be a list of one or more policies",
    "policies.*": A_PART,
    **dict.fromkeys(PARTS, A_PART),
}


class StudyFile(BaseModel):
    """The keys of a study file. A component is a name, or a mapping with `name` and settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Name of the study: title of the report and name of the default run directory."""
    description: str = ""
    """The question that the study answers."""
    dataset: dict[str, Any]
    """The data set."""
    oracle: dict[str, Any] = {"name": "replay"}
    """The simulated annotator."""
    posterior: dict[str, Any]
    """The reward model with its uncertainty."""
    policies: list[dict[str, Any]] = Field(min_length=1)
    """The policies. A policy may have a `label`, its name in plots, and its own `posterior`."""
    reference: str = "random"
    """The policy that label savings are measured against: its label, or its name if only one policy has that name."""
    seeds: list[Annotated[int, Field(strict=True, ge=0, lt=2**63)]] = Field(min_length=1)
    """A number of seeds (5 means 0 to 4), or a list of seeds."""
    protocol: Protocol
    """How many labels are bought and when."""
    full_data: bool = False
    """Whether to train once per seed on the whole pool, as a reference line in the report."""
    grid: dict[str, list[Any]] = {}
    """Values of dotted keys; the study runs all combinations."""


@dataclass(frozen=True)
class Study:
    """A checked study: the resolved file and its cells, in order."""

    file: StudyFile
    cells: tuple[Cell, ...]

    @property
    def header(self) -> StudyHeader:
        """What study.json says of the study before its data are known."""
        file = json.loads(self.file.model_dump_json())
        return {"study": file, "cells": [cell.header for cell in self.cells], "lines": {}}


def load_study(
    source: Path | Mapping[str, Any],
    overrides: Sequence[str] | Mapping[str, Any] = (),
    seeds: int | Sequence[int] | None = None,
) -> Study:
    """Read, override, check and expand a study.

    Args:
        source: a YAML file, or a mapping with the keys of a study file.
        overrides: values of dotted keys, as a mapping or as texts `key.path=value` with values in YAML.
        seeds: number of seeds, or a list of seeds, in place of the study's.

    Raises:
        StudyError: a key or a value is wrong; the message names the place and the nearest valid name.
        DataError: the data set is missing, or lacks what a policy needs.
    """
    place = str(source) if isinstance(source, Path) else "study"
    raw = normalised(read_yaml(source) if isinstance(source, Path) else dict(source), place)
    override(raw, overrides)
    if seeds is not None:
        if isinstance(seeds, int) and seeds < 1:
            raise StudyError(f"seeds {seeds}: must be at least 1", setting="seeds")
        raw["seeds"] = seeds if isinstance(seeds, int) else list(seeds)
    return check_study(raw, place)


def check_study(raw: dict[str, Any], place: str) -> Study:
    """Check a study and expand it into cells (errors as in `load_study`, with `place` for the file)."""
    raw = normalised(raw, place)
    file = validated(StudyFile, raw | {"seeds": _seeds(raw.get("seeds", 5), place)}, place, wanted=WANTED)
    if len(set(file.seeds)) < len(file.seeds):
        raise StudyError(f"{place}: seeds: a seed stands twice in {shown(file.seeds)}; remove one")
    number = math.prod([len(file.seeds), len(file.policies), *map(len, file.grid.values())])
    if number > MOST_CELLS:
        raise StudyError(f"{place}: has {number:,} cells, more than {MOST_CELLS:,}; take fewer seeds or grid values")
    cells: list[Cell] = []
    same: dict[tuple[tuple[str, int], ...], str] = {}
    for setting, point in _grid_points(file, place):
        found = _point_cells(file, point, setting, place)
        twin = same.setdefault(tuple((cell.directory, cell.rounds) for cell in found), setting)
        if twin != setting or any(cell.setting == setting for cell in cells):
            raise StudyError(f"{place}: grid: {twin!r} and {setting!r} are the same; remove one")
        cells += found
    return Study(file.model_copy(update={"reference": reference_label(file, place)}), tuple(cells))


def _seeds(seeds: Any, place: str) -> Any:
    """A number of seeds as a list."""
    if not isinstance(seeds, int) or isinstance(seeds, bool):
        return seeds
    if not 1 <= seeds <= MOST_CELLS:
        raise StudyError(f"{place}: seeds: must be at least 1 and at most {MOST_CELLS:,}, not {seeds:,}")
    return list(range(seeds))


def _grid_points(file: StudyFile, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The settings of a grid, each with the study that it makes."""
    names = list(file.grid)
    for number, (name, choices) in enumerate(file.grid.items()):
        if name.split(".")[0] not in GRID_ROOTS:
            raise StudyError(f"{place}: grid: {name or repr(name)}: only parts of {', '.join(GRID_ROOTS)} can vary")
        if not choices:
            raise StudyError(f"{place}: grid: {name}: the list of values is empty; give some or remove the key")
        if len({digest(choice) for choice in choices}) < len(choices):
            raise StudyError(f"{place}: grid: {name}: a value stands twice in {shown(choices)}; remove one")
        if inner := [other for other in names[:number] if other.startswith(f"{name}.")]:
            raise StudyError(f"{place}: grid: {name}: stands after {inner[0]} and replaces it; let it stand before")
    for values in product(*file.grid.values()):
        raw = json.loads(file.model_dump_json())
        for name, value in zip(names, values, strict=True):
            set_path(raw, name, value, f"{place}: grid: {name}")
            raw = normalised(raw, place)  # a part by its name becomes a mapping, of which the next may set a key
        titles = [f"{name}={_shown(value, file.grid[name])}" for name, value in zip(names, values, strict=True)]
        yield ", ".join(titles), raw


def _point_cells(file: StudyFile, point: dict[str, Any], setting: str, place: str) -> list[Cell]:
    """The cells of a setting; where they are wrong and those without a grid are not, the grid's values are named."""

    def cells(raw: dict[str, Any], setting: str) -> list[Cell]:
        return _cells(validated(StudyFile, raw, place, wanted=WANTED), setting, place)

    try:
        return cells(point, setting)
    except BalbenchError as error:
        try:
            if setting:
                cells(json.loads(file.model_dump_json()), "")
        except BalbenchError as without:
            if str(without) == str(error):
                raise error from None
        if not setting:
            raise
        raise type(error)(f"{place}: grid: {setting}: {str(error).removeprefix(f'{place}: ')}") from None


def _shown(value: Any, choices: list[Any]) -> str:
    """A grid's value in the name of its setting: of a part its name, and its settings where others share the name."""
    if not isinstance(value, dict) or "name" not in value:
        return str(value)
    called = [choice.get("name") if isinstance(choice, dict) else choice for choice in choices]
    settings = ", ".join(f"{key} {inner}" for key, inner in value.items() if key != "name")
    return f"{value['name']} ({settings})" if called.count(value["name"]) > 1 and settings else str(value["name"])


def _cells(file: StudyFile, setting: str, place: str) -> list[Cell]:
    parts = {
        key: Part(kind, getattr(file, key)["name"], make_component(kind, getattr(file, key), place, key))
        for key, kind in PARTS.items()
    }
    policies, own_posterior = _policies(file, place)
    _check_contents(parts["dataset"].component, {label: part.component for label, part in policies.items()}, place)
    keys = SettingKeys(**parts, protocol=file.protocol)
    components = {key: part.component for key, part in parts.items()}
    cells = []
    for label, policy in policies.items():
        own = own_posterior.get(label)
        shared: dict[str, Any] = components | {"setting": setting, "policy_name": policy.name, "label": label}
        shared |= {"policy": policy.component, "protocol": file.protocol, "sources": keys.sources(policy, own)}
        if own is not None:
            shared |= {"posterior": own.component, "own_posterior": own.name}
        keys_S = keys.keys(policy, own, file.seeds)
        cells += [Cell(**shared, seed=seed, keys=key) for seed, key in zip(file.seeds, keys_S, strict=True)]
    return cells


def _check_contents(dataset: Dataset, policies: dict[str, Policy], place: str) -> None:
    """See that the data will hold what policies need, where that is known before they are built."""
    with in_one_line(dataset.contents.__qualname__):
        contents = dataset.contents()
    if contents is None:
        return
    for number, policy in enumerate(policies.values()):
        try:
            policy.check_data(contents)
        except DataError as error:
            raise DataError(f"{place}: policies.{number}: {error}") from None


def _policies(file: StudyFile, place: str) -> tuple[dict[str, Part], dict[str, Part]]:
    """The policies by label, and the posteriors of policies that have their own."""
    policies: dict[str, Part] = {}
    own_posterior: dict[str, Part] = {}
    for number, settings in enumerate(file.policies):
        settings, key = dict(settings), f"policies.{number}"
        label, here = settings.pop("label", settings.get("name", "")), f"{place}: {key}"
        own = settings.pop("posterior", None)
        if not isinstance(label, str) or ("name" in settings and not label.strip()):
            raise StudyError(f"{here}.label: must be a text, not {shown(label)}")
        if label in policies:
            raise StudyError(f"{here}: two policies are called {label!r}; give one a label")
        component = make_component("policies", settings, place, key, more_keys=("label", "posterior"))
        policies[label] = Part("policies", settings["name"], component)
        if own is not None:
            name = own["name"] if isinstance(own, dict) and "name" in own else own
            own_posterior[label] = Part(
                "posteriors", name, make_component("posteriors", own, place, f"{key}.posterior")
            )
        what = (policies[label], own_posterior.get(label))
        twins = (o for o, policy in policies.items() if o != label and (policy, own_posterior.get(o)) == what)
        if (twin := next(twins, None)) is not None:
            raise StudyError(f"{here}: {label!r} and {twin!r} have the same settings; remove one")
    label = reference_label(file, place)
    if policies[label].component.acquires_all:
        raise StudyError(f"{place}: reference: {label!r} buys all labels at once; name a policy with a curve")
    if file.full_data and not any(policy.component.acquires_all for policy in policies.values()):
        if FULL_DATA in policies:
            raise StudyError(f"{place}: policies: the label {FULL_DATA!r} is taken; give another or full_data: false")
        full_data = make_component("policies", "full_data", place, "full_data")
        policies[FULL_DATA] = Part("policies", "full_data", full_data)
    return policies, own_posterior


def reference_label(file: StudyFile, place: str) -> str:
    """The label of the policy that `reference` names by its label, or by a name that only one policy has.

    Raises:
        StudyError: no policy has that label or name, or several have the name.
    """
    names = {policy.get("label", policy["name"]): policy["name"] for policy in file.policies}
    if file.reference in names:
        return file.reference
    labels = [label for label, name in names.items() if name == file.reference]
    if len(labels) > 1:
        raise StudyError(
            f"{place}: reference: {len(labels)} policies have the name {file.reference!r}; give the label of one: "
            f"{', '.join(labels)}"
        )
    if not labels:
        near = registry.nearest(file.reference, list(names))
        raise StudyError(f"{place}: reference: no policy is called {file.reference!r}; {near}")
    return labels[0]
