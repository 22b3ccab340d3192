"""`balbench run` and `balbench report`: results in the terminal, and exit codes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from balbench.api import CellsFailedWarning, Run, Terminated
from balbench.benchmarks.console import say, standard_error, standard_output
from balbench.benchmarks.exit_codes import FAILED_CELLS, INTERRUPTED, TERMINATED


def run_and_report(run_cells: Callable[[], Run]) -> int:
    """Run the unfinished cells of a study, write its report, print the savings, and return the exit code.

    Args:
        run_cells: `run_study` or `transfer` with all arguments.

    Raises:
        BalbenchError: an input is invalid; all complete rounds are kept.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CellsFailedWarning)
            run = run_cells()
    except KeyboardInterrupt as error:
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    try:
        write_and_print([run], run.path / "report")
    except (KeyboardInterrupt, SystemExit) as stop:
        code = stop.code if isinstance(stop, SystemExit) else INTERRUPTED
        if code in (INTERRUPTED, TERMINATED):
            say(
                standard_error(),
                f"stopped: all rounds are kept; `balbench report {_from_here(run.path)}` writes the report",
            )
        raise SystemExit(code) from None
    return FAILED_CELLS if len(run.failed) else 0


def write_and_print(runs: Sequence[Run], out: Path, force: bool = False) -> None:
    """Write the report and print the savings tables and the report's path."""
    from balbench.reports.analysis import analyse
    from balbench.reports.page import write_report
    from balbench.reports.terminal import terminal_parts

    analyses = analyse(runs)
    page = write_report(analyses, out, force=force)
    console = standard_output()
    for part in terminal_parts(analyses):
        console.print(part)
    say(console, f"report: {_from_here(page)}")


def _from_here(path: Path) -> Path:
    """Return a path relative to the working directory, if it is below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
