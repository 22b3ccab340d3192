"""The contract of every posterior."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import torch

from balbench.harness.component import Component
from balbench.harness.errors import BalbenchError
from balbench.harness.machine import out_of_memory
from balbench.harness.pool.feature_table import FeatureTable
from balbench.harness.pool.index import Responses
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import Uncertainty, pair_probabilities, uncertainty

T = TypeVar("T")


class LabelledPairs(NamedTuple):
    """Pairs with labels, on one device.

    Attributes:
        features_RD: float32 features of the responses that the pairs index into.
        responses_n2: the two responses of each pair.
        label_n: float32 P(first preferred): 1 or 0 for a vote, 0.5 for a tie, the share of several votes.
        known_distances: returns the distances of the pairs; without it they are computed from the features.
        scale_n: float32 factor of each pair's logit during training; None for 1 (see `ScaledLogits`).
    """

    features_RD: FeatureTable
    responses_n2: torch.Tensor
    label_n: torch.Tensor
    known_distances: Callable[[], torch.Tensor] | None = None
    scale_n: torch.Tensor | None = None

    def pairs(self) -> Responses:
        """Return the pairs without their labels."""
        return Responses(self.features_RD, self.responses_n2, self.known_distances)


class FittedPosterior(Protocol):
    """A posterior after its fit to labels.

    A fitted posterior may have an attribute `diagnostics: Mapping[str, float]`: finite numbers about the fit, which
    each round records as `metrics["fit"]`. Trained posteriors report these means over members:

    - `steps`: training steps;
    - `evaluation_loss_start`, `evaluation_loss_best`, `evaluation_loss_end`: loss on the split `eval` at the initial
      weights, at the best later evaluation and at the last evaluation, in nats per pair;
    - `best_is_initial`: share of members whose best later evaluation is no better than their initial weights;
    - `still_improving`: share of members whose last evaluation is their best;
    - `learning_rate`: the peak learning rate.

    Posteriors with a closed form have no diagnostics.
    """

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return float32 reward samples (K, R) of responses, the same sample k in every call."""
        ...

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the inputs of the last layer of sample 0's reward model, float32 (R, H).

        The last layer is linear, so the embedding is the gradient of the rewards by its weights. Gradient and design
        policies use it. A linear model returns its (scaled) features.
        """
        ...


def fit_diagnostics(model: FittedPosterior) -> dict[str, float]:
    """Check and return the diagnostics of a fitted posterior; empty if it has none.

    Raises:
        TypeError: the diagnostics are not a mapping of names to numbers.
        ValueError: a number is not finite.
    """
    diagnostics = getattr(model, "diagnostics", {})
    if not isinstance(diagnostics, Mapping):
        raise TypeError(f"the posterior's diagnostics are a {type(diagnostics).__name__}; give a mapping of numbers")
    for name, value in diagnostics.items():
        if not isinstance(name, str) or not isinstance(value, int | float):
            raise TypeError(f"the posterior's diagnostics contain {name!r}: {value!r}; give names and numbers")
        if not math.isfinite(value):
            raise ValueError(f"the posterior's diagnostics contain {name!r}: {value}; give finite numbers")
    return {name: float(value) for name, value in diagnostics.items()}


def sampled_rewards(model: FittedPosterior, features_RD: FeatureTable) -> torch.Tensor:
    """Check and return the rewards of a fitted posterior, float32 (K, R).

    Raises:
        TypeError: the model returns no tensor of rewards.
        ValueError: the rewards have the wrong shape or are not all finite.
    """
    if not hasattr(model, "rewards_KR"):
        raise TypeError(f"the posterior's fit returned {type(model).__name__}, which has no rewards_KR")
    rewards_KR, R = model.rewards_KR(features_RD), len(features_RD)
    if not isinstance(rewards_KR, torch.Tensor):
        raise TypeError(f"the posterior's rewards_KR returned {type(rewards_KR).__name__}; return a torch.Tensor")
    if rewards_KR.ndim != 2 or rewards_KR.shape[1] != R:
        raise ValueError(f"the posterior must return rewards (K, {R}); got {tuple(rewards_KR.shape)}")
    if not rewards_KR.isfinite().all():
        raise ValueError("the posterior's rewards are not all finite; lower posterior.learning_rate")
    return rewards_KR


@runtime_checkable
class OwnEpistemic(Protocol):
    """A fitted posterior whose epistemic uncertainty is not the disagreement of its samples.

    Attributes:
        epistemic_range: lowest and highest value of the uncertainty.
    """

    epistemic_range: tuple[float, float]

    def epistemic_N(
        self, features_RD: FeatureTable, responses_N2: torch.Tensor, rewards_KR: torch.Tensor
    ) -> torch.Tensor:
        """Return the uncertainty of each pair, float64 (N,), given the model's rewards; higher is more uncertain."""
        ...


