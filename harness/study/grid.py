"""The settings of a study: all combinations of its posteriors and of the values of its grid."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from balbench.harness.errors import StudyError, shortened
from balbench.harness.study.cell import digest
from balbench.harness.study.settings import shown
from balbench.harness.study.study_file import StudyFile
from balbench.harness.study.yaml_file import set_path

GRID_ROOTS = ("dataset", "oracle", "posterior", "policies", "protocol")


class _Value(NamedTuple):
    """A value of a key that varies, with its name in the names of settings."""

    name: str
    value: Any


def number_of_settings(file: StudyFile) -> int:
    """Return the number of settings, 1 if nothing varies."""
    return math.prod(map(len, _varied(file).values()))


def settings_of(file: StudyFile, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the study keys of each setting; the name is empty if nothing varies.

    Raises:
        StudyError: a key of the grid cannot vary, or its values are invalid.
    """
    _check_grid(file, source)
    varied = _varied(file)
    for values in product(*varied.values()):
        raw = file.model_dump(mode="json") | {"posteriors": {}}
        for key, (_, value) in zip(varied, values, strict=True):
            set_path(raw, key, copy.deepcopy(value), f"{source}: grid: {shortened(key)}")
        yield ", ".join(f"{key}={name}" for key, (name, _) in zip(varied, values, strict=True)), raw


def _varied(file: StudyFile) -> dict[str, list[_Value]]:
    """Return the values of each key that varies. The posteriors are first, so that the grid can set their keys."""
    posteriors = [_Value(label, settings) for label, settings in file.posteriors.items()]
    grid = {key: [_Value(value_name(each, values), each) for each in values] for key, values in file.grid.items()}
    return ({"posterior": posteriors} if posteriors else {}) | grid


def value_name(value: Any, choices: Sequence[Any]) -> str:
    """Return the name of a grid value: a component's name, with its settings if other values have the same name."""
    if not isinstance(value, dict) or "name" not in value:
        return str(value)
    names = [choice.get("name") if isinstance(choice, dict) else choice for choice in choices]
    settings = ", ".join(f"{key} {inner}" for key, inner in value.items() if key != "name")
    return f"{value['name']} ({settings})" if names.count(value["name"]) > 1 and settings else str(value["name"])


def _check_grid(file: StudyFile, source: str) -> None:
    names = list(file.grid)
    for number, (name, choices) in enumerate(file.grid.items()):
        here = f"{source}: grid: {shortened(name)}"
        if name.split(".")[0] not in GRID_ROOTS:
            raise StudyError(f"{source}: grid: {shown(name)}: only parts of {', '.join(GRID_ROOTS)} can vary")
        if name == "posterior" and file.posteriors:
            raise StudyError(f"{here}: `posteriors` gives the posteriors already; remove one of the two")
        if not choices:
            raise StudyError(f"{here}: the list of values is empty; give some or remove the key")
        if len({digest(choice) for choice in choices}) < len(choices):
            raise StudyError(f"{here}: a value occurs twice in {shown(choices)}; remove one")
        if inner := [other for other in names[:number] if other.startswith(f"{name}.")]:
            raise StudyError(f"{here}: replaces {shown(inner[0])}, which comes before it; put {shown(name)} first")
