"""`check_oracle` fails for oracles that break one promise each, and its message names the promise."""

import random
from dataclasses import fields, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from balbench.oracles.annotations import Annotations, Choice
from balbench.oracles.replay import Replay
from balbench.testing import ContractError, check_oracle
from balbench.testing.examples import records_of
from balbench.testing.oracles import KINDS


class Honest(Replay):
    """Replays votes; the oracles below change one thing."""


class Undocumented(Honest):
    pass


def changed(change) -> Replay:
    """An oracle whose answers are changed by a function of pairs and answers."""

    class Changed(Honest):
        """Changes answers."""

        def annotate(self, pairs, stream):
            return change(pairs, super().annotate(pairs, stream))

    return Changed()


def shortened(pairs, answers):
    return replace(answers, choice_B=answers.choice_B[:-1])


def by_position(pairs, answers):
    return replace(answers, choice_B=(np.arange(len(pairs)) % 2).astype(np.int8))


def by_number_of_queries(pairs, answers):
    return replace(answers, choice_B=np.full_like(answers.choice_B, len(pairs) % 2))


def once_each(pairs, answers):
    """The second query of a pair in one call gets another answer."""
    first = np.unique(pairs.pair_id_N, return_index=True)[1]
    choice_B = answers.choice_B.copy()
    choice_B[np.setdiff1d(np.arange(len(pairs)), first)] = Choice.ABSTAIN
    return replace(answers, choice_B=choice_B)


class Stateful(Honest):
    """Changes its answers from call to call."""

    calls: ClassVar[list[int]] = []

    def annotate(self, pairs, stream):
        self.calls.append(1)
        answers = super().annotate(pairs, stream)
        return replace(answers, choice_B=np.full_like(answers.choice_B, len(self.calls) % 2))


class GlobalNoise(Honest):
    """Draws from a global generator."""

    def annotate(self, pairs, stream):
        random.random()
        return super().annotate(pairs, stream)


class Scribbles(Honest):
    """Writes into the records."""

    def annotate(self, pairs, stream):
        answers = super().annotate(pairs, stream)
        pairs.vote_choice_V[:] = Choice.TIE
        return answers


class NeedsTruth(Honest):
    """Answers from the true probability, and does not check that records have it."""

    def check_records(self, pairs):
        pass

    def annotate(self, pairs, stream):
        answers = super().annotate(pairs, stream)
        return replace(answers, choice_B=(pairs.probability_N > 0.5).astype(np.int8))


class WrongError(Honest):
    """Refuses records with an error of another kind."""

    def check_records(self, pairs):
        if pairs.probability_N is None:
            raise KeyError("probability_N")


class Unpicklable(Honest):
    """Has a setting that cannot be pickled."""

    generator: Any = None


BROKEN = {
    "no oracle": ("a text", "is not an instance of Oracle"),
    "no docstring": (Undocumented(), "has no docstring"),
    "a tuple": (changed(lambda pairs, answers: (1, 2)), "annotate returns tuple"),
    "a list": (
        changed(lambda pairs, a: replace(a, choice_B=a.choice_B.tolist())),
        "choice_B is not an array of integers",
    ),
    "floats": (changed(lambda pairs, a: replace(a, choice_B=a.choice_B * 1.0)), "choice_B is not an array of integers"),
    "short": (changed(shortened), "choice_B has the shape"),
    "unknown": (changed(lambda pairs, a: replace(a, choice_B=a.choice_B + 7)), "choice_B has unknown values"),
    "position": (changed(by_position), "depends on more than the pair and the seed"),
    "number of queries": (changed(by_number_of_queries), "depends on more than the pair and the seed"),
    "once each": (changed(once_each), "given a pair twice in one call"),
    "state": (Stateful(), "depends on more than the pair and the seed"),
    "global": (GlobalNoise(), "the global generator of random"),
    "scribbles": (Scribbles(), "annotate changes vote_choice_V of the records"),
    "no check": (NeedsTruth(), "given pairs without true probabilities, which check_records accepts"),
    "wrong error": (WrongError(), "check_records raised KeyError"),
    "unpicklable": (Unpicklable(generator=(n for n in [1])), "does not work in another process"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_named(case):
    oracle, message = BROKEN[case]
    with pytest.raises(ContractError, match=message) as caught:
        check_oracle(oracle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [-1.0, np.nan])
@pytest.mark.parametrize("name", [item.name for item in fields(Annotations) if item.name not in KINDS])
def test_numbers_about_an_answer_are_finite_and_not_negative(name, value):
    broken = changed(lambda pairs, answers: replace(answers, **{name: np.full(len(pairs), value)}))
    with pytest.raises(ContractError, match=f"{name} has values that are negative or not finite"):
        check_oracle(broken)


def test_records_can_be_given():
    with pytest.raises(ContractError, match="depends on more than the pair"):
        check_oracle(changed(by_position), records=records_of(6, seed=3))