@runtime_checkable
class ScaledLogits(Protocol):
    """A fitted posterior whose logit of a pair is the difference of the two rewards times a factor of the pair.

    Training, evaluation and all policies that use probabilities of pairs or gradients of logits respect the factor.
    """

    def logit_scale_N(self, distance_N: torch.Tensor) -> torch.Tensor:
        """Return the factor of each pair, positive and float64 (N,).

        Args:
            distance_N: Euclidean distance between the features of the pair's responses, float64.
        """
        ...


def logit_scale(model: FittedPosterior, pairs: Responses) -> torch.Tensor | None:
    """Return the factor of each pair's logit, float64 (N,), or None if all logits are plain differences of rewards."""
    return model.logit_scale_N(pairs.distance_N) if isinstance(model, ScaledLogits) else None


def pair_probability(model: FittedPosterior, pairs: Responses, rewards_KR: torch.Tensor) -> torch.Tensor:
    """Return P(first preferred) of pairs under each sample of a posterior, float64 (K, N), given its rewards."""
    return pair_probabilities(rewards_KR, pairs.responses_N2, logit_scale(model, pairs))


def pair_uncertainty(model: FittedPosterior, pairs: Responses, rewards_KR: torch.Tensor) -> Uncertainty:
    """Return uncertainties of pairs, given rewards, with the posterior's own epistemic measure if it has one."""
    of_samples = uncertainty(pair_probability(model, pairs, rewards_KR))
    if isinstance(model, OwnEpistemic):
        own_N = model.epistemic_N(pairs.features_RD, pairs.responses_N2, rewards_KR)
        return replace(of_samples, epistemic_N=own_N, epistemic_range=model.epistemic_range)
    return of_samples


class DivergedError(ArithmeticError):
    """The loss became infinite or not a number."""


def try_fit(fit: Callable[..., T], *arguments: Any) -> T | Exception:
    """Return the result of a call, or its error. A `BalbenchError` or a full memory is raised."""
    try:
        return fit(*arguments)
    except Exception as error:
        if isinstance(error, BalbenchError) or out_of_memory(error):
            raise
        return error


def unwrap(result: T | Exception) -> T:
    """Return a result, or raise it if it is an error."""
    if isinstance(result, Exception):
        raise result
    return result


class Posterior(Component):
    """A reward model with its uncertainty. Its fields are its settings in a study file."""

    @abstractmethod
    def fit(self, train: LabelledPairs, validation: LabelledPairs, stream: Stream) -> FittedPosterior:
        """Fit from new initial weights.

        Args:
            train: the labels bought so far, in order of acquisition.
            validation: the split `eval`, for model selection.
            stream: the source of all randomness of this call.

        Raises:
            DivergedError: the loss is not finite.
        """

    def tuned(self, initial: LabelledPairs, validation: LabelledPairs) -> Self:
        """Return the posterior with its automatic settings chosen; the default is the posterior itself.

        A cell is tuned once, on its initial set, and keeps the settings in all rounds. The initial set is random and
        the same for all policies of a seed, so all policies have the same settings.

        Args:
            initial: the labels of the initial set.
            validation: the split `eval`.
        """
        return self

    def evaluations(self, labels: int) -> int:
        """Estimate how often the fit of one cell scores the split `eval`, for estimates of time."""
        return 1

    def training_bytes(self, dimension: int) -> int:
        """Estimate how many bytes of device memory the training of one cell takes, without features.

        Args:
            dimension: length of the features of a response.
        """
        return 16 * dimension**2  # a linear posterior has two float64 matrices of this size

    def fleet_is_exact(self, dimension: int) -> bool:
        """Return whether `fit_fleet` gives each cell the same bits as a fleet of one, on the CPU of this process.

        If not, workers fit the cells of a fleet one after another. The default of `fit_fleet` is exact. A posterior
        that fits cells as one batched program tests its matrix products here (see `fleets_are_exact`).

        Args:
            dimension: length of the features of a response.
        """
        return True

    def fit_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Fit one model for each cell of a fleet; a failed fit gives its error and does not affect the others.

        The default fits the cells one after another. A posterior can fit all cells as one batched program instead.

        Args:
            trains: the labels of each cell.
            validation: the split `eval`, the same for all cells.
            streams: the randomness of each cell.

        Raises:
            BalbenchError: the machine or the input is at fault, not a cell.
            MemoryError: the memory is full (or torch's error, see `out_of_memory`).
        """
        return [try_fit(self.fit, train, validation, stream) for train, stream in zip(trains, streams, strict=True)]
