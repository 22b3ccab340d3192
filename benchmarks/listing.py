"""Tables for `balbench list` and `balbench status`."""

from __future__ import annotations

import inspect
import json
from typing import Any

from pydantic import BaseModel
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from balbench.harness import registry
from balbench.harness.errors import StudyError
from balbench.harness.results import Run


def components_table(kind: str) -> Table:
    """List what a study file can name of a kind and, for policies, family, source and cost."""
    more = ["family", "source", "cost"] if kind == "policies" else []
    caption = f"settings: balbench list {kind} NAME"
    table = Table("name", *more, "what", caption=caption, caption_justify="left")
    table.columns[0].no_wrap = True
    for name in registry.names(kind):
        try:
            component = registry.load(kind, name)
        except StudyError as error:
            table.add_row(name, *([""] * len(more)), escape(str(error)))
            continue
        row = [name, *(getattr(component, column, "") for column in more), _documentation(component)[0]]
        table.add_row(*map(escape, row))
    return table


def component_details(kind: str, name: str) -> Group:
    """What one component does, its settings with their defaults, and its presets.

    Raises:
        StudyError: nothing has that name.
    """
    component = registry.load(kind, name)
    table = Table("setting", "default", "values", title=f"{kind}: {name}", title_justify="left")
    for setting, field in component.model_fields.items():
        default = "required" if field.is_required() else json.dumps(field.get_default(), default=str)
        table.add_row(*map(escape, (setting, default, _values(component, setting))))
    lines = [escape("\n".join(_documentation(component)))]
    lines += [escape("\n".join(_attributes(base))) for base in component.__mro__[1:] if _attributes(base)]
    fields = component.model_fields.items()
    told = [f"    {setting}: {field.description}." for setting, field in fields if field.description]
    lines += [escape("\n".join(["Settings:", *told]))] if told else []
    for preset, settings in (getattr(component, "presets", None) or {}).items():
        shown = ", ".join(f"{setting} {json.dumps(value, default=str)}" for setting, value in settings.items())
        lines.append(escape(f"preset {preset}: {shown or 'the defaults'}"))
    return Group(table, *lines)


def _attributes(base: type) -> list[str]:
    """What a class says of settings that others inherit."""
    if not issubclass(base, BaseModel) or base.__module__.startswith("pydantic"):
        return []
    lines = _documentation(base)
    start = next((number for number, line in enumerate(lines) if line.startswith("Attributes")), len(lines))
    return [f"Attributes of {base.__name__}:", *lines[start + 1 :]] if start < len(lines) else []


def _documentation(component: type) -> list[str]:
    return (inspect.cleandoc(component.__doc__ or "") or "-").splitlines()


def _values(component: Any, setting: str) -> str:
    """The values that a setting may take, in the words of its JSON schema."""
    schema = component.model_json_schema()["properties"][setting]
    kinds = [_one_kind(kind) for kind in schema.get("anyOf", [schema])]
    return " or ".join(dict.fromkeys(kinds))


def _one_kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return " ".join([str(schema.get("type", "any")), *limits])


def studies_table() -> Table:
    """List the shipped studies."""
    from balbench.api import shipped_studies
    from balbench.harness.study.yaml_file import read_yaml

    table = Table("study", "what it asks")
    for name, path in shipped_studies().items():
        table.add_row(name, escape(" ".join(str(read_yaml(path).get("description", "")).split())))
    return table


def status_table(run: Run) -> Table:
    """One row for each setting and policy: cells by state, rounds done, what failed."""
    cells = run.cells
    total, done = int(cells["rounds"].sum()), int(cells["rounds_done"].sum())
    caption = f"{(cells['state'] == 'finished').sum()} of {len(cells)} cells, {done} of {total} rounds"
    table = Table("setting", "policy", "finished", "unfinished", "failed", "rounds", title=run.name, caption=caption)
    for (setting, policy), group in cells.groupby(["setting", "policy"], sort=False):
        states = group["state"].value_counts()
        unfinished = states.get("running", 0) + states.get("waiting", 0)
        reasons = "; ".join(sorted(set(group["reason"]) - {""}))
        failed = f"{states.get('failed', 0)}" + (f" ({reasons})" if reasons else "")
        rounds = f"{group['rounds_done'].sum()} / {group['rounds'].sum()}"
        row = [str(setting), str(policy), str(states.get("finished", 0)), str(unfinished), failed, rounds]
        table.add_row(*map(escape, row))
    return table
