"""The report: one HTML file that needs no other, with tables and figures beside it for further use."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from markupsafe import Markup

from balbench.harness.errors import BalbenchError, RunDirectoryError
from balbench.reports.curves import Curves
from balbench.reports.figures import learning_curves, small_multiples, timings
from balbench.reports.files import slug, write_bytes
from balbench.reports.outcome import statement, tally
from balbench.reports.savings import SPLITS, savings_table
from balbench.reports.style import Look, looks
from balbench.reports.tables import TEMPLATES, savings_csv, savings_html
from balbench.reports.wording import METRIC_NAMES, axis_name, split_name

if TYPE_CHECKING:
    from balbench.harness.results import Run

REPORT_VERSION = 4  # raise it when the same results no longer give the same report
METRICS = ("log_likelihood", "accuracy", "brier")
_MOST_CELLS_LISTED = 60


@dataclass(frozen=True)
class FigureView:
    """A figure as the page shows it: its picture inline, and where its files lie (relative to the page)."""

    metric: str
    alt: str
    source: Markup
    files: dict[str, str]


@dataclass(frozen=True)
class SplitView:
    """One split of one setting: what came out, the table of the leading metric, the others, the figures."""

    name: str
    outcome: str
    table: Markup
    more_tables: dict[str, Markup]
    figures: list[FigureView]


@dataclass(frozen=True)
class SettingView:
    """One setting of a run."""

    name: str
    anchor: str
    splits: list[SplitView]
    seconds: list[list[str]]
    seconds_figure: FigureView | None


@dataclass
class RunView:
    """One run: its words, its tables and its settings."""

    name: str
    anchor: str
    folder: Path
    fingerprint: str
    reference: str
    outcome: list[str] = field(default_factory=list)
    protocol: str = ""
    policies: list[dict[str, str]] = field(default_factory=list)
    study: str = ""
    progress: str = ""
    unfinished: list[dict[str, Any]] = field(default_factory=list)
    unlisted: int = 0
    settings: list[SettingView] = field(default_factory=list)
    csv: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def write_report(runs: list[Run], out: Path, force: bool = False) -> Path:
    """Write `out/report.html` for one or more runs, with figures, tables and a manifest beside it.

    Nothing is redrawn if the manifest says that these very results are already reported and no file is missing.

    Args:
        runs: from `balbench.harness.results.read_run`; unfinished ones are reported as such.
        out: a folder, made if need be.
        force: redraw in any case.

    Returns:
        the path of the page.

    Raises:
        BalbenchError: there is no run.
        RunDirectoryError: the folder cannot be written.
    """
    if not runs:
        raise BalbenchError("no runs to report on; name at least one run directory")
    page, manifest = out / "report.html", out / "report.json"
    identity = {"version": REPORT_VERSION, "runs": [[run.name, run.fingerprint] for run in runs]}
    if not force and _is_current(manifest, identity):
        return page
    try:
        return _write(runs, out, page, manifest, identity)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write the report to {out}: {error.strerror or error}; give a folder that can be written"
        ) from error


def _write(runs: list[Run], out: Path, page: Path, manifest: Path, identity: dict[str, Any]) -> Path:
    policy_looks = looks([policy for run in runs for policy in run.policies], runs[0].reference)
    views = [_run_view(run, number, out, policy_looks) for number, run in enumerate(runs, start=1)]
    html = TEMPLATES.get_template("report.html.j2").render(runs=views, split_names=split_name)
    write_bytes(page, html.encode())
    files = sorted(path.relative_to(out).as_posix() for view in views for path in view.files)
    content = identity | {"files": ["report.html", *files]}
    write_bytes(manifest, (json.dumps(content, indent=1) + "\n").encode())
    return page


def _is_current(manifest: Path, identity: dict[str, Any]) -> bool:
    try:
        content = json.loads(manifest.read_text())
        if {key: content.get(key) for key in identity} != identity:
            return False
        return all((manifest.parent / name).is_file() for name in content["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _run_view(run: Run, number: int, out: Path, policy_looks: dict[str, Look]) -> RunView:
    folder = out / f"{number}-{slug(run.name)}"
    view = RunView(run.name, f"run{number}", folder, run.fingerprint, run.reference)
    curves = Curves(run.curves)
    tables = {metric: savings_table(run, metric) for metric in METRICS}
    for metric, table in tables.items():
        if len(table):
            path = savings_csv(table, folder / f"savings-{metric}.csv")
            view.files.append(path)
            view.csv[METRIC_NAMES[metric]] = path.relative_to(out).as_posix()
    for place, setting in enumerate(curves.settings, start=1):
        anchor = f"{view.anchor}s{place}"
        view.settings.append(_setting_view(run, view, curves, tables, setting, anchor, policy_looks))
    view.outcome = _outcome(view, tables)
    view.protocol = ", ".join(f"{key} {value}" for key, value in run.protocol.items())
    view.policies = [_policy_settings(run, policy) for policy in run.policies]
    view.study = yaml.safe_dump(json.loads(json.dumps(run.study, default=str)), sort_keys=False)
    _describe_cells(view, run.cells)
    return view


def _setting_view(
    run: Run,
    view: RunView,
    curves: Curves,
    tables: dict[str, pd.DataFrame],
    setting: str,
    anchor: str,
    policy_looks: dict[str, Look],
) -> SettingView:
    prefix = f"{slug(setting)}-" if setting else ""
    splits = []
    for split in SPLITS:
        metrics = [metric for metric in METRICS if curves.has(setting, split, metric)]
        if not metrics:
            continue
        figures = []
        for metric in metrics:
            shown = learning_curves.panel(run, curves, tables[metric], setting, split, metric)
            stem = view.folder / f"{prefix}{split}-{metric}"
            many = len(shown.curves) > small_multiples.MOST_IN_ONE_PLOT
            paths = (small_multiples if many else learning_curves).write(shown, policy_looks, stem)
            figures.append(_figure_view(view, paths, metric, f"{axis_name(split, metric)} by labels"))
        htmls = {metric: Markup(savings_html(tables[metric], setting, split)) for metric in metrics}
        leading, *others = metrics
        rows = tables[leading]
        splits.append(
            SplitView(
                name=split_name(split),
                outcome=statement(rows[(rows["setting"] == setting) & (rows["split"] == split)]),
                table=htmls[leading],
                more_tables={METRIC_NAMES[metric]: htmls[metric] for metric in others},
                figures=figures,
            )
        )
    seconds = timings.seconds_by_stage(run.timings, setting, run.policies)
    return SettingView(
        name=setting,
        anchor=anchor,
        splits=splits,
        seconds=_seconds_rows(seconds),
        seconds_figure=_seconds_figure(view, seconds, view.folder / f"{prefix}seconds"),
    )


def _figure_view(view: RunView, paths: list[Path], metric: str, alt: str) -> FigureView:
    view.files += paths
    by_ending = {path.suffix[1:]: path for path in paths}
    # as an image of its own, so that names inside one drawing cannot clash with those of another
    picture = base64.b64encode(by_ending["svg"].read_bytes()).decode()
    files = {ending.upper(): path.relative_to(view.folder.parent).as_posix() for ending, path in by_ending.items()}
    return FigureView(metric, alt, Markup(f"data:image/svg+xml;base64,{picture}"), files)


def _seconds_figure(view: RunView, seconds: pd.DataFrame, stem: Path) -> FigureView | None:
    if not len(seconds):
        return None
    return _figure_view(view, timings.write(seconds, stem), "seconds", "seconds of each stage by policy")


def _seconds_rows(seconds: pd.DataFrame) -> list[list[str]]:
    """Return the header and the rows of the timing table as text; empty without timings."""
    if not len(seconds):
        return []
    with_total = seconds.assign(total=seconds.sum(axis=1))
    header = ["policy", *(str(stage) for stage in with_total.columns)]
    return [header] + [
        [str(policy), *(f"{value:,.2f}" for value in row)]
        for policy, row in zip(with_total.index, with_total.to_numpy(), strict=True)
    ]


def _outcome(view: RunView, tables: dict[str, pd.DataFrame]) -> list[str]:
    if not view.settings:
        return ["No results yet."]
    if len(view.settings) == 1:
        return [split.outcome for split in view.settings[0].splits[:2] if split.outcome]
    table = next(table for table in tables.values() if len(table))
    return [text for split in ("test", "ood") if (text := tally(table, split))]


def _policy_settings(run: Run, policy: str) -> dict[str, str]:
    settings = dict(run.policy_settings.get(policy, {}))
    name, variant = settings.pop("name", policy), settings.pop("variant", "")
    settings.pop("label", None)
    listed = ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)
    return {"label": policy, "name": str(name), "variant": str(variant), "settings": listed}


def _describe_cells(view: RunView, cells: pd.DataFrame) -> None:
    unfinished = cells[cells["state"] != "finished"]
    if not len(unfinished):
        view.progress = f"All {len(cells)} cells are finished." if len(cells) else ""
        return
    states = unfinished["state"].value_counts(sort=False)
    listed = ", ".join(f"{count} {state}" for state, count in states.items())
    view.progress = f"Partial results: {len(unfinished)} of {len(cells)} cells are not finished ({listed})."
    view.unlisted = max(len(unfinished) - _MOST_CELLS_LISTED, 0)
    shown = unfinished.head(_MOST_CELLS_LISTED).fillna("")
    view.unfinished = [{str(key): value for key, value in row.items()} for row in shown.to_dict("records")]
