"""Tables for `balbench list` and `balbench status`."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from harness import registry
from harness.results import Run


def components_table(kind: str) -> Table:
    """List what a study file can name of a kind, with settings and, for policies, family, source and cost."""
    more = ["family", "source", "cost"] if kind == "policies" else []
    table = Table("name", *more, "what", "settings")
    for name in registry.names(kind):
        component = registry.load(kind, name)
        what = (component.__doc__ or "").split("\n")[0]
        settings = ", ".join(component.model_fields)
        row = [name, *(getattr(component, column, "") for column in more), what, settings]
        table.add_row(*map(escape, row))
    return table


def studies_table(directory: Path) -> Table:
    """List the shipped studies."""
    from harness.study import read_yaml

    table = Table("study", "what it asks")
    for path in sorted(directory.rglob("*.yaml")):
        name = path.relative_to(directory).with_suffix("").as_posix()
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
