"""The commands `baseline`, `gate` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balbench.benchmarks.arguments import given_path
from balbench.benchmarks.console import say, standard_output
from balbench.benchmarks.exit_codes import CANNOT_TELL, INTERRUPTED, REGRESSED, TERMINATED

if TYPE_CHECKING:
    from balbench.gating import Gate

app = typer.Typer()
BaselineArgument = Annotated[Path, typer.Argument(metavar="BASELINE", help="A file of `balbench baseline`.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
FileOption = Annotated[Path, typer.Option("--out", parser=given_path, metavar="PATH", help="The file to write.")]


@app.command()
def baseline(
    run: RunArgument,
    out: FileOption = Path("baseline.json"),
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="POLICY", help="Keep this policy (repeat for several)  [default: all]"),
    ] = None,
) -> None:
    """Write the baseline of a run: a small file with which `gate` compares later versions of its policies."""
    from balbench.gating import baseline as take_baseline
    from balbench.harness.machine import count

    taken = take_baseline(run, out, policies=policies or None)
    labels = ", ".join(f"{each.title}, {count(len(each.seeds_S), 'seed')}" for each in taken.records)
    say(standard_output(), f"wrote {out} ({out.stat().st_size / 1024:.0f} KB): {labels}")


@app.command()
def gate(
    baseline: BaselineArgument,
    candidate: Annotated[
        str, typer.Argument(metavar="STUDY|RUN", help="A study, whose tested policies run, or a run directory.")
    ],
    policies: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="POLICY|NEW=OLD",
            help="Test this policy; NEW=OLD if the baseline calls it OLD (repeat for several)  [default: all of the "
            "baseline but its reference]",
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Largest loss that passes, as a share of labels or of the baseline's gain.")
    ] = 0.05,
    alpha: Annotated[float, typer.Option(help="Largest chance of a false alarm, and of missing a loss.")] = 0.05,
    metric: Annotated[str, typer.Option(help="log_likelihood, accuracy or brier.")] = "log_likelihood",
    split: Annotated[str, typer.Option(help="test or ood.")] = "test",
    cost: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Test the seconds of selection too, relative to the reference's; this rise passes (0.5: half as many "
            "again)  [default: not tested]",
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown.")] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="STEM", help="Write a figure as STEM.png, .pdf, .svg and .csv.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=given_path,
            metavar="PATH",
            help="Run directory of a study  [default: runs/<study name>-gate-<hash>]",
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Worker processes on CPUs  [default: one per core]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:i.")] = "auto",
) -> None:
    """Test whether policies got worse than their baseline. Exit codes: 0 pass, 1 regressed, 3 cannot tell."""
    from balbench.api import Terminated
    from balbench.gating import gate as run_gate

    try:
        found = run_gate(
            baseline,
            candidate,
            policies=policies or None,
            margin=margin,
            alpha=alpha,
            metric=metric,
            split=split,
            cost=cost,
            out=out,
            jobs=jobs,
            device=device,
        )
    except KeyboardInterrupt as error:
        raise typer.Exit(TERMINATED if isinstance(error, Terminated) else INTERRUPTED) from None
    _write(found, junit, markdown, figure)
    _print(found)
    raise typer.Exit(_exit_code(found))


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A run directory.")],
    new: Annotated[
        Path | None, typer.Argument(metavar="NEW", help="Another; without it, two policies of OLD are compared.")
    ] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="POLICY", help="Compare this policy (repeat for several)  [default: all]"),
    ] = None,
    metric: Annotated[str, typer.Option(help="log_likelihood, accuracy or brier.")] = "log_likelihood",
    split: Annotated[str, typer.Option(help="test or ood.")] = "test",
    figure: Annotated[
        Path | None, typer.Option(metavar="STEM", help="Write a figure as STEM.png, .pdf, .svg and .csv.")
    ] = None,
) -> None:
    """Compare two runs policy by policy, or two policies of one run, with intervals and what differs."""
    from balbench.gating import compare as compare_runs
    from balbench.reports.compare_text import comparison_table, sentences

    found = compare_runs(old, new, policies=policies or None, metric=metric, split=split)
    if figure is not None:
        from balbench.reports.figures.compare import write

        write(found, figure)
    console = standard_output()
    console.print(comparison_table(found))
    for line in sentences(found):
        say(console, line)


def _write(found: Gate, junit: Path | None, markdown: Path | None, figure: Path | None) -> None:
    from balbench.reports.files import write_bytes

    for path, text in ((junit, found.junit), (markdown, found.markdown)):
        if path is not None:
            write_bytes(path, text().encode())
    if figure is not None:
        from balbench.reports.figures.gate import write

        write(found, figure)


def _print(found: Gate) -> None:
    from balbench.reports.gate_text import gate_table, sentence

    console = standard_output()
    console.print(gate_table(found))
    for each in found.policies:
        say(console, sentence(each, found.rules.alpha))


def _exit_code(found: Gate) -> int:
    from balbench.reports.gate import Verdict

    return {Verdict.PASS: 0, Verdict.REGRESSED: REGRESSED, Verdict.CANNOT_TELL: CANNOT_TELL}[found.verdict]
