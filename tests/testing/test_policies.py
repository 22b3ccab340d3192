"""`check_policy` fails for policies that break one promise each, and its message names the promise."""

import random
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from balbench.harness.errors import DataError
from balbench.harness.policies.policy import Policy, Selection, take_highest
from balbench.harness.policies.random import Random
from balbench.testing import ContractError, check_policy
from balbench.testing.contract import global_states
from balbench.testing.examples import pool_of, view_of


class Honest(Random):
    """Random choice; the policies below change one thing."""


class NoSource(Honest):
    """Has no source."""

    source: ClassVar[str] = ""


class Undocumented(Honest):
    pass


class OldVersion(Honest):
    """Has an invalid version."""

    version: ClassVar[int] = 0


class Refuses(Honest):
    """Refuses complete data."""

    def check_data(self, contents):
        raise DataError("the data have no weather report")


class Raises(Honest):
    """Raises an error for a pool of one prompt."""

    def select(self, view, batch_size, stream):
        if len(view.pool.prompt_features_PQ) == 1:
            raise IndexError("no second prompt")
        return super().select(view, batch_size, stream)


class Tuple(Honest):
    """Returns a tuple."""

    def select(self, view, batch_size, stream):
        return view.unlabelled_U[:batch_size], np.ones(batch_size)


def changed(change) -> type[Policy]:
    """Random choice whose selection is changed by a function of view and selection."""

    class Changed(Honest):
        """Changes a selection."""

        def select(self, view, batch_size, stream):
            return change(view, super().select(view, batch_size, stream))

    return Changed


class OneTooFew(Honest):
    """Never selects the last pair, so that the last batch is short."""

    def select(self, view, batch_size, stream):
        return super().select(view, min(batch_size, len(view.unlabelled_U) - 1), stream)


class Stateful(Honest):
    """Remembers how often it was called."""

    calls: ClassVar[list[int]] = []

    def select(self, view, batch_size, stream):
        self.calls.append(1)
        return super().select(view, batch_size, stream.child(len(self.calls)))


class OwnNoise(Honest):
    """Draws from the operating system's entropy."""

    def select(self, view, batch_size, stream):
        return take_highest(view, np.random.default_rng().random(len(view.unlabelled_U)), batch_size)


def drawing(draw) -> type[Policy]:
    """A policy that calls a function before it selects."""

    class Drawing(Honest):
        """Draws from a global generator."""

        def select(self, view, batch_size, stream):
            draw()
            return super().select(view, batch_size, stream)

    return Drawing


class HiddenGlobal(Honest):
    """Draws from the global generator and restores its state."""

    def select(self, view, batch_size, stream):
        state = random.getstate()
        noise_U = np.array([random.random() for _ in view.unlabelled_U])
        random.setstate(state)
        return take_highest(view, noise_U, batch_size)


class StoragePosition(Honest):
    """Draws noise by position in the pool."""

    def select(self, view, batch_size, stream):
        return take_highest(view, stream.numpy().random(len(view.unlabelled_U)), batch_size)


class Scribbles(Honest):
    """Writes into the view."""

    target: str = "label_n"

    def select(self, view, batch_size, stream):
        selection = super().select(view, batch_size, stream)
        array = getattr(view, self.target)
        if len(array):
            array += 1
        return selection


class ScribblesOnRewards(Scribbles):
    """Writes into the rewards."""

    needs_rewards: ClassVar[bool] = True
    target: str = "rewards_KR"


class Undeclared(Honest):
    """Uses rewards although it says that it does not."""

    def select(self, view, batch_size, stream):
        return take_highest(view, view.epistemic_U, batch_size)


class InMemoryOnly(Honest):
    """Needs all features as one tensor."""

    def select(self, view, batch_size, stream):
        features = view.splits["pool"].features_RD
        if not isinstance(features, torch.Tensor):
            return take_highest(view, np.zeros(len(view.unlabelled_U)), batch_size)
        return super().select(view, batch_size, stream)


