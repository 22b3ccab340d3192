"""The study file: which cells to run. Everything in it is checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import registry
from harness.component import Component
from harness.datasets.dataset import Dataset
from harness.errors import StudyError
from harness.policies.policy import Policy
from harness.posteriors.posterior import Posterior
from oracles.oracle import Oracle

DEEPEST = 50  # nesting that is looked into
LOOP_VERSION = 2  # raise it when the loop gives other bytes for the same cell
FULL_DATA = "full data"
GRID_ROOTS = ("dataset", "oracle", "posterior", "policies", "protocol")
PARTS = {"dataset": "datasets", "oracle": "oracles", "posterior": "posteriors"}


class Protocol(BaseModel):
    """How many labels are bought and when.

    Attributes:
        initial: labels bought at random before the first round.
        batch: labels bought after each round but the last.
        rounds: how often the posterior is fitted and evaluated; initial + (rounds - 1) x batch labels in all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    initial: int = Field(ge=1, strict=True)
    batch: int = Field(ge=1, strict=True)
    rounds: int = Field(ge=1, strict=True)

    @property
    def budget(self) -> int:
        """Labels bought in all."""
        return self.initial + (self.rounds - 1) * self.batch

    def labels_at(self, round_: int, pool_size: int) -> int:
        """Labels that round `round_` trains on; the last batch may be smaller."""
        return min(self.initial + round_ * self.batch, pool_size)


class StudyFile(BaseModel):
    """The keys of a study file. Parts are a name, or a mapping with `name` and settings.

    A policy may have a `label`, its name in plots, and a `posterior` of its own in place of the study's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    description: str = ""
    dataset: dict[str, Any]
    oracle: dict[str, Any] = {"name": "replay"}
    posterior: dict[str, Any]
    policies: list[dict[str, Any]] = Field(min_length=1)
    reference: str = "random"
    seeds: list[Annotated[int, Field(strict=True, ge=0, lt=2**63)]] = Field(min_length=1)
    protocol: Protocol
    full_data: bool = True
    grid: dict[str, list[Any]] = {}


@dataclass(frozen=True)
class Cell:
    """One (dataset, oracle, posterior, policy, seed) with its protocol: the unit of result.

    Attributes:
        setting: the grid's values, "" without a grid.
        policy_name: the policy's name in study files.
        label: its name in plots.
        own_posterior: whether the policy brings its posterior in place of the study's.
        key: hash of all that determines the result.
    """

    setting: str
    policy_name: str
    label: str
    seed: int
    dataset: Dataset
    oracle: Oracle
    posterior: Posterior
    policy: Policy
    protocol: Protocol
    dataset_key: str
    key: str
    own_posterior: bool = False

    @property
    def directory(self) -> str:
        """The name of the cell's directory."""
        slug = re.sub("[^a-z0-9]+", "-", self.label.lower())[:40].strip("-")
        return f"{slug}-seed{self.seed}-{self.key[:12]}"

    @property
    def title(self) -> str:
        """The cell in a message."""
        return f"{self.label}, seed {self.seed}" + (f" ({self.setting})" if self.setting else "")

    @property
    def rounds(self) -> int:
        """Rounds to run (a policy that acquires all at once has one)."""
        return 1 if self.policy.acquires_all else self.protocol.rounds


@dataclass(frozen=True)
class Study:
    """A checked study: the resolved file and its cells, in order."""

    file: StudyFile
    cells: tuple[Cell, ...]


