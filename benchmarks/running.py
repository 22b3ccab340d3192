"""`balbench run`: cells, then the report, then the savings in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.progress import Display
from harness.results import Run, RunDirectory, read_run
from harness.scheduler import Outcome, Scheduler, usable_device, usable_jobs
from harness.study import Cell, Study, load_study

INTERRUPTED = 130
PIPE_WIDTH = 120


def run_study(
    path: Path, out: Path | None, jobs: int | None, device: str, seeds: int | None, overrides: tuple[str, ...]
) -> int:
    """Run what is left of a study and report; return the exit code.

    Raises:
        BalbenchError: something to mend; everything already computed is kept.
    """
    device = usable_device(device)
    study = load_study(path, overrides, seeds)
    directory = RunDirectory(out or Path("runs") / study.file.name)
    console = Console(stderr=True)
    with directory.lock():
        directory.adopt(json.loads(study.file.model_dump_json()), [describe(cell) for cell in study.cells])
        try:
            with Display(console) as display:
                outcome = Scheduler(study, directory, usable_jobs(jobs, device), device, display).run()
        except KeyboardInterrupt:
            return _interrupted(study, directory, console)
        write_and_print([read_run(directory.path)], directory.path / "report")
    return _end(outcome, directory, console)


def describe(cell: Cell) -> dict[str, Any]:
    """What study.json says of a cell."""
    own = {"posterior": type(cell.posterior).__name__} if cell.own_posterior else {}
    return {
        "setting": cell.setting,
        "policy": cell.label,
        "seed": cell.seed,
        "key": cell.key,
        "directory": cell.directory,
        "rounds": cell.rounds,
        "full_data": cell.policy.acquires_all,
        "settings": {"name": cell.policy_name, **cell.policy.model_dump(mode="json"), **own},
    }


def write_and_print(runs: list[Run], out: Path, force: bool = False) -> None:
    """Write the report and print the savings tables and the report's path."""
    from reports.page import write_report
    from reports.savings import savings_table
    from reports.tables import terminal_table

    page = write_report(runs, out, force=force)
    console = Console()
    if not console.is_terminal:  # a log or a pipe has no width of its own
        console = Console(width=PIPE_WIDTH)
    for run in runs:
        table = savings_table(run)
        for setting in table["setting"].unique():
            for split in (name for name in ("test", "ood") if name in set(table["split"])):
                console.print(terminal_table(table, setting, split))
    console.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)


def _interrupted(study: Study, directory: RunDirectory, console: Console) -> int:
    rounds = sum(directory.cell(cell.directory).count() for cell in study.cells)
    total = sum(cell.rounds for cell in study.cells)
    console.print(
        f"stopped: {rounds} of {total} rounds are kept in {directory.path}; run the same command to go on",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return INTERRUPTED


def _end(outcome: Outcome, directory: RunDirectory, console: Console) -> int:
    for title, reason in outcome.failed.items():
        console.print(f"failed: {title}: {reason}", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        console.print(
            f"{len(outcome.failed)} cells failed (details: failed.json of each cell in {directory.path}/cells)"
        )
    return 1 if outcome.failed else 0