class Unpicklable(Honest):
    """Has a setting that cannot be pickled."""

    generator: Any = None

    def select(self, view, batch_size, stream):
        return super().select(view, batch_size, stream)


class FromTheEnd(Honest):
    """A larger batch does not begin with the smaller one."""

    def select(self, view, batch_size, stream):
        selection = super().select(view, batch_size, stream)
        return Selection(selection.pairs_B[::-1], selection.scores_B[::-1])


def shifted(view, selection):
    return replace(selection, pairs_B=np.searchsorted(view.unlabelled_U, selection.pairs_B))


BROKEN = {
    "no policy": (Random, "is not an instance of Policy"),
    "no source": (NoSource(), "has no source"),
    "no docstring": (Undocumented(), "has no docstring"),
    "no version": (OldVersion(), "has the version 0"),
    "refuses data": (Refuses(), "check_data raised DataError: the data have no weather report"),
    "raises": (Raises(), "select raised IndexError: no second prompt .given the round 'one prompt'"),
    "a tuple": (Tuple(), "select returns tuple"),
    "a list": (
        changed(lambda view, s: replace(s, pairs_B=s.pairs_B.tolist()))(),
        "pairs_B is not an array of integers",
    ),
    "floats": (changed(lambda view, s: replace(s, pairs_B=s.pairs_B * 1.0))(), "pairs_B is not an array of integers"),
    "one score": (changed(lambda view, s: replace(s, scores_B=s.scores_B[:1]))(), "scores_B has 1 entries"),
    "one too few": (OneTooFew(), "pairs_B has .* entries"),
    "repetition": (changed(lambda view, s: replace(s, pairs_B=s.pairs_B[:1].repeat(len(s.pairs_B))))(), "7 times"),
    "places": (changed(shifted)(), "not unlabelled"),
    "NaN": (changed(lambda view, s: replace(s, scores_B=s.scores_B * np.nan))(), "scores are not finite"),
    "range": (changed(lambda view, s: replace(s, scores_B=s.scores_B + 2))(), "keep them within score_range"),
    "diagnostics": (
        changed(lambda view, s: replace(s, diagnostics={"x": np.inf}))(),
        "diagnostics .'x'. are not finite numbers",
    ),
    "state": (Stateful(), "gives two answers to the same view and stream"),
    "own noise": (OwnNoise(), "gives two answers to the same view and stream"),
    "global random": (drawing(random.random)(), "the global generator of random"),
    "global numpy": (drawing(np.random.random)(), "the global generator of numpy"),
    "global torch": (drawing(lambda: torch.rand(1))(), "the global generator of torch"),
    "hidden global": (HiddenGlobal(), "gives two answers to the same view and stream"),
    "storage": (StoragePosition(), "another batch where the pool is stored in another order"),
    "label_n": (Scribbles(), "select changes label_n of the view"),
    "unlabelled_U": (Scribbles(target="unlabelled_U"), "select changes unlabelled_U of the view"),
    "rewards": (ScribblesOnRewards(), "select changes rewards_KR of the view"),
    "undeclared": (Undeclared(), "uses posterior rewards although needs_rewards is False"),
    "disk": (InMemoryOnly(), "gives another batch where features are read from disk"),
    "unpicklable": (Unpicklable(generator=(n for n in [1])), "does not work in another process"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_named(case):
    policy, message = BROKEN[case]
    with pytest.raises(ContractError, match=message) as caught:
        check_policy(policy)
    assert "\n" not in str(caught.value)


def test_a_batch_that_does_not_continue_the_smaller_one():
    with pytest.raises(ContractError, match="does not begin with the smaller one"):
        check_policy(FromTheEnd(), nested=True)


def test_a_policy_may_depend_on_the_storage_order_if_it_says_so():
    check_policy(StoragePosition(), storage_order="ignored")


def test_the_global_generators_of_the_caller_stay_as_they_are():
    before = global_states()
    check_policy(Random())
    assert global_states() == before


def test_rounds_can_be_given():
    with pytest.raises(ContractError, match="the round 'small'"):
        check_policy(OneTooFew(), views={"small": view_of(pool_of(prompts=3))})
