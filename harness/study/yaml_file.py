"""Read a study file as plain values, and set keys by dotted paths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from balbench.harness.errors import StudyError
from balbench.harness.files import not_finite
from balbench.harness.study.settings import shortened, shown


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        StudyError: it cannot be read, or is something else.
    """
    try:
        raw = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); give the name or path of a study") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except _NotYamlError as error:
        raise StudyError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise StudyError(f"{path}: must be a mapping of keys such as name, dataset, policies")
    return raw


class _NotYamlError(Exception):
    """What is wrong with a text that should be YAML, in one line."""


def _parsed(text: str) -> Any:
    try:
        return _StrictLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _NotYamlError(f"{place}{error.problem or 'not valid YAML'}; mend it there") from None
    except yaml.YAMLError as error:
        raise _NotYamlError(f"not valid YAML ({str(error).splitlines()[0]}); mend it") from None
    except RecursionError:
        raise _NotYamlError("is nested too deeply; make it flatter") from None


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice, and says where a value is none of its type."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # !!set may stand before a list
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError):  # what Python's types say of a date 2020-13-45
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown(node.value)} is no {kind}, though it is written like one (a text wants quotes)"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


def normalised(raw: dict[str, Any], place: str) -> dict[str, Any]:
    """Write parts that are given as a mere name as mappings, and a number of seeds as a list."""
    if (where := not_finite(raw)) is not None:
        raise StudyError(f"{place}: {where}: must be finite; write a number")
    try:
        raw = json.loads(json.dumps(raw, default=str, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        told = str(error).splitlines()[0]
        raise StudyError(f"{place}: holds what no study can hold ({told}); write texts and numbers") from None
    for key in ("dataset", "oracle", "posterior"):
        if isinstance(raw.get(key), str):
            raw[key] = {"name": raw[key]}
    if isinstance(raw.get("policies"), list):
        raw["policies"] = [{"name": policy} if isinstance(policy, str) else policy for policy in raw["policies"]]
    return raw


def override(raw: dict[str, Any], overrides: Sequence[str] | Mapping[str, Any]) -> None:
    """Set dotted keys of a study; `policies.1.beta` counts from 0.

    Args:
        raw: the study, which is changed.
        overrides: values by key, or texts `key=value` with values in YAML.

    Raises:
        StudyError: an override has another form, or there is nothing to set.
    """
    try:
        if isinstance(overrides, str):
            raise StudyError(f"override {shown(overrides)}: must be a list of texts, or a mapping")
        for entry in overrides:
            path, value = (entry, overrides[entry]) if isinstance(overrides, Mapping) else _key_and_value(entry)
            set_path(raw, path, value, f"override {shortened(entry)}")
    except StudyError as error:
        raise StudyError(str(error), setting="override") from None


def _key_and_value(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    place = f"override {shortened(text)}"
    if not equals or not path:
        raise StudyError(f"{place}: must have the form key=value, for example posterior.members=10")
    try:
        return path, _parsed(value)
    except _NotYamlError as error:
        raise StudyError(f"{place}: the value is not valid YAML: {error}") from None


def set_path(raw: dict[str, Any], path: str, value: Any, place: str) -> None:
    """Set a dotted path in nested mappings and lists, where lists are counted from 0.

    Raises:
        StudyError: something on the way is no mapping and no list, or a list is too short.
    """
    names = path.split(".")
    if not all(names):
        raise StudyError(f"{place}: {path!r} has an empty part; write keys like posterior.members")
    target: Any = raw
    for depth, name in enumerate(names[:-1]):
        target = (
            target.setdefault(name, {}) if isinstance(target, dict) else target[_entry(target, names, depth, place)]
        )
    if isinstance(target, dict):
        target[names[-1]] = value
    else:
        target[_entry(target, names, len(names) - 1, place)] = value


def _entry(target: Any, names: list[str], depth: int, place: str) -> int:
    """The number of an entry that is there."""
    name, here = names[depth], ".".join(names[:depth])
    if isinstance(target, str):
        raise StudyError(f"{place}: {here!r} is a name, not a mapping; write it as {{name: {target}}}")
    if not isinstance(target, list):
        raise StudyError(f"{place}: there is nothing at {here!r} to set {name!r} of; it is {shown(target)}")
    if not (name.isascii() and name.isdecimal() and int(name) < len(target)):
        entries = f"0 to {len(target) - 1}" if target else "none, the list is empty"
        raise StudyError(f"{place}: there is nothing at {here!r} called {name!r}; its entries are {entries}")
    return int(name)
