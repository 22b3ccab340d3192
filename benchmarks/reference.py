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

The keys of a study file, and every component with its settings. `balbench list KIND NAME` prints a part of this page.
`python -m balbench.benchmarks.reference > docs/reference.md` writes it anew.
"""


def page() -> str:
    """Return the page as Markdown."""
    from balbench.harness.study.cell import Protocol
    from balbench.harness.study.study_file import StudyFile

    lines = [HEAD, "## study file", ""]
    lines += [*_settings(StudyFile), "### protocol", "", *_settings(Protocol)]
    for kind in registry.KINDS:
        lines += [f"## {kind}", ""]
        for name in registry.BUILT_IN[kind]:
            lines += _component(kind, name)
    return "\n".join(lines).rstrip() + "\n"


def _component(kind: str, name: str) -> Iterator[str]:
    component = registry.load(kind, name)
    yield from (f"### {name}", "", inspect.cleandoc(component.__doc__ or ""), "")
    if kind == "policies":
        yield from (f"Source: {component.source}. Cost: {component.cost}.", "")
    yield from _settings(component)
    for line in preset_lines(component):
        yield from (f"- {line}",)
    if preset_lines(component):
        yield ""


def _settings(model: type[BaseModel]) -> list[str]:
    rows: list[Any] = setting_rows(model)
    if not rows:
        return ["There are no settings.", ""]
    body = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {line} |" for line in [" | ".join(SETTING_COLUMNS), "---|---|---|---", *body]] + [""]


if __name__ == "__main__":
    print(page(), end="")
