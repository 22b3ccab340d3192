"""A quiet study that runs in seconds and in which a policy learns, for tests of the gate."""

import copy
from typing import Any

import numpy as np
import yaml

from balbench.harness.policies.policy import Policy, PoolView, Selection, take_highest
from balbench.harness.streams import Stream

QUIET: dict[str, Any] = yaml.safe_load("""
name: quiet
dataset:
  {name: simulated, pool_pairs: 900, pool_prompts: 150, eval_pairs: 60, test_pairs: 600, ood_pairs: 60, dimension: 16,
   latent_dimension: 6, nonlinearity: 0.0, local: 0.0, agreement: 0.8}
posterior: {name: bayesian_linear, prior_precision: 0.05, samples: 20}
policies: [random, bald]
seeds: 5
reference_seeds: 5
protocol: {initial: 30, batch: 30, rounds: 5}
""")


def quiet(**changes: Any) -> dict[str, Any]:
    """Return the study with other values for some keys."""
    return copy.deepcopy(QUIET | changes)


class Refactored(Policy):
    """BALD, written in another way: the highest scores by a partial sort."""

    family, source = "uncertainty", "-"

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        scores_U = view.score_U("epistemic")
        order = np.lexsort((view.unlabelled_U, -scores_U))[:batch_size]
        return Selection(view.unlabelled_U[order], scores_U[order])


class Turned(Policy):
    """BALD with one sign turned: the pairs that the model is surest of."""

    family, source = "uncertainty", "-"

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        return take_highest(view, -view.score_U("epistemic"), batch_size)


class Failing(Policy):
    """A policy with a fault."""

    family, source = "uncertainty", "-"

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        raise ValueError("no scores")
