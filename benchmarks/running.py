"""`balbench run`: cells, then the report, then the savings in the terminal."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from balbench.benchmarks.console import INTERRUPTED, TERMINATED, say, wide_console
from balbench.harness.results import Run, RunDirectory, read_run
from balbench.harness.running.engines import make_engine
from balbench.harness.running.placement import Placement, count
from balbench.harness.running.progress import Display
from balbench.harness.running.scheduler import Scheduler
from balbench.harness.study.study import Cell, Study, load_study


class Terminated(KeyboardInterrupt):
    """SIGTERM: stop as by Ctrl-C, with another exit code."""


def run_study(path: Path, out: Path | None, placement: Placement, seeds: int | None, overrides: tuple[str, ...]) -> int:
    """Run what is left of a study and report; return the exit code.

    Raises:
        BalbenchError: something to mend; everything already computed is kept.
    """
    placement.check()
    if placement.cluster is None:
        placement.devices()  # a device that is not there is known at once
    study = load_study(path, overrides, seeds)
    directory = RunDirectory(out or Path("runs") / study.file.name)
    console = Console(stderr=True)
    with directory.lock():
        directory.adopt(json.loads(study.file.model_dump_json()), [describe(cell) for cell in study.cells])
        display = Display(console)
        engine = partial(make_engine, placement, directory.path, display.say)
        scheduler = Scheduler(study, directory, placement, engine, display)
        try:
            with _graceful(scheduler):
                with display:
                    outcome = scheduler.run()
                if outcome.stopped:
                    raise Terminated
                write_and_print([read_run(directory.path)], directory.path / "report")
        except KeyboardInterrupt as error:
            _say_stopped(study, directory, console)
            return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    _say_failed(outcome.failed, directory, console)
    return 1 if outcome.failed else 0


@contextmanager
def _graceful(scheduler: Scheduler) -> Iterator[None]:
    """The first SIGTERM lets running tasks come back; one more stops at once, and so does one before there are any."""

    def stop(number: int, frame: object) -> None:
        if not scheduler.busy or scheduler.stopping:
            raise Terminated
        scheduler.stop()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    from balbench.reports.page import write_report
    from balbench.reports.savings import savings_table
    from balbench.reports.tables import terminal_table

    page = write_report(runs, out, force=force)
    console = wide_console()
    for run in runs:
        table = savings_table(run)
        for setting in table["setting"].unique():
            for split in (name for name in ("test", "ood") if name in set(table["split"])):
                console.print(terminal_table(table, setting, split))
    say(console, f"report: {page}")


def _say_stopped(study: Study, directory: RunDirectory, console: Console) -> None:
    logs = {cell.title: directory.cell(cell.directory) for cell in study.cells}
    _say_failed({title: log.failure["reason"] for title, log in logs.items() if log.failure}, directory, console)
    rounds = sum(log.count() for log in logs.values())
    total = sum(cell.rounds for cell in study.cells)
    say(console, f"stopped: {rounds} of {total} rounds are kept in {directory.path}; run the same command to go on")


def _say_failed(failed: dict[str, str], directory: RunDirectory, console: Console) -> None:
    for title, reason in failed.items():
        say(console, f"failed: {title}: {reason}")
    if failed:
        say(
            console,
            f"{count(len(failed), 'cell')} failed (details: failed.json of each cell in {directory.path}/cells)",
        )
