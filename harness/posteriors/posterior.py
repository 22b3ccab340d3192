"""The contract of every posterior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch

from balbench.harness.component import Component
from balbench.harness.errors import BalbenchError
from balbench.harness.machine import out_of_memory
from balbench.harness.pool.feature_table import FeatureTable
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import Uncertainty, pair_probabilities, uncertainty

T = TypeVar("T")


class LabelledPairs(NamedTuple):
    """Pairs with answers, on one device.

    Attributes:
        features_RD: float32 features of the responses that the pairs index into.
        responses_n2: the two responses of each pair.
        label_n: float32 P(first preferred): 1 or 0 for an answer, 0.5 for a tie, a share for several votes.
    """

    features_RD: FeatureTable
    responses_n2: torch.Tensor
    label_n: torch.Tensor


class FittedPosterior(Protocol):
    """A posterior given labels."""

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return float32 reward samples (K, R) of responses, the same sample k in every call."""
        ...

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return what the last layer of sample 0's reward model sees, float32 (R, H).

        That layer is linear, so these are the gradients of its rewards by its weights, which gradient and design
        policies work on. A linear model returns its (scaled) features.
        """
        ...


def sampled_rewards(model: FittedPosterior, features_RD: FeatureTable) -> torch.Tensor:
    """Return the rewards of a fitted posterior, float32 (K, R), checked.

    Raises:
        TypeError: there are no rewards.
        ValueError: they have another shape, or are not all numbers.
    """
    if not hasattr(model, "rewards_KR"):
        raise TypeError(f"the posterior's fit returned {type(model).__name__}, which has no rewards_KR")
    rewards_KR, R = model.rewards_KR(features_RD), len(features_RD)
    if not isinstance(rewards_KR, torch.Tensor):
        raise TypeError(f"the posterior's rewards_KR returned {type(rewards_KR).__name__}; return a torch.Tensor")
    if rewards_KR.ndim != 2 or rewards_KR.shape[1] != R:
        raise ValueError(f"the posterior must return rewards (K, {R}); got {tuple(rewards_KR.shape)}")
    if not rewards_KR.isfinite().all():
        raise ValueError("the posterior's rewards are not all finite; lower posterior.learning_rate, or mend it")
    return rewards_KR


@runtime_checkable
class OwnEpistemic(Protocol):
    """A fitted posterior whose epistemic uncertainty is not the disagreement of its samples.

    Attributes:
        epistemic_range: what its values lie in.
    """

    epistemic_range: tuple[float, float]

    def epistemic_N(
        self, features_RD: FeatureTable, responses_N2: torch.Tensor, rewards_KR: torch.Tensor
    ) -> torch.Tensor:
        """Return the uncertainty of each pair, float64 (N,); more is more uncertain. `rewards_KR` are its rewards."""
        ...


def pair_uncertainty(
    model: FittedPosterior, features_RD: FeatureTable, responses_N2: torch.Tensor, rewards_KR: torch.Tensor
) -> Uncertainty:
    """Uncertainties of pairs of responses; the epistemic one is the posterior's own where it has one."""
    found = uncertainty(pair_probabilities(rewards_KR, responses_N2))
    if isinstance(model, OwnEpistemic):
        own_N = model.epistemic_N(features_RD, responses_N2, rewards_KR)
        return replace(found, epistemic_N=own_N, epistemic_range=model.epistemic_range)
    return found


class DivergedError(ArithmeticError):
    """Training gave a loss that is not a number."""


def try_fit(make: Callable[..., T], *arguments: Any) -> T | Exception:
    """Return what a call gives or the error that it ends with, except where the machine is at fault."""
    try:
        return make(*arguments)
    except Exception as error:
        if isinstance(error, BalbenchError) or out_of_memory(error):
            raise
        return error


def unwrap(found: T | Exception) -> T:
    """Return what was found, or raise it where it is an error."""
    if isinstance(found, Exception):
        raise found
    return found


class Posterior(Component):
    """A reward model with its uncertainty. Its fields are its settings in a study file."""

    @abstractmethod
    def fit(self, train: LabelledPairs, validation: LabelledPairs, stream: Stream) -> FittedPosterior:
        """Fit from new weights.

        Args:
            train: the labels bought so far, in order of acquisition.
            validation: the split `eval`, to select by.
            stream: the source of all randomness of this call.

        Raises:
            DivergedError: the loss is not a number.
        """

    def training_bytes(self, dimension: int) -> int:
        """About how many bytes on the device the training of one cell takes, features apart.

        Args:
            dimension: of the features of a response.
        """
        return 16 * dimension**2  # a linear posterior: some float64 matrices of that size

    def fit_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Fit one model for each cell of a fleet; a fit that fails gives its error and leaves the others alone.

        Here one after another; a posterior that can fits them as one batched program.

        Args:
            trains: the labels of each cell.
            validation: the split `eval`, the same for all.
            streams: the randomness of each cell.

        Raises:
            BalbenchError: the machine is at fault.
            MemoryError: so is its memory (or torch's error, see `out_of_memory`).
        """
        return [try_fit(self.fit, train, validation, stream) for train, stream in zip(trains, streams, strict=True)]
