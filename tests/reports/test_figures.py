"""Figures show the data, and the same data give the same bytes."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Annotation

from balbench.reports.curves import Curves
from balbench.reports.figures import learning_curves, timings
from balbench.reports.figures.labels import spread
from balbench.reports.savings_table import savings_table
from balbench.reports.style import REFERENCE_COLOUR, looks


def _panel(run, split="test", metric="log_likelihood"):
    table = savings_table(run, metric)
    return learning_curves.make_panel(run, Curves(run.curves), table, "", split, metric)


def _draw(run, **settings):
    return learning_curves.draw(_panel(run, **settings), looks(run.policies, run.reference))


def _texts(figure):
    return [text.get_text() for text in [*figure.texts, *figure.axes[0].texts]]


def _write_all(run, folder: Path) -> dict[str, bytes]:
    policy_looks = looks(run.policies, run.reference)
    learning_curves.write(_panel(run), policy_looks, folder / "curves")
    timings.write(timings.seconds_by_stage(run.timings, "", run.policies), folder / "seconds")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_numbers_give_the_same_bytes_in_every_format(run, tmp_path):
    first = _write_all(run, tmp_path / "first")
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "other", "axes.grid": False}):
        second = _write_all(run, tmp_path / "second")
    endings = {f"{stem}.{ending}" for stem in ("curves", "seconds") for ending in ("png", "pdf", "svg", "csv")}
    assert set(first) == endings
    assert first == second


def test_other_numbers_give_other_bytes(run, tmp_path):
    first = _write_all(run, tmp_path / "first")
    run.curves["value"] *= 1.01
    second = _write_all(run, tmp_path / "second")
    assert all(first[f"curves.{ending}"] != second[f"curves.{ending}"] for ending in ("png", "pdf", "svg", "csv"))


def test_the_bracket_spans_the_labels_saved_by_the_best_policy(run):
    panel, figure = _panel(run), _draw(run)
    row = savings_table(run).query("policy == 'BAL-PM' and split == 'test'").iloc[0]
    assert panel.best["policy"] == "BAL-PM"
    (arrow,) = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert arrow.xy == (row["n_policy"], row["level"])
    assert arrow.xyann == (row["n_reference"], row["level"])
    (words,) = [text for text in _texts(figure) if "fewer labels" in text]
    assert words.startswith(f"BAL-PM\n{round(100 * row['savings'])}% fewer labels\n[")


def test_no_bracket_but_a_note_when_no_policy_saves(run_of):
    figure = _draw(run_of(["random", "BALD"]))
    assert not [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    joined = " ".join(" ".join(_texts(figure)).split())
    assert "no policy reached the level of random with clearly fewer labels" in joined


def test_neither_bracket_nor_note_while_nothing_is_compared(run):
    run.curves = run.curves[run.curves["policy"] == "random"]
    assert not [text for text in _texts(_draw(run)) if "fewer labels" in text]


def test_every_policy_and_line_is_named_beside_it(run):
    texts = _texts(_draw(run))
    assert {*run.policies, "full data", "length only"} <= set(texts)
    assert "best possible (-0.42) ↑" in texts


@pytest.mark.parametrize("split", ["test", "ood"])
@pytest.mark.parametrize("metric", ["log_likelihood", "accuracy", "brier"])
def test_nothing_is_cut_off_and_no_label_covers_another(run_of, split, metric):
    figure = _draw(run_of(), split=split, metric=metric)
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    width, height = figure.bbox.size
    axes = figure.axes[0]
    artists = [*figure.texts, axes.xaxis.label, axes.yaxis.label]
    boxes = [artist.get_window_extent(renderer) for artist in artists]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_the_words_of_the_bracket_cover_no_mean_curve(run_of):
    figure = _draw(run_of())
    axes = figure.axes[0]
    (words,) = [text for text in axes.texts if "fewer labels" in text.get_text()]
    box = words.get_window_extent(figure.canvas.get_renderer())
    for line in axes.lines:
        x, y = axes.transData.transform(line.get_xydata()).T
        dense_x = np.linspace(x[0], x[-1], 2000)
        inside = (dense_x > box.x0) & (dense_x < box.x1)
        dense_y = np.interp(dense_x, x, y)
        assert not (inside & (dense_y > box.y0) & (dense_y < box.y1)).any()


def test_many_policies_with_long_labels_make_a_higher_figure(run_of):
    policies = ["random", *(f"policy number {number} with a label that is long" for number in range(24))]
    run = run_of(policies, seeds=2, rounds=4)
    assert _draw(run).get_size_inches()[1] > 1.5 * _draw(run_of(seeds=2)).get_size_inches()[1]


def test_one_round_and_one_seed_can_be_drawn(run_of):
    figure = _draw(run_of(["random", "BALD"], seeds=1, rounds=1))
    assert {"random", "BALD"} <= set(_texts(figure))


def test_a_label_with_dollars_is_no_formula(run_of):
    assert "a$b_$c" in _texts(_draw(run_of(["random", "a$b_$c"], seeds=1, rounds=3)))


def test_the_csv_holds_means_errors_and_every_seed(run, tmp_path):
    panel = _panel(run)
    paths = learning_curves.write(panel, looks(run.policies, run.reference), tmp_path / "a.b")
    assert [path.name for path in paths] == ["a.b.png", "a.b.pdf", "a.b.svg", "a.b.csv"]
    table = pd.read_csv(paths[-1])
    assert list(table.columns) == ["policy", "labels", "mean", "se", "seeds", *(f"seed {s}" for s in range(5))]
    rows = table[table["policy"] == "BALD"]
    seeds = rows[[f"seed {s}" for s in range(5)]]
    np.testing.assert_allclose(rows["mean"], seeds.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(rows["se"], seeds.sem(axis=1), rtol=1e-3)
    assert table.set_index("policy").loc["best possible", "mean"] == -0.42
    full_data = run.full_data.query("split == 'test' and metric == 'log_likelihood'")["value"].mean()
    assert table.set_index("policy").loc["full data", "mean"] == pytest.approx(full_data)


def test_looks_differ_and_the_reference_is_grey():
    policies = ["random", *(f"p{number}" for number in range(30))]
    by_policy = looks(policies, "random")
    assert by_policy["random"].colour == REFERENCE_COLOUR
    assert len({(look.colour, look.dashes) for look in by_policy.values()}) == 31
    assert looks(policies[:4], "random")["p2"] == by_policy["p2"]


def test_seconds_are_summed_over_rounds_and_averaged_over_seeds(run):
    seconds = timings.seconds_by_stage(run.timings, "", run.policies)
    assert list(seconds.index) == run.policies
    assert list(seconds.columns) == ["fit", "evaluate", "acquire", "annotate"]
    assert seconds.loc["BAL-PM", "acquire"] == pytest.approx(14 * 1.1)
    assert seconds.loc["random", "fit"] == pytest.approx(14 * 1.5)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_spread_labels_do_not_overlap_and_stay_inside(targets):
    targets_L, heights_L = np.sort(targets), np.full(len(targets), 8.0)
    centres_L = spread(targets_L, heights_L, 0, 100)
    assert (np.diff(centres_L) >= 8 - 1e-9).all()
    assert centres_L[0] >= 4 - 1e-9
    assert centres_L[-1] <= 96 + 1e-9


def test_labels_with_room_stay_where_they_are():
    np.testing.assert_allclose(spread(np.array([10.0, 50, 90]), np.full(3, 8.0), 0, 100), [10, 50, 90])
