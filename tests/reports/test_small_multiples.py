"""Studies with many policies: a panel for each, beside the reference."""

import numpy as np
import pytest

from balbench.reports.analysis import analyse
from balbench.reports.curves import Curves
from balbench.reports.figures import learning_curves, small_multiples
from balbench.reports.page import write_report
from balbench.reports.savings_table import savings_table
from balbench.reports.style import looks

NAMES = ["random", "BAL-PM", "BALD", *[f"policy {number}" for number in range(14)]]


def panel_of(run, metric="log_likelihood"):
    return learning_curves.make_panel(run, Curves(run.curves), savings_table(run, metric), "", "test", metric)


def test_every_policy_but_the_reference_has_a_panel_with_both_curves(run_of):
    run = run_of(NAMES)
    panel = panel_of(run)
    figure = small_multiples.draw(panel, looks(run.policies, run.reference))
    assert len(figure.axes) == len(NAMES) - 1
    for axes, name in zip(figure.axes, NAMES[1:], strict=True):
        assert axes.get_title(loc="left").startswith(name)
        curves = {tuple(line.get_ydata()) for line in axes.lines}
        assert {tuple(panel.curves[policy].mean_T) for policy in (name, "random")} <= curves


@pytest.mark.parametrize("metric", ["log_likelihood", "brier"])
def test_the_best_curve_is_never_cut_and_one_bad_policy_does_not_flatten_the_rest(run_of, metric):
    run = run_of(NAMES)
    worst = run.curves["policy"].eq("policy 3") & run.curves["metric"].eq(metric) & run.curves["round"].eq(5)
    run.curves.loc[worst, "value"] += 0.7 if metric == "brier" else -5
    panel = panel_of(run, metric)
    low, high = small_multiples.draw(panel, looks(run.policies, run.reference)).axes[0].get_ylim()
    means = np.concatenate([curve.mean_T for policy, curve in panel.curves.items() if policy != "policy 3"])
    assert low < means.min() if metric == "brier" else high > means.max()
    assert high - low < 3 * np.ptp(means)


def test_the_page_changes_to_small_multiples_where_one_plot_is_not_enough(run_of, tmp_path, monkeypatch):
    drawn = []
    for module in (small_multiples, learning_curves):
        write = module.write
        monkeypatch.setattr(module, "write", lambda *a, w=write, m=module: drawn.append(m.__name__) or w(*a))
    write_report(analyse([run_of(NAMES, metrics=["log_likelihood"], splits=["test"])]), tmp_path / "many")
    write_report(analyse([run_of(NAMES[:4], metrics=["log_likelihood"], splits=["test"])]), tmp_path / "few")
    assert drawn == ["balbench.reports.figures.small_multiples", "balbench.reports.figures.learning_curves"]


def _coin_flips(run):
    """Keep every curve within 1e-5 of chance."""
    values = run.curves["metric"].eq("log_likelihood")
    noise = np.random.default_rng(0).normal(0, 1e-5, values.sum())
    run.curves.loc[values, "value"] = -np.log(2) - abs(noise)


def test_panels_without_a_level_have_no_savings_and_no_offset_over_their_titles(run_of):
    run = run_of(NAMES)
    _coin_flips(run)
    figure = small_multiples.draw(panel_of(run), looks(run.policies, run.reference))
    figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == NAMES[1:]
    assert {axes.yaxis.get_offset_text().get_text() for axes in figure.axes} == {""}
    caption = " ".join(text.get_text() for text in figure.texts)
    assert "no label savings are stated: random did not learn beyond chance" in " ".join(caption.split())


def test_the_numbers_of_the_axes_lie_inside_the_figure_beside_its_name(run_of):
    run = run_of(NAMES)
    _coin_flips(run)
    figure = small_multiples.draw(panel_of(run), looks(run.policies, run.reference))
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    name = next(text for text in figure.texts if text.get_text().startswith("test log-likelihood"))
    right = name.get_window_extent(renderer).x1
    for axes in figure.axes:
        if axes.yaxis.get_visible():
            assert axes.yaxis.get_tightbbox(renderer).x0 >= right
        if axes.xaxis.get_visible():
            assert axes.xaxis.get_tightbbox(renderer).x1 <= figure.bbox.x1
