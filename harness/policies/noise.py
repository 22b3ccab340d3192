"""Noise of policies that choose at random: new in each round, or restarted as in the code of BAL-PM."""

from __future__ import annotations

from typing import Literal

import numpy as np

from balbench.harness.policies.policy import Array, PoolView
from balbench.harness.streams import Stream

CODED_SEED = 42  # the authors' trainer seeds NumPy's generator with it before every selection
NoiseVariant = Literal["published", "as_coded"]


def coded_generator() -> np.random.RandomState:
    """Return NumPy's legacy generator in the state that the code of BAL-PM (Melo et al. 2024) selects batches with."""
    return np.random.RandomState(CODED_SEED)


def coded_order(view: PoolView, stream: Stream) -> Array:
    """Order the unlabelled pairs as in a pool that the seed of the run shuffles, once for all rounds.

    Returns:
        Positions in `view.unlabelled_U`, shape (U,).
    """
    return np.argsort(view.uniform_U(Stream(stream.seed, ("pool order",))), kind="stable")


def uniform_noise(view: PoolView, stream: Stream, variant: NoiseVariant) -> Array:
    """Return uniform noise in (0, 1) for each unlabelled pair, shape (U,)."""
    if variant == "published":
        return view.uniform_U(stream) * (1 - 1e-16)  # Gumbel noise is infinite at 1
    uniform_U = np.empty(len(view.unlabelled_U))
    uniform_U[coded_order(view, stream)] = coded_generator().uniform(size=len(uniform_U))
    return uniform_U


def gumbel(uniform_U: Array, beta: float) -> Array:
    """Transform uniform noise in (0, 1) to Gumbel(0, 1/beta) noise."""
    return -np.log(-np.log(uniform_U)) / beta