def load_study(path: Path, overrides: tuple[str, ...] = (), seeds: int | None = None) -> Study:
    """Read, override, check and expand a study file.

    Args:
        path: a YAML file.
        overrides: `key.path=value` settings, values in YAML.
        seeds: run seeds 0 to seeds - 1.

    Raises:
        StudyError: what is wrong, where, and the nearest right spelling.
    """
    raw = normalised(read_yaml(path), str(path))
    for override in overrides:
        _set(raw, override)
    if seeds is not None:
        raw["seeds"] = seeds
    return check_study(raw, str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping."""
    try:
        raw = _StrictLoader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); give the name or path of a study") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
        raise StudyError(f"{path}: {place}: {getattr(error, 'problem', None) or 'not valid YAML'}") from None
    except RecursionError:
        raise StudyError(f"{path}: is nested too deeply") from None
    if not isinstance(raw, dict):
        raise StudyError(f"{path}: must be a mapping of keys such as name, dataset, policies")
    return raw


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def normalised(raw: dict[str, Any], place: str) -> dict[str, Any]:
    """Write parts that are given as a mere name as mappings, and a number of seeds as a list."""
    if (where := _not_finite(raw)) is not None:
        raise StudyError(f"{place}: {where}: must be finite; write a number")
    try:
        raw = json.loads(json.dumps(raw, default=str, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise StudyError(f"{place}: holds what no study can hold ({str(error).splitlines()[0]})") from None
    for key in ("dataset", "oracle", "posterior"):
        if isinstance(raw.get(key), str):
            raw[key] = {"name": raw[key]}
    if isinstance(raw.get("policies"), list):
        raw["policies"] = [{"name": policy} if isinstance(policy, str) else policy for policy in raw["policies"]]
    return raw


def _not_finite(value: Any, depth: int = 0) -> str | None:
    """Where a value holds a NaN or an infinity, as a dotted path."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner if depth < DEEPEST else ():
        if (where := _not_finite(part, depth + 1)) is not None:
            return f"{name}.{where}".rstrip(".")
    return None


def _set(raw: dict[str, Any], override: str) -> None:
    """Apply one `a.b=value`; `policies.1.beta` counts from 0."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise StudyError(f"--set {override}: must have the form key=value, for example posterior.members=10")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise StudyError(f"--set {override}: the value is not valid YAML") from None
    set_path(raw, path, value, f"--set {override}")


def set_path(raw: dict[str, Any], path: str, value: Any, place: str) -> None:
    """Set a dotted path in nested mappings and lists."""
    *parents, last = path.split(".")
    target: Any = raw
    for name in parents:
        if isinstance(target, list) and name.isdecimal() and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, dict):
            target = target.setdefault(name, {})
        else:
            target = None
        if isinstance(target, str):
            raise StudyError(f"{place}: {name!r} is a name, not a mapping; write it as {{name: {target}}}")
    if isinstance(target, list) and last.isdecimal() and int(last) < len(target):
        target[int(last)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise StudyError(f"{place}: there is nothing at {'.'.join(parents)!r} to set {last!r} of")


def check_study(raw: dict[str, Any], place: str) -> Study:
    """Check a normalised study and expand it into cells."""
    raw = normalised(raw, place)
    seeds = raw.get("seeds", 5)
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise StudyError(f"{place}: seeds: must be at least 1, not {seeds}")
        seeds = list(range(seeds))
    file = _validated(StudyFile, raw | {"seeds": seeds}, place)
    if len(set(file.seeds)) < len(file.seeds):
        raise StudyError(f"{place}: seeds: a seed stands twice in {file.seeds}")
    cells: list[Cell] = []
    same: dict[tuple[str, ...], str] = {}
    for setting, point in _grid_points(file, place):
        found = _cells(point, setting, place)
        twin = same.setdefault(tuple(cell.directory for cell in found), setting)
        if twin != setting or any(cell.setting == setting for cell in cells):
            raise StudyError(f"{place}: grid: {twin!r} and {setting!r} are the same; remove one")
        cells += found
    return Study(file, tuple(cells))


def _grid_points(file: StudyFile, place: str) -> list[tuple[str, StudyFile]]:
    names = list(file.grid)
    for name, choices in file.grid.items():
        if name.split(".")[0] not in GRID_ROOTS:
            raise StudyError(f"{place}: grid: {name}: only parts of {', '.join(GRID_ROOTS)} can vary")
        if len({digest(choice) for choice in choices}) < len(choices):
            raise StudyError(f"{place}: grid: {name}: a value stands twice in {choices}")
    points = []
    for values in product(*file.grid.values()):
        raw = json.loads(file.model_dump_json())
        for name, value in zip(names, values, strict=True):
            set_path(raw, name, value, f"{place}: grid")
        shown = [f"{name}={_shown(value, file.grid[name])}" for name, value in zip(names, values, strict=True)]
        setting, raw = ", ".join(shown), normalised(raw, place)
        points.append((setting, _validated(StudyFile, raw, place)))
    if not points:
        raise StudyError(f"{place}: grid: a list of values is empty")
    return points


def _shown(value: Any, choices: list[Any]) -> str:
    """A grid's value in the name of its setting: of a part its name, and its settings where others share the name."""
    if not isinstance(value, dict) or "name" not in value:
        return str(value)
    called = [choice.get("name") if isinstance(choice, dict) else choice for choice in choices]
    settings = ", ".join(f"{key} {inner}" for key, inner in value.items() if key != "name")
    return f"{value['name']} ({settings})" if called.count(value["name"]) > 1 and settings else str(value["name"])


def _cells(file: StudyFile, setting: str, place: str) -> list[Cell]:
    parts = {name: _component(kind, getattr(file, name), f"{place}: {name}") for name, kind in PARTS.items()}
    policies, own_posterior = _policies(file, place)
    dataset_key = digest([_identity(parts["dataset"]), parts["dataset"].source_key()])
    names = {FULL_DATA: "full_data"} | {policy.get("label", policy["name"]): policy["name"] for policy in file.policies}
    cells = []
    for (label, policy), seed in product(policies.items(), file.seeds):
        what: dict[str, Any] = {**parts, "policy": policy, "protocol": file.protocol}
        what["posterior"] = own_posterior.get(label, what["posterior"])
        identities = [_identity(what[part]) for part in ("oracle", "posterior")]
        protocol = None if policy.acquires_all else file.protocol.model_dump()
        key = digest([dataset_key, *identities, LOOP_VERSION, protocol, _identity(policy), seed])
        keys: dict[str, Any] = {"dataset_key": dataset_key, "key": key, "own_posterior": label in own_posterior}
        cells.append(Cell(setting=setting, policy_name=names[label], label=label, seed=seed, **what, **keys))
    return cells


def _policies(file: StudyFile, place: str) -> tuple[dict[str, Policy], dict[str, Posterior]]:
    """The policies by label, and the posteriors of those that bring their own."""
    policies: dict[str, Policy] = {}
    own_posterior: dict[str, Posterior] = {}
    for number, settings in enumerate(file.policies):
        settings = dict(settings)
        label, here = settings.pop("label", settings.get("name", "")), f"{place}: policies.{number}"
        own = settings.pop("posterior", None)
        if not isinstance(label, str) or ("name" in settings and not label.strip()):
            raise StudyError(f"{here}: label: must be a text, not {label!r}")
        if label in policies:
            raise StudyError(f"{here}: two policies are called {label!r}; give one a label")
        policies[label] = _component("policies", settings, here)
        if own is not None:
            own_posterior[label] = _component("posteriors", _named(own, f"{here}: posterior"), f"{here}: posterior")
        what = (policies[label], own_posterior.get(label))
        twins = (o for o, policy in policies.items() if o != label and (policy, own_posterior.get(o)) == what)
        if (twin := next(twins, None)) is not None:
            raise StudyError(f"{here}: {label!r} and {twin!r} have the same settings; remove one")
    if file.reference not in policies:
        near = registry.nearest(file.reference, list(policies))
        raise StudyError(f"{place}: reference: no policy is called {file.reference!r}; {near}")
    if policies[file.reference].acquires_all:
        raise StudyError(f"{place}: reference: {file.reference!r} buys all labels at once; name a policy with a curve")
    if file.full_data and not any(policy.acquires_all for policy in policies.values()):
        if FULL_DATA in policies:
            raise StudyError(f"{place}: policies: the label {FULL_DATA!r} is taken; give another or full_data: false")
        policies[FULL_DATA] = _component("policies", {"name": "full_data"}, place)
    return policies, own_posterior


def _named(part: Any, place: str) -> dict[str, Any]:
    if not isinstance(part, str | dict):
        raise StudyError(f"{place}: must be a name, or a mapping with `name` and settings")
    return {"name": part} if isinstance(part, str) else part


def _component(kind: str, settings: dict[str, Any], place: str) -> Any:
    settings = dict(settings)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise StudyError(f"{place}: no name; known {kind}: {', '.join(registry.names(kind))}")
    try:
        component = registry.load(kind, name)
    except StudyError as error:
        raise StudyError(f"{place}: {error}") from None
    return _validated(component, settings, place)


def _validated(model: type[BaseModel], settings: Any, place: str) -> Any:
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = _known_keys(model, first["loc"][:-1])
            message = (
                f"unknown key; {registry.nearest(str(first['loc'][-1]), known) if known else 'there are no settings'}"
            )
        elif first["type"] == "missing":
            message = "is missing"
        elif first["type"] != "value_error":
            message = f"{message[0].lower()}{message[1:]}, not {first['input']!r}"
        raise StudyError(f"{place}: {where}: {message}" if where else f"{place}: {message}") from None


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for name in path:
        inner = model.model_fields[name].annotation if name in model.model_fields else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return [*model.model_fields, *(["preset"] if getattr(model, "presets", None) else [])]


def _identity(component: Component | Oracle) -> dict[str, Any]:
    cls = type(component)
    settings = component.model_dump(mode="json", exclude=set(getattr(cls, "outside_key", ())))
    return {"class": f"{cls.__module__}:{cls.__name__}", "version": cls.version, **settings}


def digest(value: Any) -> str:
    """Hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
