"""Make checked objects from settings of a study file. An error is one line with the key, the error and the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from balbench.harness import registry
from balbench.harness.errors import StudyError, shortened

A_COMPONENT = "must be a name, or a mapping with `name` and settings"
PLAIN = {None: "null", True: "true", False: "false"}  # constants of Python in YAML
# Requirements of values, by pydantic's type of error or the start of that type.
ERROR_WORDS = {
    "missing": "is missing; give it",
    "int_": "must be an integer",
    "float_": "must be a number",
    "finite_number": "must be finite",
    "bool_": "must be true or false",
    "string_type": "must be a text",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
}


def make_component(kind: str, settings: Any, source: str, key: str, more_keys: Sequence[str] = ()) -> Any:
    """Make a component from a name, or a mapping with its `name` and settings.

    Args:
        kind: policies, posteriors, oracles or datasets.
        settings: the value in the study file.
        source: name of the file, for errors.
        key: the dotted path of the settings in the file, for errors.
        more_keys: keys that are allowed in addition to the component's own.

    Raises:
        StudyError: there is no such component, or a setting is invalid.
    """
    if isinstance(settings, str):
        settings = {"name": settings}
    if not isinstance(settings, dict):
        raise StudyError(f"{source}: {key}: {A_COMPONENT}, not {shown(settings)}")
    settings = dict(settings)
    if "name" not in settings:
        raise StudyError(f"{source}: {key}: no name; {_name_advice(kind, settings)}")
    if not isinstance(name := settings.pop("name"), str):
        raise StudyError(f"{source}: {key}.name: must be a text, not {shown(name)}")
    try:
        component = registry.load(kind, name)
    except StudyError as error:
        raise StudyError(f"{source}: {key}: {str(error).removeprefix(f'{kind}: ')}") from None
    return validated(component, settings, source, key, more_keys=more_keys)


def _name_advice(kind: str, settings: dict[str, Any]) -> str:
    known = registry.names(kind)
    meant = next((key for key in settings if key in known), None)
    return f"write it as {{name: {meant}, ...}}" if meant else f"known {kind}: {', '.join(known)}"


def validated(
    model: type[BaseModel],
    settings: Any,
    source: str,
    key: str = "",
    *,
    requirements: Mapping[str, str] | None = None,
    more_keys: Sequence[str] = (),
) -> Any:
    """Make a model from a mapping.

    Args:
        model: class of the model.
        settings: the value in the study file.
        source: name of the file, for errors.
        key: the dotted path of the settings in the file, for errors.
        requirements: requirements of values by dotted path (`policies.*`), instead of the default words.
        more_keys: keys that are allowed in addition to the model's own, for the advice about an unknown key.

    Raises:
        StudyError: a setting is invalid.
    """
    try:
        made = model.model_validate(settings)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # A misspelt key gives two errors: an unknown key and a missing one. The first says more.
        first = next((details for details in errors if details["type"] == "extra_forbidden"), errors[0])
        path = _path(first, settings)
        if first["type"] == "extra_forbidden":
            message = _unknown_key(model, path, more_keys)
        else:
            same_path = [details for details in errors if _path(details, settings) == path]  # one for each union type
            message = _message(same_path, path, requirements or {})
        raise StudyError(_line(source, key, path, message)) from None
    for name in settings:  # pydantic accepts true as the number 1
        if isinstance(settings[name], bool) and not isinstance(getattr(made, name, True), bool):
            raise StudyError(_line(source, key, (name,), f"must be a number, not {shown(settings[name])}"))
    return made


def _line(source: str, key: str, path: Sequence[str | int], message: str) -> str:
    dotted = shortened(".".join(str(part) for part in [*([key] if key else []), *path]))
    return f"{source}: {dotted}: {message}" if dotted else f"{source}: {message}"


def _path(error: ErrorDetails, settings: Any) -> tuple[str | int, ...]:
    """Return the location of an error without the names that pydantic gives to the types of a union."""
    path: list[str | int] = []
    is_missing = error["type"] == "missing"
    for part in error["loc"]:
        if isinstance(settings, dict) and (part in settings or is_missing):
            settings = settings.get(part)
        elif isinstance(settings, list) and isinstance(part, int):
            settings = settings[part] if part < len(settings) else None
        else:
            break
        path.append(part)
    return tuple(path)


def _message(errors: Sequence[ErrorDetails], path: Sequence[str | int], requirements: Mapping[str, str]) -> str:
    """Return the message about one value: the requirement, the value, and the remedy."""
    first = errors[0]
    if first["type"] in {"value_error", "assertion_error"}:
        return " ".join(first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").split())
    if first["type"] == "missing":
        return ERROR_WORDS["missing"]
    dotted = ".".join(map(str, path))
    own = next((words for pattern, words in requirements.items() if fnmatchcase(dotted, pattern)), None)
    words = [own] if own else [_words(error) for error in errors]
    if len(words) > 1:  # a remedy is for one requirement alone
        words = [word.partition(";")[0] for word in words]
    alternatives = [words[0], *(word.removeprefix("must be ") for word in words[1:])]
    requirement, semicolon, remedy = " or ".join(dict.fromkeys(alternatives)).partition(";")
    return f"{requirement}, not {shown(first['input'])}{semicolon}{remedy}"


def _words(error: ErrorDetails) -> str:
    kind = error["type"]
    starts = (words for start, words in ERROR_WORDS.items() if kind.startswith(start))
    if kind == "string_type" and isinstance(error["input"], (int, float)):
        return "must be a text; quote it"
    words = ERROR_WORDS.get(kind) or next(starts, None)
    if words is None:
        return " ".join(error["msg"].split()).replace("Input should be", "must be").replace("Value should", "must")
    limits = {
        name: f"{limit:.15g}" if isinstance(limit, float) else limit for name, limit in error.get("ctx", {}).items()
    }
    return words.format_map(limits)


def _unknown_key(model: type[BaseModel], path: Sequence[str | int], more_keys: Sequence[str]) -> str:
    for name in path[:-1]:
        inner = model.model_fields[str(name)].annotation if name in model.model_fields else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model, more_keys = inner, ()
    own = [*model.model_fields, *(["preset"] if getattr(model, "presets", None) else [])]
    near = registry.nearest(str(path[-1]), [*own, *more_keys])
    if not own and near.startswith("known"):
        return "unknown key; there are no settings, remove it"
    return f"unknown key; {near}"


def shown(value: Any) -> str:
    """Return a value for an error message: in YAML's notation, shortened."""
    return shortened(PLAIN[value] if value is None or isinstance(value, bool) else ascii(value))
