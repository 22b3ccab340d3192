"""Tables for `balbench list` and `balbench status`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from balbench.benchmarks.class_source import class_source
from balbench.harness import registry
from balbench.harness.errors import StudyError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from balbench.harness.results import Run


SETTING_COLUMNS = ("setting", "default", "values", "meaning")


def components_table(kind: str) -> Table:
    """Return a table of the components of a kind; for policies with family, source and cost."""
    columns = ["family", "source", "cost"] if kind == "policies" else []
    caption = f"settings: balbench list {kind} NAME"
    table = Table("name", *columns, "description", caption=caption, caption_justify="left")
    table.columns[0].no_wrap = True
    for name in registry.names(kind):
        facts, summary = _facts(kind, name, columns)
        table.add_row(*map(escape, (name, *facts, summary)))
    return table


def _facts(kind: str, name: str, columns: Sequence[str]) -> tuple[list[str], str]:
    """Return texts of a class, and the first line of its docstring; only plug-ins are imported for these facts."""
    module, _, attribute = registry.BUILT_IN[kind].get(name, "").partition(":")
    source = class_source(module, attribute) if module else None
    if source is not None:
        return [source.constant(column) for column in columns], _first_line(source.docstring)
    try:
        component = registry.load(kind, name)
    except StudyError as error:
        return [""] * len(columns), str(error)
    return [getattr(component, column, "") for column in columns], _first_line(inspect.getdoc(component) or "")


def _first_line(docstring: str) -> str:
    return docstring.partition("\n")[0] or "-"


def component_details(kind: str, name: str) -> Group:
    """Return a table of one component's settings with defaults and meaning, its description and its presets.

    Raises:
        StudyError: no component has that name.
    """
    component = registry.load(kind, name)
    lines = [f"{kind}: {name}", "", *(inspect.cleandoc(component.__doc__ or "").splitlines())]
    table = Table(*SETTING_COLUMNS)
    table.columns[0].no_wrap = True
    for row in setting_rows(component):
        table.add_row(*map(escape, row))
    settings = [table] if table.row_count else ["There are no settings."]
    return Group(escape("\n".join(lines)), *settings, *map(escape, preset_lines(component)))


def setting_rows(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return name, default, possible values and meaning of each setting (see SETTING_COLUMNS)."""
    rows = []
    for setting, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "required" if field.is_required() else json.dumps(default, default=str)
        rows.append((setting, shown, _values(model, setting), " ".join((field.description or "").split())))
    return rows


def preset_lines(component: Any) -> list[str]:
    """Return one line for each preset of a component, with its settings."""
    presets = getattr(component, "presets", None) or {}
    texts = {
        preset: ", ".join(f"{setting} {json.dumps(value, default=str)}" for setting, value in settings.items())
        for preset, settings in presets.items()
    }
    return [f"preset {preset}: {values or 'the defaults'}" for preset, values in texts.items()]


def _values(component: Any, setting: str) -> str:
    """Describe the values that a setting may take, from its JSON schema."""
    schema = component.model_json_schema()["properties"][setting]
    kinds = [_one_kind(kind) for kind in schema.get("anyOf", [schema])]
    return " or ".join(dict.fromkeys(kinds))


def _one_kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    kind = "mapping" if "$ref" in schema else schema.get("type", "any")
    return " ".join([str(kind), *limits])


def studies_table() -> Table:
    """Return a table of the shipped studies."""
    from balbench.api import shipped_studies
    from balbench.harness.study.yaml_file import read_yaml

    table = Table("study", "description")
    for name, path in shipped_studies().items():
        table.add_row(name, escape(" ".join(str(read_yaml(path).get("description", "")).split())))
    return table


def status_table(run: Run) -> Table:
    """Return a table with one row per setting and policy: cells by state, rounds done, reasons of failures."""
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
