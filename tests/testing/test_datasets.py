"""`check_dataset` fails for data sets that break one promise each, and its message names the promise."""

import random
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from balbench.harness.datasets.simulated import Simulated
from balbench.harness.pool.contents import Contents
from balbench.testing import ContractError, check_dataset


class Honest(Simulated):
    """A small simulated world; the data sets below change one thing."""

    pool_pairs: int = 120
    pool_prompts: int = 30
    eval_pairs: int = 30
    test_pairs: int = 30
    ood_pairs: int = 30
    topics: int = 5
    dimension: int = 4
    latent_dimension: int = 3


class Undocumented(Honest):
    pass


def changed(change) -> Honest:
    """A data set whose data are changed by a function of them."""

    class Changed(Honest):
        """Changes data."""

        def build(self, progress):
            return change(super().build(progress))

    return Changed()


def returning(method: str, value: Any) -> Honest:
    """A data set with a method that returns a value."""

    class Returning(Honest):
        """Returns another value."""

    setattr(Returning, method, lambda self: value(getattr(Honest, method)(self)) if callable(value) else value)
    return Returning()


def in_split(data, name, **arrays):
    split = data.splits[name]
    return replace(data, splits=data.splits | {name: replace(split, pairs=replace(split.pairs, **arrays))})


def leaking(data):
    prompts = data.splits["test"].pairs.prompt_features_PQ.copy()
    prompts[data.splits["test"].pairs.prompt_of_pair_N[0]] = data.splits["pool"].pairs.prompt_features_PQ[
        data.splits["pool"].pairs.prompt_of_pair_N[0]
    ]
    return in_split(data, "test", prompt_features_PQ=prompts)


def sharing_a_pair(data):
    split = data.splits["test"]
    identifiers = split.pairs.pair_id_N.astype("U99")
    identifiers[0] = data.splits["eval"].pairs.pair_id_N[0]
    both = replace(
        split, pairs=replace(split.pairs, pair_id_N=identifiers), records=replace(split.records, pair_id_N=identifiers)
    )
    return replace(data, splits=data.splits | {"test": both})


def noisy(data):
    noise = np.random.default_rng().normal(size=data.splits["pool"].pairs.response_features_RD.shape)
    return in_split(data, "pool", response_features_RD=noise.astype(np.float32))


def with_infinity(data):
    features = data.splits["pool"].pairs.response_features_RD.copy()
    features[0] = np.inf
    return in_split(data, "pool", response_features_RD=features)


class GlobalNoise(Honest):
    """Draws from a global generator."""

    def build(self, progress):
        random.random()
        return super().build(progress)


class WrongProgress(Honest):
    """Reports more work done than there is."""

    def build(self, progress):
        progress("encoding", 3, 2)
        return super().build(progress)


class KeyFromCounter(Honest):
    """A key that changes from call to call."""

    calls: ClassVar[list[int]] = []

    def source_key(self):
        self.calls.append(1)
        return str(len(self.calls))


class OneSeedOnly(Honest):
    """Builds data for seed 0 only."""

    def build(self, progress):
        if self.data_seed:
            raise ValueError("only seed 0")
        return super().build(progress)


class Unpicklable(Honest):
    """Has a setting that cannot be pickled."""

    generator: Any = None


def without(*names):
    return lambda data: replace(data, splits={name: split for name, split in data.splits.items() if name not in names})


BROKEN = {
    "no dataset": ("a text", "is not an instance of Dataset"),
    "no docstring": (Undocumented(), "has no docstring"),
    "a dict": (changed(lambda data: data.splits), "build returns dict"),
    "no eval": (changed(without("eval")), "check raised DataError: .*no split 'eval'"),
    "nothing to judge by": (changed(without("test", "ood")), "has neither test nor ood"),
    "infinity": (changed(with_infinity), "check raised DataError: .*NaN or infinity"),
    "leak": (changed(leaking), "1 prompts of test have the features of prompts of pool"),
    "pair in two splits": (changed(sharing_a_pair), "is in test and in another split"),
    "noise": (changed(noisy), "pool.response_features_RD differ from build to build"),
    "global": (GlobalNoise(), "the global generator of random"),
    "progress": (WrongProgress(), "progress is called with 'encoding', 3, 2"),
    "pairs": (returning("sizes", lambda sizes: replace(sizes, pairs=sizes.pairs + 1)), "sizes says 121 pairs"),
    "eval": (returning("sizes", lambda sizes: replace(sizes, eval_pairs=7)), "sizes says 7 eval_pairs, build gives"),
    "dimension": (returning("sizes", lambda sizes: replace(sizes, dimension=5)), "sizes says 5 dimension"),
    "responses": (
        returning("sizes", lambda sizes: replace(sizes, responses=2 * sizes.responses)),
        "return a number within 25% of it",
    ),
    "no sizes": (returning("sizes", None), "sizes returns NoneType"),
    "contents": (returning("contents", Contents(("pool", "eval"))), "contents says"),
    "no key": (returning("source_key", 3), "source_key returns 3"),
    "other key": (KeyFromCounter(), "source_key returns '1', then '2'"),
    "one seed": (OneSeedOnly(), "build raised ValueError: only seed 0 .given data_seed 1"),
    "unpicklable": (Unpicklable(generator=(n for n in [1])), "does not work in another process"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_named(case):
    dataset, message = BROKEN[case]
    with pytest.raises(ContractError, match=message) as caught:
        check_dataset(dataset)
    assert "\n" not in str(caught.value)


def test_a_small_simulated_world_passes():
    check_dataset(Honest())


def test_another_seed_may_be_left_out():
    check_dataset(OneSeedOnly(), other_seed=False)
