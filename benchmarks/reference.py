"""Write docs/reference.md: `python -m balbench.benchmarks.reference > docs/reference.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from balbench.benchmarks.listing import SETTING_COLUMNS, preset_lines, setting_rows
from balbench.harness import registry

if TYPE_CHECKING:
    from pydantic import BaseModel

HEAD = """# Reference

The commands, the keys of a study file, and every component with its settings. `balbench list KIND NAME` prints one
component. `python -m balbench.benchmarks.reference > docs/reference.md` generates this page.
"""


def page() -> str:
    """Return the page as Markdown."""
    from balbench.harness.study.cell import Protocol
    from balbench.harness.study.study_file import StudyFile

    lines = [HEAD, "## commands", "", *_commands(), "## study file", ""]
    lines += [*_settings(StudyFile), "### protocol", "", *_settings(Protocol)]
    for kind in registry.KINDS:
        lines += [f"## {kind}", ""]
        for name in registry.BUILT_IN[kind]:
            lines += _component(kind, name)
    return "\n".join(lines).rstrip() + "\n"


def _commands() -> Iterator[str]:
    """Describe each command of the command line, with its options."""
    from typer.main import get_command

    from balbench.benchmarks.cli import app

    group: Any = get_command(app)
    for name, command in group.commands.items():
        arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
        yield from (f"### {' '.join(['balbench', name, *arguments])}", "", _flat(command.help), "")
        options = [option for option in command.params if option.param_type_name == "option"]
        if options:
            yield from ("| option | meaning |", "|---|---|", *map(_option, options), "")


def _option(option: Any) -> str:
    shows_default = option.default not in (None, False, ()) and "[default" not in option.help
    default = f" [default: {option.default}]" if shows_default else ""
    return f"| `{option.opts[-1]}` | {_flat(option.help)}{default} |"


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("<", "\\<")


def _component(kind: str, name: str) -> Iterator[str]:
    component = registry.load(kind, name)
    yield from (f"### {name}", "", inspect.cleandoc(component.__doc__ or ""), "")
    if kind == "policies":
        yield from (f"Source: {component.source}. Cost: {component.cost}.", "")
    yield from _settings(component)
    if presets := preset_lines(component):
        yield from (*(f"- {line}" for line in presets), "")


def _settings(model: type[BaseModel]) -> list[str]:
    rows: list[Any] = setting_rows(model)
    if not rows:
        return ["There are no settings.", ""]
    body = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {line} |" for line in [" | ".join(SETTING_COLUMNS), "---|---|---|---", *body]] + [""]


if __name__ == "__main__":
    print(page(), end="")
