"""A figure of a run without files."""

from __future__ import annotations

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from balbench.harness.errors import BalbenchError
from balbench.reports.figures.plot import plot


def test_a_notebook_displays_the_figure_without_pyplot(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figure = plot(run, "ood", "accuracy")
    assert isinstance(figure, Figure)
    assert figure.axes[0].get_ylabel() == "OOD accuracy (share correct)"
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
    assert list(tmp_path.iterdir()) == []


def test_a_metric_without_savings_can_be_drawn(run):
    run.curves.loc[run.curves["metric"] == "brier", "metric"] = "epistemic"
    figure = plot(run, metric="epistemic")
    assert "fewer labels" not in " ".join(text.get_text() for text in [*figure.texts, *figure.axes[0].texts])


def test_many_policies_are_drawn_as_small_multiples(run_of):
    run = run_of(["random", *(f"policy {number}" for number in range(14))], seeds=2, rounds=3)
    assert len(plot(run).axes) == 14


@pytest.mark.parametrize("settings", [{"split": "tset"}, {"metric": "acuracy"}, {"setting": "k=6"}])
def test_a_wrong_name_is_refused_with_the_nearest_and_all_right_ones(run_of, settings):
    run = run_of(["random", "BALD"], seeds=2, rounds=3, setting="k=5")
    ((name, value),) = settings.items()
    nearest = {"split": "test", "metric": "accuracy", "setting": "k=5"}[name]
    with pytest.raises(BalbenchError, match=f"^{name}: '{value}' has no .* did you mean '{nearest}'") as error:
        plot(run, **settings)
    assert error.value.setting == name


def test_a_run_without_results_is_named(run):
    run.curves = run.curves.iloc[:0]
    with pytest.raises(BalbenchError, match="no results yet"):
        plot(run)
