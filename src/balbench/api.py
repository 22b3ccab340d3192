"""The Python API: run a study, read a run, and look at its results. The command line is a thin layer on it."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balbench.harness import results
from balbench.harness.errors import StudyError, shortened
from balbench.harness.files import as_path
from balbench.harness.registry import nearest
from balbench.run import Run, as_api_run

if TYPE_CHECKING:
    from balbench.harness.rounds.task import Features
    from balbench.harness.running.placement import Placement
    from balbench.harness.running.progress import Display
    from balbench.harness.running.scheduler import Scheduler
    from balbench.harness.study.study import Study

SHIPPED_STUDIES = Path(__file__).parent / "benchmarks" / "studies"


class CellsFailedWarning(UserWarning):
    """Some cells of a study failed; the run has the results of all others."""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM during `run_study`; all complete rounds are kept."""


def shipped_studies() -> dict[str, Path]:
    """Return the studies that come with balbench: name -> YAML file."""
    paths = sorted(SHIPPED_STUDIES.rglob("*.yaml"))
    return {path.relative_to(SHIPPED_STUDIES).with_suffix("").as_posix(): path for path in paths}


def study_path(study: str | Path) -> Path:
    """Return the path of a study file, or of a shipped study by its name. An existing file takes precedence.

    Raises:
        StudyError: neither a file nor a shipped study has this name.
    """
    path, shipped = as_path("study", study), shipped_studies()
    if os.path.isfile(path):  # Path.is_file raises an error for a name that is too long
        return path
    if str(study) not in shipped:
        raise StudyError(
            f"no study {shortened(repr(str(study)))}, neither shipped nor a file; {nearest(str(study), list(shipped))}"
        )
    return shipped[str(study)]


def load_study(
    study: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    seeds: int | Sequence[int] | None = None,
    reference_seeds: int | Sequence[int] | None = None,
) -> Study:
    """Read and check a study; nothing runs.

    Args:
        study: name of a shipped study, path of a YAML file, or a mapping with the keys of a study file.
        overrides: values of dotted keys, as a mapping `{"posterior.members": 10}` or texts `posterior.members=10`.
        seeds: number of seeds (3 means 0, 1 and 2) or a list of seeds, in place of the study's.
        reference_seeds: number of seeds of the reference, or a list that contains the seeds, in place of the study's.

    Raises:
        StudyError: a key or a value is wrong; the message names the place and the nearest valid name.
        DataError: the data set is missing, or lacks something that a policy needs.
    """
    from balbench.harness.study import study as study_file

    source = study if isinstance(study, Mapping) else study_path(study)
    return study_file.load_study(source, overrides, seeds, reference_seeds)


def run_study(
    study: str | Path | Mapping[str, Any] | Study,
    out: str | Path | None = None,
    *,
    seeds: int | Sequence[int] | None = None,
    reference_seeds: int | Sequence[int] | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    jobs: int | None = None,
    device: str = "auto",
    fleet: int | None = None,
    fleets_per_device: int = 1,
    cluster: str | None = None,
    features: Features = "auto",
    grace: float = 10.0,
    reuse: bool | None = None,
    progress: bool = True,
    until_width: float | None = None,
    max_seeds: int | None = None,
) -> Run:
    """Run the cells of a study that are not finished yet, and return all results.

    Results are kept in the run directory after each round. A run that was interrupted resumes when it is started
    again. SIGTERM stops the run after the current rounds and raises `Terminated`, a KeyboardInterrupt.

    Args:
        study: name of a shipped study, path of a YAML file, a mapping with the keys of a study file, or the result of
            `load_study`.
        out: run directory, by default `runs/<study name>`.
        seeds: number of seeds (3 means 0, 1 and 2) or a list of seeds, in place of the study's.
        reference_seeds: number of seeds of the reference, or a list that contains the seeds, in place of the study's.
        overrides: values of dotted keys, as a mapping `{"posterior.members": 10}` or texts `posterior.members=10`.
        jobs: worker processes on CPUs, by default one per core.
        device: auto, cpu, cuda (all GPUs) or cuda:i.
        fleet: number of cells that run together, by default chosen by size and memory.
        fleets_per_device: worker processes that share a GPU.
        cluster: address of a Dask scheduler (tcp://host:port), or local:N for N workers on this machine.
        features: auto, resident (on the device) or streamed (to the device).
        grace: seconds that running rounds may take after SIGTERM.
        reuse: whether to copy finished cells with the same key from other run directories of this machine. None
            means yes, unless the environment variable BALBENCH_REUSE is "off".
        progress: whether to show progress on standard error (in a notebook, below the cell).
        until_width: add seeds until the 95% intervals of all policies on `test` are at most this wide (0.2 is a fifth
            of the labels) at two looks in a row, or until `max_seeds`.
        max_seeds: largest number of seeds with `until_width`, by default 40.

    Returns:
        The run with the cells of this study. Cells of earlier runs in the same directory, for example of other seeds,
        stay there; `read_run` returns all. Failed cells raise no error: a CellsFailedWarning names them, and
        `Run.failed` lists them.

    Raises:
        BalbenchError: the study, an argument, the data or the run directory is wrong.
        KeyboardInterrupt: the run was interrupted; all complete rounds are kept.
    """
    from balbench import adaptive
    from balbench.harness.running.placement import Placement

    rule = adaptive.stopping_rule(until_width, max_seeds)
    placement = Placement(jobs, device, fleet, fleets_per_device, cluster, features, grace)
    placement.check()
    if placement.cluster is None:
        placement.devices()  # raises an error for an unavailable device before the study is read
    checked = _checked(study, overrides, seeds, reference_seeds)
    directory = results.RunDirectory(Path("runs") / checked.file.name if out is None else as_path("out", out))
    display = _display(progress)

    def run_cells(block: Study) -> results.Run:
        _run_cells(block, directory, placement, _display(progress), reuse)
        return results.read_run(directory.path, block.header)

    checked, kept = adaptive.run_in_blocks(checked, rule, run_cells, display.say)
    run = as_api_run(kept)
    if line := directory.others_line(checked.header):
        display.say(line)
    if len(run.failed):
        _say_failed(run, display)
        warnings.warn(f"{len(run.failed)} of {len(run.cells)} cells failed; see Run.failed", CellsFailedWarning, 2)
    return run


