"""Settings of a study file -> checked objects. An error is one line: the key as written, the error, the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from balbench.harness import registry
from balbench.harness.errors import StudyError, shortened

A_COMPONENT = "must be a name, or a mapping with `name` and settings"
PLAIN = {None: "null", True: "true", False: "false"}  # as YAML writes them
# What a value must be, by pydantic's type of error or the beginning of that type.
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


def make_component(kind: str, settings: Any, place: str, key: str, more_keys: Sequence[str] = ()) -> Any:
    """Make a component from a name, or a mapping with its `name` and settings.

    Args:
        kind: policies, posteriors, oracles or datasets.
        settings: the value in the study file.
        place: the file, for errors.
        key: the dotted path of the settings in the file, for errors.
        more_keys: keys that are allowed beside the component's own.

    Raises:
        StudyError: there is no such component, or a setting is wrong.
    """
    if isinstance(settings, str):
        settings = {"name": settings}
    if not isinstance(settings, dict):
        raise StudyError(f"{place}: {key}: {A_COMPONENT}, not {shown(settings)}")
    settings = dict(settings)
    if "name" not in settings:
        raise StudyError(f"{place}: {key}: no name; {_name_advice(kind, settings)}")
    if not isinstance(name := settings.pop("name"), str):
        raise StudyError(f"{place}: {key}.name: must be a text, not {shown(name)}")
    try:
        component = registry.load(kind, name)
    except StudyError as error:
        raise StudyError(f"{place}: {key}: {str(error).removeprefix(f'{kind}: ')}") from None
    return validated(component, settings, place, key, more_keys=more_keys)


def _name_advice(kind: str, settings: dict[str, Any]) -> str:
    known = registry.names(kind)
    meant = next((key for key in settings if key in known), None)
    return f"write it as {{name: {meant}, ...}}" if meant else f"known {kind}: {', '.join(known)}"


def validated(
    model: type[BaseModel],
    settings: Any,
    place: str,
    key: str = "",
    *,
    requirements: Mapping[str, str] | None = None,
    more_keys: Sequence[str] = (),
) -> Any:
    """Make a model from a mapping.

    Args:
        model: its class.
        settings: the value in the study file.
        place: the file, for errors.
        key: the dotted path of the settings in the file, for errors.
        requirements: what a value must be, by its dotted path (`policies.*`), in place of the usual words.
        more_keys: keys that are allowed beside the model's own, for the advice about an unknown key.

    Raises:
        StudyError: a setting is wrong.
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
            same_place = [details for details in errors if _path(details, settings) == path]  # one for each union type
            message = _message(same_place, path, requirements or {})
        raise StudyError(_line(place, key, path, message)) from None
    for name in settings:  # Python takes true for 1
        if isinstance(settings[name], bool) and not isinstance(getattr(made, name, True), bool):
            raise StudyError(_line(place, key, (name,), f"must be a number, not {shown(settings[name])}"))
    return made


def _line(place: str, key: str, path: Sequence[str | int], message: str) -> str:
    where = shortened(".".join(str(part) for part in [*([key] if key else []), *path]))
    return f"{place}: {where}: {message}" if where else f"{place}: {message}"


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
    """Return what is wrong at one place: what the value must be, what it is, and the remedy."""
    first = errors[0]
    if first["type"] in {"value_error", "assertion_error"}:
        return " ".join(first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").split())
    if first["type"] == "missing":
        return ERROR_WORDS["missing"]
    dotted = ".".join(map(str, path))
    own = next((words for pattern, words in requirements.items() if fnmatchcase(dotted, pattern)), None)
    words = [own] if own else [_words(error) for error in errors]
    alternatives = [words[0], *(word.removeprefix("must be ") for word in words[1:])]
    requirement, semicolon, remedy = " or ".join(dict.fromkeys(alternatives)).partition(";")
    return f"{requirement}, not {shown(first['input'])}{semicolon}{remedy}"


def _words(error: ErrorDetails) -> str:
    kind = error["type"]
    starts = (words for start, words in ERROR_WORDS.items() if kind.startswith(start))
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
    """Return a value as an error shows it: as YAML writes it, and shortened."""
    return shortened(PLAIN[value] if value is None or isinstance(value, bool) else ascii(value))
