"""Read a study file as plain values, and set keys by dotted paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from balbench.harness.errors import StudyError, shortened
from balbench.harness.files import not_finite
from balbench.harness.study.settings import shown

# The plain scalars of YAML 1.2's core schema. PyYAML follows YAML 1.1, where 010 is 8, 1:30 is 90 and `no` is false.
SCALARS = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    "merge": (r"<<", ["<"]),
}


def read_yaml(
    path: Path, remedy: str = "give the name or path of a study", keys: str = "name, dataset, policies"
) -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        path: the file.
        remedy: advice for a file that cannot be read.
        keys: examples of keys, for the error about a file that is no mapping.

    Raises:
        StudyError: the file cannot be read, or is not a YAML mapping.
    """
    try:
        raw = _parsed(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except _NotYamlError as error:
        raise StudyError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise StudyError(f"{path}: must be a mapping of keys such as {keys}")
    return raw


class _NotYamlError(Exception):
    """A text is not valid YAML; the message is one line with the position and the remedy."""


def _parsed(text: str, *, whole: bool = False) -> Any:
    """Parse YAML; with `whole`, refuse text after the value, which would be a comment."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if whole and (rest := text[node.end_mark.index :].strip()):
            raise _NotYamlError(f"{shown(rest)} follows the value; remove it, or quote the whole value")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or "not valid YAML"
        remedy = "" if ";" in problem else "; correct it there"
        raise _NotYamlError(f"{position}{problem}{remedy}") from None
    except yaml.YAMLError as error:
        raise _NotYamlError(f"not valid YAML ({str(error).splitlines()[0]}); correct it") from None
    except RecursionError:
        raise _NotYamlError("is nested too deeply; make it flatter") from None


class _Loader(yaml.SafeLoader):
    """A safe loader of YAML 1.2 that rejects duplicate keys and names values that do not have their type."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # `!!set` may precede a list
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in keys:
                problem = f"the key {shown(key.value)} occurs twice; remove one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError):
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown(node.value)} cannot be parsed as {kind}; quote it if it is text"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """Read a decimal, octal (0o17) or hexadecimal (0x1F) integer; leading zeros have no effect."""
        text = self.construct_scalar(node)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first_characters) in SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), _first_characters)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


def plain(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a study as values of JSON: mappings with text keys, lists, texts, finite numbers.

    Raises:
        StudyError: a value has another type, or a number is not finite.
    """
    if (path := not_finite(raw)) is not None:
        raise StudyError(f"{source}: {path}: must be finite; write a number")
    try:
        return json.loads(json.dumps(raw, default=_plain_value, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{source}: contains an unsupported value ({reason}); use texts and numbers") from None


def _plain_value(value: Any) -> Any:
    """Return a scalar of numpy or torch as a number, and anything else (a path, a date) as text."""
    return value.item() if hasattr(value, "item") else str(value)


def override(raw: dict[str, Any], overrides: Sequence[str] | Mapping[str, Any]) -> None:
    """Set dotted keys of a study; `policies.1.beta` counts from 0.

    Args:
        raw: the study, which is changed.
        overrides: values by key, or texts `key=value`. The value of a text is a YAML scalar, or a list or mapping in
            brackets; `#` does not start a comment.

    Raises:
        StudyError: an override has an invalid form, or its key does not exist.
    """
    try:
        if isinstance(overrides, str) or not isinstance(overrides, Iterable):
            raise StudyError(f"override {shown(overrides)}: must be a list of texts, or a mapping")
        for entry in overrides:
            if not isinstance(entry, str):
                raise StudyError(f"override {shown(entry)}: must be a text")
            path, value = (entry, overrides[entry]) if isinstance(overrides, Mapping) else _key_and_value(entry)
            set_path(raw, path, value, f"override {shortened(entry)}")
    except StudyError as error:
        raise StudyError(str(error), setting="override") from None


def _key_and_value(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    source = f"override {shortened(text)}"
    if not equals or not path:
        raise StudyError(f"{source}: must have the form key=value, for example posterior.members=10")
    return path, value_of(value, source)


def value_of(text: str, source: str) -> Any:
    """Return the value of a text: a YAML scalar, or a list or mapping in brackets.

    Args:
        text: the value as the user wrote it; `#` does not start a comment.
        source: the setting, for errors.

    Raises:
        StudyError: the text is not valid YAML.
    """
    text = text.strip()
    if not text.startswith(("[", "{", '"', "'")):
        return _plain_scalar(text, source)
    try:
        return _parsed(text, whole=True)
    except _NotYamlError as error:
        raise StudyError(f"{source}: the value is not valid YAML: {error}", setting=source) from None


def _plain_scalar(text: str, source: str) -> Any:
    """Return an unquoted text as a number, a truth value or null if it is one, or else as text."""
    loader = _Loader("")
    node = yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text)
    try:
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise StudyError(f"{source}: {error.problem}") from None


def set_path(raw: dict[str, Any], path: str, value: Any, source: str) -> None:
    """Set a dotted path in nested mappings and lists, where lists are counted from 0.

    A component that is only a name becomes a mapping when one of its settings is set.

    Raises:
        StudyError: a value on the path is not a mapping or a list, or a list is too short.
    """
    names = path.split(".")
    if not all(names):
        raise StudyError(f"{source}: {shown(path)} has an empty part; write keys like posterior.members")
    target: Any = raw
    for depth, name in enumerate(names[:-1]):
        key = name if isinstance(target, dict) else _entry(target, names, depth, source)
        inner = target.setdefault(key, {}) if isinstance(target, dict) else target[key]
        if isinstance(inner, str) and _is_component(names[: depth + 1]):
            inner = target[key] = {"name": inner}
        target = inner
    key = names[-1] if isinstance(target, dict) else _entry(target, names, len(names) - 1, source)
    target[key] = value


def _is_component(names: Sequence[str]) -> bool:
    """Return whether a path is a component: dataset, oracle, posterior, posteriors.LABEL, policies.N, its posterior."""
    pattern = r"dataset|oracle|posterior|posteriors\.[^.]+|policies\.\d+(\.posterior)?"
    return bool(re.fullmatch(pattern, ".".join(names)))


def _entry(target: Any, names: Sequence[str], depth: int, source: str) -> int:
    """Return the number of an existing entry of a list."""
    name, here = shown(names[depth]), shown(".".join(names[:depth]))
    if isinstance(target, str):
        raise StudyError(f"{source}: {here} is a text, so there is no {name} to set in it")
    if not isinstance(target, list):
        raise StudyError(f"{source}: there is nothing at {here} to set {name} of; it is {shown(target)}")
    if not (names[depth].isascii() and names[depth].isdecimal() and int(names[depth][:9]) < len(target)):
        entries = f"0 to {len(target) - 1}" if target else "none, the list is empty"
        raise StudyError(f"{source}: there is nothing at {here} called {name}; its entries are {entries}")
    return int(names[depth])
