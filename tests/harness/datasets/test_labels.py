"""Labels as tools write them."""

import pytest
from pydantic import ValidationError

from balbench.harness.datasets.labels import LabelMap, canonical, meanings
from balbench.oracles.annotations import Choice
from support.faults import one_line

A, B, TIE = Choice.FIRST, Choice.SECOND, Choice.TIE


def read(values, labels=None):
    texts = [canonical(value) for value in values]
    meaning = meanings(dict.fromkeys(texts), "label", labels)
    return [meaning[text] for text in texts]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 0], [A, B]),
        ([1.0, 0.0], [A, B]),
        (["1", "0"], [A, B]),
        ([True, False], [A, B]),
        (["True", "FALSE"], [A, B]),
        ([1, 0, 0.5], [A, B, TIE]),
        ([1, 2], [A, B]),
        ([1, 2, 1.5], [A, B, TIE]),
        ([1.0000048889, 1.9999999], [A, B]),
        ([-1, 1], [B, A]),
        ([-1, 0, 1], [B, TIE, A]),
        (["A", "B"], [A, B]),
        (["a", "b", "tie"], [A, B, TIE]),
        (["model_a", "model_b", "tie", "tie (bothbad)"], [A, B, TIE, TIE]),
        ([1, "tie", 0], [A, TIE, B]),
        ([1], [A]),
        ([0], [B]),
        ([2], [B]),
    ],
)
def test_clear_labels(values, expected):
    assert read(values) == expected


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ([0, 1, 2], ["(0, 1, 2)", "{label: {column: label, first: 1, second: 2, tie: 0}}"]),
        ([3, 4], ["(3, 4)", "{column: label, first: 3, second: 4}"]),
        ([-2, -1, 1, 2], ["{column: label, middle: 0, below: first}"]),
        ([0.1, 0.2, 0.7, 0.9, 0.8, 0.3, 0.4], ["0.8, 0.3, ...)", "middle: 0.5"]),
        (["better", "worse"], ["(better, worse)", "first: better, second: worse"]),
        (["x y", "z"], ['first: "x y", second: z']),
    ],
)
def test_labels_that_are_not_clear_are_refused_with_a_map_that_is_valid(values, parts):
    one_line(lambda: read(values), "the meaning of its values", *parts)


def test_maps():
    values = LabelMap(column="c", first=[1, "yes"], second="no", tie=0)
    assert read(["YES", 1.0, "no", "0", "other"], values) == [A, A, B, TIE, None]
    score = LabelMap(column="c", middle=0, below="second")
    assert read([-3, 0, 2.5], score) == [B, TIE, A]
    assert score.margin(-3.0) == (B, 3.0)
    both = LabelMap(column="c", tie=[0], middle=1.5)
    assert read([0, 1, 1.9, 1.5], both) == [TIE, A, B, TIE]


@pytest.mark.parametrize(
    "settings", [{}, {"column": "c"}, {"column": "c", "higher": ["a", "b"]}, {"column": "c", "firs": 1}]
)
def test_a_map_must_be_complete(settings):
    with pytest.raises(ValidationError):
        LabelMap(**settings)


@pytest.mark.parametrize("value", [None, float("nan"), "", "  ", "NaN"])
def test_empty_labels(value):
    assert canonical(value) is None
