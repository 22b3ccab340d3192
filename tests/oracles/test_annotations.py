"""Answers, and what they cost."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from balbench.oracles.annotations import Annotations, Choice


def answers_of(costs):
    names = np.array([f"a{n % 3}" for n in range(len(costs))], dtype=np.str_)
    choices = np.full(len(costs), Choice.FIRST, dtype=np.int8)
    return Annotations(choices, names, np.array(costs), 2 * np.array(costs))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.integers(0, 20))
def test_totals_have_the_same_bits_however_the_answers_came(costs, cut):
    answers = answers_of(costs)
    parts = [Annotations(*(value[rows] for value in vars(answers).values())) for rows in (slice(cut), slice(cut, None))]
    joined = parts[0].followed_by(parts[1])
    assert joined.totals() == answers.totals()
    assert answers.totals()["annotators"] == len(set(answers.annotator_B))
    np.testing.assert_array_equal(joined.choice_B, answers.choice_B)


def test_labels_of_choices():
    choices = np.array([Choice.SECOND, Choice.FIRST, Choice.TIE, Choice.ABSTAIN], dtype=np.int8)
    empty = np.zeros(4)
    np.testing.assert_array_equal(Annotations(choices, empty, empty, empty).label_B, [0.0, 1.0, 0.5, np.nan])