def _checked(
    study: str | Path | Mapping[str, Any] | Study,
    overrides: Sequence[str] | Mapping[str, Any],
    seeds: int | Sequence[int] | None,
    reference_seeds: int | Sequence[int] | None,
) -> Study:
    from balbench.harness.study.study import Study

    if not isinstance(study, Study):
        return load_study(study, overrides=overrides, seeds=seeds, reference_seeds=reference_seeds)
    if overrides or seeds is not None or reference_seeds is not None:
        raise StudyError("study: is loaded already, so overrides and seeds have no effect; give them to load_study")
    return study


def transfer(
    run: str | Path | results.Run,
    posterior: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]],
    out: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train other posteriors on the labels that the policies of a run bought, and return the results as a run.

    Labels outlive the model that chose them, so the savings of a policy count for its successors too (Lowell et al.
    2019, arXiv 1807.04801). Each finished cell of the run gives a cell here: the same pool, labels, batches and seed,
    another posterior. Unfinished cells are left out, with a line for each. A transfer resumes like a study.

    Args:
        run: a run, or its directory.
        posterior: the successor: its name, or a mapping with `name` and settings. Several in a list become settings of
            one run directory.
        out: run directory of the transfer, by default beside that of the run, with the posterior's name added.
        settings: the arguments of `run_study` that say where and how cells run: `jobs`, `device`, `fleet`,
            `fleets_per_device`, `cluster`, `features`, `grace`, `reuse`, `progress`.

    Raises:
        BalbenchError: the run has no finished cell, its data set has changed, or an argument is wrong.
        KeyboardInterrupt: the transfer was interrupted; all complete rounds are kept.
    """
    from balbench.harness.study.transfer import load_transfer

    source = (run.path if isinstance(run, results.Run) else as_path("run", run)).absolute()
    several = isinstance(posterior, Sequence) and not isinstance(posterior, str)
    posteriors: Any = posterior if several else [posterior]
    study = load_transfer(results.RunDirectory(source), posteriors)
    directory = source.with_name("-".join([source.name, *study.learnt_by])) if out is None else as_path("out", out)
    if directory.resolve() == source.resolve():
        raise StudyError(f"out {out}: is the run itself; give another directory", setting="out")
    return run_study(study, directory, **settings)


def _run_cells(
    study: Study, directory: results.RunDirectory, placement: Placement, display: Display, reuse: bool | None
) -> None:
    from balbench.harness.running.engines import make_engine
    from balbench.harness.running.scheduler import Scheduler
    from balbench.harness.running.source_data import keep_source_data

    with directory.lock():
        for line in [*directory.adopt(study.header), *study.notes]:
            display.say(line)
        keep_source_data(study, directory)
        engine = partial(make_engine, placement, directory.path, display.say)
        scheduler = Scheduler(study, directory, placement, engine, display, reuse)
        try:
            with _stopped_by_signals(scheduler), display:
                if scheduler.run().stopped:
                    raise Terminated
        except KeyboardInterrupt:
            run = as_api_run(results.read_run(directory.path, study.header))
            _say_failed(run, display)
            display.say(_stopped_line(run))
            raise


def _display(progress: bool) -> Display:
    from rich.console import Console

    from balbench.harness.running.progress import Display

    return Display(Console(stderr=True, quiet=not progress))


@contextmanager
def _stopped_by_signals(scheduler: Scheduler) -> Iterator[None]:
    """Stop the scheduler at SIGTERM: after the running tasks, or at once at a second signal or if no task runs.

    Ctrl-C stops the scheduler too where a library that was interrupted swallows the KeyboardInterrupt.
    """

    def stop(number: int, frame: object) -> None:
        if not scheduler.busy or scheduler.stopping:
            raise Terminated
        scheduler.stop()

    def interrupt(number: int, frame: object) -> None:
        scheduler.interrupted = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    handlers = {signal.SIGTERM: stop}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a program may have a handler of its own
        handlers[signal.SIGINT] = interrupt
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stopped_line(run: Run) -> str:
    rounds, total = run.cells["rounds_done"].sum(), run.cells["rounds"].sum()
    return f"stopped: {rounds} of {total} rounds are kept in {run.path}; run the same study again to continue"


def _say_failed(run: Run, display: Display) -> None:
    from balbench.harness.machine import count

    for row in run.failed.to_dict("records"):
        setting = f" ({row['setting']})" if row["setting"] else ""
        display.say(f"failed: {row['policy']}, seed {row['seed']}{setting}: {row['reason']}")
    if number := len(run.failed):
        display.say(f"{count(number, 'cell')} failed (details: failed.json of each cell in {run.path}/cells)")
