"""The contract of every posterior."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, Protocol

import torch

from harness.component import Component
from harness.streams import Stream


class AnsweredPairs(NamedTuple):
    """Pairs with answers, on one device.

    Attributes:
        features_RD: float32 features of the responses that the pairs index into.
        responses_n2: the two responses of each pair.
        target_n: float32 P(first preferred): 1 or 0 for an answer, 0.5 for a tie, a share for several votes.
    """

    features_RD: torch.Tensor
    responses_n2: torch.Tensor
    target_n: torch.Tensor


class FittedPosterior(Protocol):
    """A posterior given labels."""

    def rewards_KR(self, features_RD: torch.Tensor) -> torch.Tensor:
        """Return float32 reward samples (K, R) of responses, the same sample k in every call."""
        ...


class DivergedError(ArithmeticError):
    """Training gave a loss that is not a number."""


class Posterior(Component):
    """A reward model with its uncertainty. Its fields are its settings in a study file."""

    @abstractmethod
    def fit(self, train: AnsweredPairs, validation: AnsweredPairs, stream: Stream) -> FittedPosterior:
        """Fit from new weights.

        Args:
            train: the labels bought so far, in order of acquisition.
            validation: the split `eval`, to select by.
            stream: the source of all randomness of this call.

        Raises:
            DivergedError: the loss is not a number.
        """
