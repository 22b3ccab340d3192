"""The commands of `python -m balbench.benchmarks.trust`; they print tables in Markdown."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from balbench.benchmarks.console import standard_error
from balbench.benchmarks.trust.coverage import Coverage, coverage
from balbench.benchmarks.trust.false_claims import coin_flip_claims, new_pairs_claims
from balbench.benchmarks.trust.gate import SHIPPED, gate_rows
from balbench.benchmarks.trust.gate_population import make_population
from balbench.benchmarks.trust.populations import Population, of_arrays, read_arrays, run_arrays, shipped, write_arrays
from balbench.benchmarks.trust.stopping import FIRST_SEEDS, coverage_after_stopping
from balbench.harness.errors import BalbenchError
from balbench.harness.machine import count
from balbench.harness.results import read_run
from balbench.reports.stopping import StoppingRule

SEEDS = ((3, 20), (5, 20), (10, 20), (20, 40), (5, 5))  # of the policy and of the reference
app = typer.Typer(add_completion=False, help=__doc__)


@app.command("coverage")
def coverage_table(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run directories whose seeds are the population.")] = None,
    studies: Annotated[int, typer.Option(min=1, help="Number of studies in each row.")] = 2000,
) -> None:
    """Measure how often the 95% interval of label savings holds the truth, and how often nothing is claimed as savings.

    Without run directories, the populations are those that come with balbench.
    """
    populations = _populations(runs)
    print("| population | metric | seeds | truth | coverage | too low | too high | bias | width | verdict |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = [(each, seeds) for each in populations for seeds in SEEDS]
    for population, (seeds, reference_seeds) in track(rows, "coverage", console=standard_error()):
        print(_row(coverage(population, seeds, reference_seeds, studies)), flush=True)


@app.command("stopping")
def stopping_table(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run directories whose seeds are the population.")] = None,
    studies: Annotated[int, typer.Option(min=1, help="Number of studies in each row.")] = 1000,
    until_width: Annotated[float, typer.Option(help="Largest width of an interval.")] = 0.2,
    max_seeds: Annotated[int, typer.Option(help="Largest number of seeds.")] = 40,
) -> None:
    """Measure how often the interval holds the truth where seeds were added until it was narrow."""
    rule = StoppingRule(until_width, max_seeds)
    rule.check(FIRST_SEEDS)
    print("| population | metric | seeds at the stop | coverage | too low | too high | coverage with one look |")
    print("|---|---|---|---|---|---|---|")
    for population in track(_populations(runs), "stopping", console=standard_error()):
        stopped = coverage_after_stopping(population, rule, studies)
        shares = [stopped.coverage, stopped.too_low, stopped.too_high, stopped.one_look]
        cells = [population.name, population.metric.replace("_", " "), f"{stopped.seeds:.0f}"]
        print(f"| {' | '.join(cells + [f'{share:.1%}' for share in shares])} |", flush=True)


@app.command("false-claims")
def false_claims_table(
    studies: Annotated[int, typer.Option(min=1, help="Number of comparisons in each row.")] = 1000,
) -> None:
    """Measure how often something is claimed about labels that are coin flips, and over new test pairs."""
    print("| simulated comparisons | false claims |")
    print("|---|---|")
    for seeds in (1, 3, 5):
        for metric, share in coin_flip_claims(studies, seeds).items():
            number = count(seeds, "seed")
            print(f"| coin-flip labels, {number}, {metric.replace('_', ' ')} | {share:.1%} |", flush=True)
    for name, share in new_pairs_claims(studies).items():
        words = "seeds and pairs" if name == "new_pairs" else "seeds only"
        print(f"| new test pairs, interval over {words} | {share:.1%} |", flush=True)


@app.command("gate")
def gate_table(
    gates: Annotated[int, typer.Option(min=1, help="Number of gates in each row.")] = 500,
    population: Annotated[Path, typer.Option(help="The .npz file of `gate-population`.")] = SHIPPED,
) -> None:
    """Measure how often gates raise a false alarm, pass a loss of the margin, and refuse worsened policies."""
    print("| change | seeds | pass | regressed | cannot tell | aim | verdict |")
    print("|---|---|---|---|---|---|---|")
    for row in gate_rows(read_arrays(population), gates):
        print(row, flush=True)


@app.command("gate-population")
def gate_population(
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
    seeds: Annotated[int, typer.Option(min=60, help="Number of seeds of each policy.")] = 200,
    run: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/gate-population"),
    jobs: Annotated[int | None, typer.Option(help="Worker processes  [default: one per core]")] = None,
) -> None:
    """Run many seeds of the policies of the study `ci` and of worsened ones: the population of `gate`."""
    make_population(out, seeds, run, jobs)


@app.command("population")
def population_file(run: Path, out: Annotated[Path, typer.Option(help="The .npz file to write.")]) -> None:
    """Write the curves of a run with many seeds to a file of `benchmarks/trust/populations`."""
    write_arrays(run_arrays(read_run(run)), out)


def _populations(runs: list[Path] | None) -> list[Population]:
    return [each for run in runs for each in _of_run(run)] if runs else list(shipped())


def _of_run(path: Path) -> list[Population]:
    run = read_run(path)
    return list(of_arrays(run.name, run_arrays(run)))


def _row(measured: Coverage) -> str:
    width = "-" if math.isnan(measured.width) else f"{100 * measured.width:.0f}"
    cells = [
        measured.population,
        measured.metric.replace("_", " "),
        f"{measured.seeds} and {measured.reference_seeds}",
        f"{100 * measured.truth:.0f}%",
        f"{measured.coverage:.1%}",
        f"{measured.too_low:.1%}",
        f"{measured.too_high:.1%}",
        f"{100 * measured.bias:+.1f}",
        width,
        measured.verdict,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    try:
        app()
    except BalbenchError as error:
        print(f"trust: {error}", file=sys.stderr)
        sys.exit(2)
