"""The report of 110 cells x 75 rounds, compared with plain figures of the same curves in the same run.

The reference draws nine figures of 21 panels with pyplot and saves each as PNG, PDF and SVG. The report does more: it
also reads 27 MB of results and computes savings. Run: tox -e speed -- benchmarks/speed/test_report.py
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib import pyplot

import synthetic_run
from balbench.harness.results import Run, read_run
from balbench.reports.analysis import analyse
from balbench.reports.page import write_report
from balbench.reports.savings_table import METRICS, SPLITS

AT_MOST = 1.0  # CPU time of the report divided by that of the plain figures


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run.write_run(tmp_path_factory.mktemp("run"))


def test_the_report_costs_no_more_than_plain_figures(benchmark: Any, directory: Path, tmp_path: Path) -> None:
    run = read_run(directory)
    plain = _cpu_seconds(lambda: _plain_figures(run))
    seconds = _cpu_seconds(
        lambda: benchmark.pedantic(lambda: write_report(analyse([read_run(directory)]), tmp_path, force=True))
    )
    benchmark.extra_info |= {"CPU seconds": seconds, "CPU seconds of plain figures": plain}
    print(f"\nreport {seconds:.1f} CPU s, plain figures {plain:.1f} CPU s")
    assert seconds <= AT_MOST * plain


def _cpu_seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _plain_figures(run: Run) -> None:
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "path", "axes.grid": True}):
        for split in SPLITS:
            for metric in METRICS:
                chosen = run.curves[(run.curves["split"] == split) & (run.curves["metric"] == metric)]
                curves = chosen.groupby(["policy", "labels"], sort=False)["value"].agg(["mean", "sem"])
                _plain_figure({policy: curves.loc[policy] for policy in run.policies}, run.reference)


def _plain_figure(curves: dict[str, Any], reference: str) -> None:
    others = [policy for policy in curves if policy != reference]
    figure, axes = pyplot.subplots(-(-len(others) // 5), 5, sharex=True, sharey=True, figsize=(8, 8))
    for panel, policy in zip(axes.flat, others, strict=False):
        for name in (reference, policy):
            mean, error = curves[name]["mean"], curves[name]["sem"]
            panel.plot(mean.index, mean)
            panel.fill_between(mean.index, mean - error, mean + error, alpha=0.2)
        panel.set_title(policy)
    for ending in ("png", "pdf", "svg"):
        figure.savefig(io.BytesIO(), format=ending, dpi=200)
    pyplot.close(figure)
