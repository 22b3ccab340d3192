"""One reward head, trained like a member of the ensemble: the base of posteriors on a deterministic network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.posterior import FittedPosterior, LabelledPairs, try_fit
from balbench.harness.posteriors.training_config import TrainingConfig
from balbench.harness.streams import Stream


class SingleHead(TrainingConfig):
    """One MLP head D -> hidden -> 1. With the same settings it equals member 0 of the ensemble."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        name: {key: value for key, value in recipe.items() if key != "members"}
        for name, recipe in Ensemble.presets.items()
    }

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (2048, 256)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation of the hidden layers."""
    weight_std: float = Field(0.01, gt=0)
    """Initial weights are drawn from N(0, weight_std^2), biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""

    def training_bytes(self, dimension: int) -> int:
        """Estimate the bytes of the head's training (see `Ensemble`)."""
        return self.as_ensemble().training_bytes(dimension)

    def fleet_is_exact(self, dimension: int) -> bool:
        """Test training steps of the head (see `Posterior.fleet_is_exact`)."""
        return self.as_ensemble().fleet_is_exact(dimension)

    def as_ensemble(self) -> Ensemble:
        """Return an ensemble of one member with the same settings."""
        settings = {name: getattr(self, name) for name in SingleHead.model_fields}
        return Ensemble(members=1, **settings)


class OnTrainedHead(SingleHead):
    """A posterior that is fitted to a trained head."""

    @abstractmethod
    def fitted(self, heads: Heads, train: LabelledPairs, validation: LabelledPairs, stream: Stream) -> FittedPosterior:
        """Return the posterior of a trained head."""

    def trained_fleet(
        self, trains: Sequence[LabelledPairs], validation: LabelledPairs, streams: Sequence[Stream]
    ) -> list[FittedPosterior | Exception]:
        """Train the heads of all cells as one program (see `TrainingConfig.trained_fleet`)."""
        trained = self.as_ensemble().train_heads(trains, validation, streams)
        return [
            heads if isinstance(heads, Exception) else try_fit(self.fitted, heads, train, validation, stream)
            for heads, train, stream in zip(trained, trains, streams, strict=True)
        ]


def only_used(pairs: LabelledPairs) -> LabelledPairs:
    """Return the same pairs on a table of their own responses only."""
    used_R, row_n2 = torch.unique(pairs.responses_n2, return_inverse=True)
    return pairs._replace(features_RD=pairs.features_RD[used_R], responses_n2=row_n2)


def preferred_weights(train: LabelledPairs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Assign the responses of labelled pairs to the classes preferred and other; the weights are shares of votes.

    Returns:
        The responses (2n,), and their float64 weights in the classes of preferred and of other responses; the weights
        of each class sum to n.
    """
    label_n = train.label_n.double()
    responses = train.responses_n2.T.flatten()
    preferred = torch.cat([label_n, 1 - label_n])
    return responses, preferred, 1 - preferred
