"""Links of trained posteriors: how the logit of a pair depends on the distance between its two responses.

Reward models expect pairs of distant responses to be clear-cut, because |r_1 - r_2| grows with the distance of the
features. Votes of people need not agree. A link divides the logit by a power of the distance,
logit = (r_1 - r_2) exp(-(a + b log(distance / typical distance))), where the typical distance is the mean over the
split `eval`. So the factor is the same for all policies, seeds and rounds where a and b are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from balbench.harness.pool.feature_table import FeatureTable
from balbench.harness.posteriors.posterior import FittedPosterior, LabelledPairs, Posterior

LinkName = Literal["plain", "distance_normalised", "distance_temperature"]

SMALLEST_DISTANCE = 0.1  # in typical distances; smaller distances count as this, so that factors stay bounded
BOUNDS = ((-7.0, 7.0), (-3.0, 3.0))  # of a and b; exp(7) is about 1000
LEAST_PROBABILITY = 1e-12


class DistanceScale(NamedTuple):
    """The factor of a logit, exp(-(a + b log(distance / typical))).

    Attributes:
        typical: the typical distance.
        log_temperature: a.
        exponent: b.
    """

    typical: float
    log_temperature: float = 0.0
    exponent: float = 1.0

    def relative_log_n(self, distance_n: torch.Tensor) -> torch.Tensor:
        """Return log(distance / typical), float64 (n,)."""
        return (distance_n.double() / self.typical).clamp_min(SMALLEST_DISTANCE).log()

    def __call__(self, distance_n: torch.Tensor) -> torch.Tensor:
        """Return the factors of pairs, float64 (n,)."""
        return torch.exp(-(self.log_temperature + self.exponent * self.relative_log_n(distance_n)))


@dataclass(frozen=True, eq=False)
class LinkedModel:
    """A fitted posterior with factors of its logits (see `FittedPosterior` and `ScaledLogits`).

    Attributes:
        base: the posterior without factors.
        scale: the factors.
    """

    base: FittedPosterior
    scale: DistanceScale

    @property
    def diagnostics(self) -> Mapping[str, float]:
        """The diagnostics of the base, with a and b of the link as `link_log_temperature` and `link_exponent`."""
        own = {"link_log_temperature": self.scale.log_temperature, "link_exponent": self.scale.exponent}
        return dict(getattr(self.base, "diagnostics", {})) | own

    def rewards_KR(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the rewards of the base, float32 (K, R)."""
        return self.base.rewards_KR(features_RD)

    def embedding_RH(self, features_RD: FeatureTable) -> torch.Tensor:
        """Return the embedding of the base, float32 (R, H)."""
        return self.base.embedding_RH(features_RD)

    def logit_scale_N(self, distance_N: torch.Tensor) -> torch.Tensor:
        """Return the factor of each pair's logit, float64 (N,)."""
        return self.scale(distance_N)


class LinkSettings(Posterior):
    """The settings of the link, for all posteriors that have one."""

    link: LinkName = "plain"
    """How the logit of a pair depends on the distance of its responses' features. `plain`: difference of rewards.
    `distance_normalised`: difference of rewards over (distance / mean distance)^distance_exponent, in training too.
    `distance_temperature`: trained as `plain`, then divided by exp(a) (distance / mean distance)^b with a and b fitted
    on the eval split."""
    distance_exponent: float = Field(1.0, gt=0, le=2)
    """Exponent of `distance_normalised`: at 1 the logit of a linear reward no longer grows with distance."""

    @model_validator(mode="after")
    def _exponent_is_of_the_normalised_link(self) -> Self:
        if self.link != "distance_normalised" and self.distance_exponent != 1:
            raise ValueError(f"link {self.link} does not use distance_exponent; leave it out")
        return self

    def pair_link(self, validation: LabelledPairs) -> PairLink:
        """Return the link with the typical distance of the split `eval`."""
        typical = 1.0 if self.link == "plain" else typical_distance(validation)
        return PairLink(self.link, DistanceScale(typical, exponent=self.distance_exponent), validation)


@dataclass(frozen=True, eq=False)
class PairLink:
    """A link with the typical distance of a data set.

    Attributes:
        name: the link.
        scale: the factors of `distance_normalised`.
        validation: the split `eval`, to which `distance_temperature` fits its factors.
    """

    name: LinkName
    scale: DistanceScale
    validation: LabelledPairs

    def for_training(self, pairs: LabelledPairs) -> LabelledPairs:
        """Return pairs with the factors that their logits have in training; only `distance_normalised` has any."""
        if self.name != "distance_normalised":
            return pairs
        return pairs._replace(scale_n=self.scale(pairs.pairs().distance_N).float())

    def attached(self, model: FittedPosterior) -> FittedPosterior:
        """Return a trained posterior with this link; `plain` returns the posterior itself."""
        if self.name == "plain":
            return model
        if self.name == "distance_normalised":
            return LinkedModel(model, self.scale)
        return LinkedModel(model, fitted_temperature(model, self.validation, self.scale.typical))


def typical_distance(validation: LabelledPairs) -> float:
    """Return the mean distance of the pairs of `eval`; 1 if all distances are 0."""
    return float(validation.pairs().distance_N.mean()) or 1.0


def fitted_temperature(model: FittedPosterior, validation: LabelledPairs, typical: float) -> DistanceScale:
    """Return the a and b at which the mean probabilities of a model's samples are most likely on labelled pairs."""
    from scipy.optimize import minimize

    rewards_KR = model.rewards_KR(validation.features_RD).double()
    first_Kn, second_Kn = (rewards_KR[:, validation.responses_n2[:, side]] for side in (0, 1))
    log_n = DistanceScale(typical).relative_log_n(validation.pairs().distance_N)
    objective = _TemperatureLoss(first_Kn - second_Kn, log_n, validation.label_n.double())
    best = minimize(objective, np.zeros(2), jac=True, method="L-BFGS-B", bounds=BOUNDS)
    return DistanceScale(typical, *map(float, best.x))


@dataclass(frozen=True, eq=False)
class _TemperatureLoss:
    """Minus the log-likelihood of labels as a function of a and b, with its gradient.

    Attributes:
        logit_Kn: plain differences of rewards.
        log_n: log relative distances.
        label_n: P(first preferred).
    """

    logit_Kn: torch.Tensor
    log_n: torch.Tensor
    label_n: torch.Tensor

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = parameters
        scaled_Kn = self.logit_Kn * torch.exp(-(a + b * self.log_n))
        p_Kn = torch.sigmoid(scaled_Kn)
        p_n = p_Kn.mean(dim=0).clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        loss_n = -(torch.xlogy(self.label_n, p_n) + torch.xlogy(1 - self.label_n, 1 - p_n))
        by_p_n = (p_n - self.label_n) / (p_n * (1 - p_n))
        by_a_n = -by_p_n * (p_Kn * (1 - p_Kn) * scaled_Kn).mean(dim=0)
        return float(loss_n.mean()), np.array([float(by_a_n.mean()), float((by_a_n * self.log_n).mean())])
