"""The command line: `balbench run|report|list|status|check`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import re
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console

from balbench.benchmarks.console import TERMINATED, wide_console
from balbench.harness.errors import BalbenchError, StudyError

if TYPE_CHECKING:
    from balbench.harness.rounds.worker import Features

UsageError: Any = typer.BadParameter.__base__  # typer has no public name for it
# Typer's words for a bad value -> those of all other messages.
PLAINER = (
    (r"^Invalid value for '([^']+)'", r"\1"),
    (r"Value error, ", ""),
    (r"Input should be a valid", "must be a valid"),
    (r", unable to parse string as an? \w+", ""),
)
# Settings of `run_study` that error messages name.
SETTINGS = {
    *("out", "seeds", "override", "overrides", "jobs", "device", "fleet", "fleets_per_device"),
    *("cluster", "features", "grace", "reuse"),
}
FLAGS = {"override": "--set", "overrides": "--set"}  # the others have flags of the same name

app = typer.Typer(
    help="How many human preference labels does active learning save? Simulate, measure, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a shipped study, or path of a YAML file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. posterior.members=10."),
]
SeedsOption = Annotated[int | None, typer.Option("--seeds", help="Run this many seeds (0, 1, ...).")]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run directory  [default: runs/<study name>]")]
JobsOption = Annotated[int | None, typer.Option("--jobs", help="Worker processes  [default: one a core]")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda (all GPUs) or cuda:i.")]
FleetOption = Annotated[
    int | None,
    typer.Option(
        "--fleet", help="Cells that run together  [default: up to 8 with small heads on a CPU, what fits on a GPU]"
    ),
]
SharingOption = Annotated[int, typer.Option("--fleets-per-device", help="Processes that share a GPU.")]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="ADDRESS", help="Dask: tcp://HOST:PORT, or local:N.")
]
FeaturesOption = Annotated[
    str, typer.Option("--features", help="auto, resident (on the device) or streamed (to the device).")
]
GraceOption = Annotated[
    float, typer.Option("--grace", metavar="SECONDS", help="Time that running rounds have left after SIGTERM.")
]


class Kind(StrEnum):
    """What `balbench list` can list."""

    policies = "policies"
    posteriors = "posteriors"
    oracles = "oracles"
    datasets = "datasets"
    studies = "studies"


@app.command()
def run(
    study: StudyArgument,
    out: OutOption = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    seeds: SeedsOption = None,
    override: SetOption = None,
    fleet: FleetOption = None,
    fleets_per_device: SharingOption = 1,
    cluster: ClusterOption = None,
    features: FeaturesOption = "auto",
    grace: GraceOption = 10.0,
) -> None:
    """Run a study (or what is left of it), write its report and print what each policy saved."""
    from balbench.benchmarks.running import run_and_report

    code = run_and_report(
        study,
        out,
        seeds=seeds,
        overrides=override or (),
        jobs=jobs,
        device=device,
        fleet=fleet,
        fleets_per_device=fleets_per_device,
        cluster=cluster,
        features=cast("Features", features),
        grace=grace,
    )
    raise typer.Exit(code)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write  [default: RUN/report]")] = None,
) -> None:
    """Write the report of one or several runs, finished or not, from the rounds that are there."""
    from balbench.api import read_run
    from balbench.benchmarks.running import write_and_print
    from balbench.harness.files import check_directory

    if out is not None:
        check_directory(out)
    read = [read_run(path) for path in runs]
    if out is None and len(read) > 1:
        raise StudyError("out: must be given for the report of several runs", setting="out")
    write_and_print(read, out or runs[0] / "report", force=True)


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    name: Annotated[str | None, typer.Argument(help="One of them, with its settings.")] = None,
) -> None:
    """List what a study can name, or the settings of one of them."""
    from balbench.api import study_path
    from balbench.benchmarks.listing import component_details, components_table, studies_table

    if name is None:
        wide_console().print(studies_table() if kind is Kind.studies else components_table(kind.value))
    elif kind is Kind.studies:
        wide_console().print(
            study_path(name).read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True
        )
    else:
        wide_console().print(component_details(kind.value, name))


@app.command()
def status(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]) -> None:
    """Say how far a run is."""
    from balbench.api import read_run
    from balbench.benchmarks.listing import status_table

    wide_console().print(status_table(read_run(run)))


@app.command()
def check(
    study: StudyArgument,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    seeds: SeedsOption = None,
    override: SetOption = None,
    fleet: FleetOption = None,
    fleets_per_device: SharingOption = 1,
    cluster: ClusterOption = None,
    features: FeaturesOption = "auto",
) -> None:
    """Check a study and print its cells, where they would run, and estimated memory and time. Runs nothing."""
    from balbench.api import load_study
    from balbench.benchmarks.estimate import plan
    from balbench.harness.running.placement import Placement

    placement = Placement(jobs, device, fleet, fleets_per_device, cluster, cast("Features", features))
    placement.check()
    checked = load_study(study, overrides=override or (), seeds=seeds)
    wide_console().print(plan(checked, placement))


def main() -> None:
    """Run the command line.

    Exit code 0, 1 (cells failed), 2 (something to mend), 130 (stopped by Ctrl-C), 143 (stopped by SIGTERM: what runs
    may come back within --grace; a second signal stops at once).
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(app(prog_name="balbench", standalone_mode=False) or 0)
    except BalbenchError as error:
        _refuse(with_flags(error))
    except UsageError as error:
        _refuse(_usage(error))
    except MemoryError as error:
        told = f" ({str(error).splitlines()[0]})" if str(error) else ""
        _refuse(f"out of memory{told}; make the study smaller")
    except BrokenPipeError:
        sys.exit(1)


def with_flags(error: BalbenchError) -> str:
    """Return an error's message with flags in place of the settings that it names."""
    message = str(error)
    if error.setting is not None and message.startswith(error.setting):
        message = _flag(error.setting) + message.removeprefix(error.setting)
    return re.sub(r"`(\w+)`", lambda match: _flag(match[1]) if match[1] in SETTINGS else match[0], message)


def _flag(setting: str) -> str:
    return FLAGS.get(setting, f"--{setting.replace('_', '-')}")


def _refuse(message: str) -> NoReturn:
    Console(stderr=True).print(
        f"balbench: {message}", style="bold", highlight=False, markup=False, emoji=False, soft_wrap=True
    )
    sys.exit(2)


def _usage(error: Any) -> str:
    """What is wrong with the arguments, in one line with the place and the remedy."""
    if not sys.argv[1:]:  # the help was printed
        return "no command; give one of those above"
    told = " ".join(error.format_message().split()).rstrip(".")
    for theirs, ours in PLAINER:
        told = re.sub(theirs, ours, told)
    place = error.ctx.command_path if error.ctx else "balbench"
    return f"{told[:1].lower()}{told[1:]} (see {place} --help)"


def _terminate(number: int, frame: object) -> NoReturn:
    """Stop where no run is under way (benchmarks/running.py heeds it during one). Nothing may be imported here."""
    sys.exit(TERMINATED)


if __name__ == "__main__":
    main()
