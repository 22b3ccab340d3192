"""The report: one HTML file that needs no other file, with tables and figures beside it for further use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from markupsafe import Markup

from balbench.harness.errors import RunDirectoryError
from balbench.reports.across_section import across_section
from balbench.reports.analysis import Analysis
from balbench.reports.data_view import DataView, data_views
from balbench.reports.figure_view import FigureView, figure_view
from balbench.reports.figures import learning_curves, savings_curves, timings
from balbench.reports.figures.plot import figure_module
from balbench.reports.files import slug, write_bytes
from balbench.reports.savings_table import METRICS, SPLITS, records
from balbench.reports.specification_table import specification_csv, specification_html, specification_records
from balbench.reports.statement import statement, tally
from balbench.reports.style import Look, looks
from balbench.reports.tables import TEMPLATES, savings_csv, savings_html
from balbench.reports.wording import axis_name, metric_name, split_name

if TYPE_CHECKING:
    from balbench.harness.results import Run

REPORT_VERSION = 9  # raise this number when the same results no longer give the same report
_MOST_CELLS_LISTED = 60


@dataclass(frozen=True)
class SplitView:
    """One split of one setting: the result, the table of the first metric, the other tables, the figures."""

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
    specification: Markup
    seconds: list[list[str]]
    seconds_figure: FigureView | None


@dataclass
class RunView:
    """One run: its texts, its tables and its settings."""

    name: str
    anchor: str
    folder: Path
    fingerprint: str
    reference: str
    outcome: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    protocol: str = ""
    policies: list[dict[str, str]] = field(default_factory=list)
    study: str = ""
    data: list[DataView] = field(default_factory=list)
    progress: str = ""
    unfinished: list[dict[str, Any]] = field(default_factory=list)
    unlisted: int = 0
    settings: list[SettingView] = field(default_factory=list)
    posterior_verdicts: Markup = field(default_factory=Markup)
    csv: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def write_report(analyses: Sequence[Analysis], out: Path, force: bool = False) -> Path:
    """Write `out/report.html` for one or more runs, with figures, tables and `report.json` beside it.

    If `report.json` describes the same results and no file is missing, the existing report is kept.

    Args:
        analyses: from `balbench.reports.analysis.analyse`; the page names unfinished runs as such.
        out: a folder; it is created if it does not exist.
        force: write the report again in any case.

    Returns:
        the path of the page.

    Raises:
        RunDirectoryError: the folder cannot be written.
    """
    page, manifest = out / "report.html", out / "report.json"
    identity = {"version": REPORT_VERSION, "runs": [[each.name, each.run.fingerprint] for each in analyses]}
    identity |= {"damages": [each.damages for each in analyses]}  # the fingerprint knows nothing of these files
    if not force and _is_current(manifest, identity):
        return page
    try:
        return _write(analyses, out, page, manifest, identity)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write the report to {out}: {error.strerror or error}; give a folder that can be written"
        ) from error


def _write(analyses: Sequence[Analysis], out: Path, page: Path, manifest: Path, identity: dict[str, Any]) -> Path:
    policies = [policy for each in analyses for policy in each.run.policies]
    policy_looks = looks(policies, analyses[0].run.reference)
    views = [_run_view(each, number, out, policy_looks) for number, each in enumerate(analyses, start=1)]
    section = across_section(analyses, out, policy_looks)
    html = TEMPLATES.get_template("report.html.j2").render(runs=views, across=section.html)
    write_bytes(page, html.encode())
    paths = [path for view in views for path in view.files] + section.files
    files = sorted(path.relative_to(out).as_posix() for path in paths)
    content = identity | {
        "results": [record for each in analyses for record in each.records()],
        "training": {each.name: each.faults for each in analyses},
        "specification": {each.name: specification_records(each.specification) for each in analyses},
        "posteriors": {each.name: [asdict(part) for part in each.posterior_verdicts] for each in analyses},
        "across": section.records,
        "files": ["report.html", *files],
    }
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


def _run_view(analysis: Analysis, number: int, out: Path, policy_looks: dict[str, Look]) -> RunView:
    run = analysis.run
    view = RunView(analysis.name, f"run{number}", out / f"{number}-{slug(run.name)}", run.fingerprint, run.reference)
    tables = {
        f"savings by {metric_name(metric)}": savings_csv(table, view.folder / f"savings-{metric}.csv")
        for metric, table in analysis.tables.items()
    } | specification_csv(analysis.specification, view.folder)
    view.files += tables.values()
    view.csv = {name: path.relative_to(out).as_posix() for name, path in tables.items()}
    for setting_number, setting in enumerate(analysis.curves.settings, start=1):
        view.settings.append(_setting_view(analysis, view, setting, f"{view.anchor}s{setting_number}", policy_looks))
    view.outcome, view.warnings = _outcome(view, analysis), analysis.warnings
    verdicts = TEMPLATES.get_template("posterior_verdicts.html.j2").render(verdicts=analysis.posterior_verdicts)
    view.posterior_verdicts = Markup(verdicts)
    view.protocol = ", ".join(f"{key} {value}" for key, value in run.protocol.items())
    view.policies = [_policy_settings(run, policy) for policy in run.policies]
    view.study = yaml.safe_dump(json.loads(json.dumps(run.study, default=str)), sort_keys=False)
    view.data = data_views(run)
    _describe_cells(view, run.cells)
    return view


def _setting_view(
    analysis: Analysis, view: RunView, setting: str, anchor: str, policy_looks: dict[str, Look]
) -> SettingView:
    prefix = f"{slug(setting)}-" if setting else ""
    splits = [
        _split_view(analysis, view, setting, split, prefix, policy_looks)
        for split in SPLITS
        if any(analysis.curves.has(setting, split, metric) for metric in METRICS)
    ]
    seconds = timings.seconds_by_stage(analysis.run.timings, setting, analysis.run.policies)
    return SettingView(
        name=setting,
        anchor=anchor,
        splits=splits,
        specification=specification_html(analysis.specification, setting, analysis.run.reference),
        seconds=_seconds_rows(seconds),
        seconds_figure=_seconds_figure(view, seconds, view.folder / f"{prefix}seconds"),
    )


def _split_view(
    analysis: Analysis, view: RunView, setting: str, split: str, prefix: str, policy_looks: dict[str, Look]
) -> SplitView:
    metrics = [metric for metric in METRICS if analysis.curves.has(setting, split, metric)]
    figures, tables = [], {}
    for metric in metrics:
        rows = analysis.rows(setting, split, metric)
        panel = learning_curves.make_panel(analysis.run, analysis.curves, rows, setting, split, metric)
        paths = figure_module(panel).write(panel, policy_looks, view.folder / f"{prefix}{split}-{metric}")
        figures.append(_figure_view(view, paths, metric, f"{axis_name(split, metric)} by labels"))
        tables[metric] = Markup(savings_html(analysis.tables[metric], setting, split))
    leading, *others = metrics
    figures += _savings_figure(analysis, view, analysis.rows(setting, split, leading), prefix, policy_looks)
    return SplitView(
        name=split_name(split),
        outcome=statement(analysis.rows(setting, split, leading)),
        table=tables[leading],
        more_tables={metric_name(metric): tables[metric] for metric in others},
        figures=figures,
    )


def _savings_figure(
    analysis: Analysis, view: RunView, rows: pd.DataFrame, prefix: str, policy_looks: dict[str, Look]
) -> list[FigureView]:
    panel = savings_curves.make_panel(analysis.curves, rows, analysis.run.reference)
    if panel is None:
        return []
    paths = savings_curves.write(panel, policy_looks, view.folder / f"{prefix}{panel.split}-{panel.metric}-savings")
    return [_figure_view(view, paths, panel.metric, f"label savings at every level, {split_name(panel.split)} split")]


def _figure_view(view: RunView, paths: list[Path], metric: str, alt: str) -> FigureView:
    view.files += paths
    return figure_view(paths, view.folder.parent, metric, alt)


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


def _outcome(view: RunView, analysis: Analysis) -> list[str]:
    table = analysis.leading_table
    if table is None:
        return ["No results yet."]
    if len(view.settings) == 1:
        return [split.outcome for split in view.settings[0].splits if split.outcome]
    return [text for split in SPLITS if (text := tally(table, split))]


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
    view.unfinished = records(unfinished.head(_MOST_CELLS_LISTED).fillna(""))
