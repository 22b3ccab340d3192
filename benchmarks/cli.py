"""The commands of `balbench`: a thin layer on `balbench.api`. A command imports large libraries when it runs."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from balbench.benchmarks.arguments import given_path
from balbench.benchmarks.console import say, standard_output
from balbench.benchmarks.gate import app as gate_commands
from balbench.harness.errors import StudyError

if TYPE_CHECKING:
    from balbench.harness.rounds.task import Features

app = typer.Typer(
    help="How many human preference labels does active learning save? Simulate, measure, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a shipped study, or path of a YAML file.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. posterior.members=10."),
]
SeedsOption = Annotated[int | None, typer.Option("--seeds", help="Number of seeds to run (3 means 0, 1 and 2).")]
ReferenceSeedsOption = Annotated[
    int | None,
    typer.Option(
        "--reference-seeds",
        help="Number of seeds of the reference  [default: 20, or twice the number of seeds if that is more]",
    ),
]
UntilWidthOption = Annotated[
    float | None,
    typer.Option(
        "--until-width",
        metavar="SHARE",
        help="Add seeds until the intervals of all policies are at most this wide (0.2 is a fifth of the labels).",
    ),
]
MaxSeedsOption = Annotated[
    int | None, typer.Option("--max-seeds", help="Largest number of seeds with --until-width  [default: 40]")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", parser=given_path, metavar="PATH", help="Run directory  [default: runs/<study name>]"),
]
JobsOption = Annotated[int | None, typer.Option("--jobs", help="Worker processes on CPUs  [default: one per core]")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda (all GPUs) or cuda:i.")]
FleetOption = Annotated[
    int | None,
    typer.Option(
        "--fleet", help="Cells that run together  [default: up to 8 with small heads on a CPU, what fits on a GPU]"
    ),
]
SharingOption = Annotated[int, typer.Option("--fleets-per-device", help="Worker processes that share a GPU.")]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="Dask: tcp://HOST:PORT, or local:N.",
    ),
]
FeaturesOption = Annotated[
    str, typer.Option("--features", help="auto, resident (on the device) or streamed (to the device).")
]
GraceOption = Annotated[
    float, typer.Option("--grace", metavar="SECONDS", help="Time that running rounds may take after SIGTERM.")
]
ReuseOption = Annotated[
    bool | None,
    typer.Option(
        "--reuse/--no-reuse", help="Copy finished cells from other run directories of this machine  [default: reuse]"
    ),
]


class Kind(StrEnum):
    """Kinds of components, and studies."""

    policies = "policies"
    posteriors = "posteriors"
    oracles = "oracles"
    datasets = "datasets"
    studies = "studies"


def _print_version(given: bool) -> None:
    if given:
        from balbench import __version__

        say(standard_output(), f"balbench {__version__}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
]


@app.callback()
def _options(version: VersionOption = False) -> None:
    """Accept the options that come before the command."""


@app.command()
def run(
    study: StudyArgument,
    out: OutOption = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    seeds: SeedsOption = None,
    reference_seeds: ReferenceSeedsOption = None,
    override: SetOption = None,
    fleet: FleetOption = None,
    fleets_per_device: SharingOption = 1,
    cluster: ClusterOption = None,
    features: FeaturesOption = "auto",
    grace: GraceOption = 10.0,
    reuse: ReuseOption = None,
    until_width: UntilWidthOption = None,
    max_seeds: MaxSeedsOption = None,
) -> None:
    """Run the unfinished cells of a study, write its report, and print what each policy saved."""
    from balbench.api import run_study
    from balbench.benchmarks.running import run_and_report

    run_cells = partial(
        run_study,
        study,
        out,
        until_width=until_width,
        max_seeds=max_seeds,
        seeds=seeds,
        reference_seeds=reference_seeds,
        overrides=override or (),
        jobs=jobs,
        device=device,
        fleet=fleet,
        fleets_per_device=fleets_per_device,
        cluster=cluster,
        features=cast("Features", features),
        grace=grace,
        reuse=reuse,
    )
    raise typer.Exit(run_and_report(run_cells))


@app.command()
def transfer(
    run: RunArgument,
    posterior: Annotated[
        list[str],
        typer.Option(
            "--posterior",
            metavar="NAME|{...}",
            help="Posterior that learns, e.g. bayesian_linear or '{name: ensemble, members: 10}' (repeat for several).",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", parser=given_path, metavar="PATH", help="Run directory  [default: RUN-NAME]")
    ] = None,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    fleet: FleetOption = None,
    fleets_per_device: SharingOption = 1,
    cluster: ClusterOption = None,
    features: FeaturesOption = "auto",
    grace: GraceOption = 10.0,
    reuse: ReuseOption = None,
) -> None:
    """Train other posteriors on the labels that each policy of a run bought, and print what these models saved."""
    from balbench.api import transfer as transfer_run
    from balbench.benchmarks.running import run_and_report
    from balbench.harness.study.yaml_file import value_of

    run_cells = partial(
        transfer_run,
        run,
        [value_of(text, "posterior") for text in posterior],
        out,
        jobs=jobs,
        device=device,
        fleet=fleet,
        fleets_per_device=fleets_per_device,
        cluster=cluster,
        features=cast("Features", features),
        grace=grace,
        reuse=reuse,
    )
    raise typer.Exit(run_and_report(run_cells))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=given_path, metavar="PATH", help="Directory of the report  [default: RUN/report]"),
    ] = None,
) -> None:
    """Write the report of one or several runs, finished or not."""
    from balbench.benchmarks.running import write_and_print
    from balbench.harness.files import check_directory
    from balbench.run import read_run

    if out is not None:
        check_directory(out)
    read = [read_run(path) for path in runs]
    if out is None and len(read) > 1:
        raise StudyError("out: must be given for the report of several runs", setting="out")
    write_and_print(read, out or runs[0] / "report", force=True)


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="The kind to list.")],
    name: Annotated[str | None, typer.Argument(help="Name of the component or study to describe.")] = None,
) -> None:
    """List the components and shipped studies, or describe one of them with its settings."""
    from balbench.api import study_path
    from balbench.benchmarks.listing import component_details, components_table, studies_table

    if name is None:
        standard_output().print(studies_table() if kind is Kind.studies else components_table(kind.value))
    elif kind is Kind.studies:
        say(standard_output(), study_path(name).read_text(encoding="utf-8").rstrip())
    else:
        standard_output().print(component_details(kind.value, name))


@app.command()
def status(run: RunArgument) -> None:
    """Show the progress of a run, and what failed."""
    from balbench.benchmarks.listing import status_table
    from balbench.run import read_run

    standard_output().print(status_table(read_run(run)))


@app.command()
def claims(
    run: RunArgument,
    file: Annotated[
        Path | None, typer.Option("--claims", metavar="FILE", help="A YAML file of claims  [default: shipped claims]")
    ] = None,
) -> None:
    """Print the claims of papers beside what a run measured, with verdicts."""
    from balbench.benchmarks.claims import SHIPPED_CLAIMS, claims_parts, compared, read_claims
    from balbench.run import read_run

    checked = read_claims(file or SHIPPED_CLAIMS)
    for part in claims_parts(checked, compared(checked, read_run(run))):
        standard_output().print(part)


@app.command()
def power(
    run: RunArgument,
    effect: Annotated[float, typer.Option(help="Savings to find, as a share of labels.")] = 0.1,
    width: Annotated[float, typer.Option(help="Width of the 95% interval, as a share of labels.")] = 0.2,
    power: Annotated[float, typer.Option(help="Chance of finding the effect.")] = 0.8,
    metric: Annotated[str, typer.Option(help="log_likelihood, accuracy or brier.")] = "log_likelihood",
) -> None:
    """Print how many seeds a study like this run needs for a narrow interval, or to find savings of some size."""
    from balbench.benchmarks.power import power_parts
    from balbench.reports.power import power_table
    from balbench.run import read_run

    table = power_table(read_run(run), effect, width, power, metric)
    for part in power_parts(table, effect, width, power):
        standard_output().print(part)


@app.command()
def cache(
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="KEY", help="Remove this data set (repeat for several).")
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", metavar="DAYS", help="Remove data sets unused for this many days."),
    ] = None,
) -> None:
    """List the data sets in the cache, or remove some. A run that needs a removed data set builds it again."""
    from balbench.benchmarks.cache import cache_table, remove_data

    if remove or older_than is not None:
        remove_data(remove or [], older_than)
    else:
        standard_output().print(cache_table())


@app.command()
def check(
    study: StudyArgument,
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    seeds: SeedsOption = None,
    reference_seeds: ReferenceSeedsOption = None,
    override: SetOption = None,
    fleet: FleetOption = None,
    fleets_per_device: SharingOption = 1,
    cluster: ClusterOption = None,
    features: FeaturesOption = "auto",
) -> None:
    """Check a study; print its cells, where they would run, and the estimated memory and time. Runs nothing."""
    from balbench.api import load_study
    from balbench.benchmarks.estimate import plan
    from balbench.harness.running.placement import Placement

    placement = Placement(jobs, device, fleet, fleets_per_device, cluster, cast("Features", features))
    placement.check()
    checked = load_study(study, overrides=override or (), seeds=seeds, reference_seeds=reference_seeds)
    standard_output().print(plan(checked, placement))


@app.command()
def init(
    data: Annotated[Path, typer.Argument(metavar="FILE", help="A file or directory of preferences.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", parser=given_path, metavar="PATH", help="The study file  [default: the data file's name.yaml]"
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Transformers model  [default: all-MiniLM-L6-v2]")
    ] = None,
) -> None:
    """Write a study file for a file of preferences, with settings that suit its size."""
    from balbench.benchmarks.init import write_study

    study, lines = write_study(data, out, encoder)
    for line in lines:
        say(standard_output(), line)
    say(standard_output(), f"wrote {study}; next: balbench check {study}")


app.add_typer(gate_commands)
