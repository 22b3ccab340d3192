"""The contract of every acquisition policy."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch

from balbench.harness.component import Component
from balbench.harness.pool.contents import Contents
from balbench.harness.pool.index import PoolIndex, Responses
from balbench.harness.pool.pairs import PreferencePool
from balbench.harness.posteriors.posterior import (
    FittedPosterior,
    logit_scale,
    pair_probability,
    pair_uncertainty,
    sampled_rewards,
)
from balbench.harness.streams import Stream
from balbench.harness.uncertainty import LN2, Uncertainty

Array = np.ndarray
UncertaintyKind = Literal["epistemic", "predictive", "variance"]


@dataclass(frozen=True, eq=False)
class PoolView:
    """The input of a policy in a round: features, posterior, past acquisitions, and no labels of other pairs.

    docs/plug-ins.md lists all names with their shapes and types.

    Attributes:
        index: the pool, and results that depend on its features only.
        unlabelled_U: numbers of the pairs that can be acquired, ascending.
        acquired_n: numbers of the pairs acquired so far, in order of acquisition.
        label_n: float64 labels of the acquired pairs: P(first preferred), NaN where the oracle abstained.
        model: the posterior, fitted to the acquired pairs.
        splits: features and pairs of `pool` and of the held-out splits, by name, without labels.
        round: number of the round, from 0.
    """

    index: PoolIndex
    unlabelled_U: Array
    acquired_n: Array
    label_n: Array
    model: FittedPosterior
    splits: Mapping[str, Responses]
    round: int = 0

    if not TYPE_CHECKING:  # a type checker reports a wrong name itself

        def __getattr__(self, name: str) -> Any:
            """Name the most similar attribute in the error about an unknown attribute."""
            if hasattr(type(self), name):  # a property raised this AttributeError: raise it again
                return object.__getattribute__(self, name)
            raise AttributeError(f"PoolView has no attribute {name!r}{_suggestion(name)}", name=name, obj=self)

    @property
    def pool(self) -> PreferencePool:
        """The pool: features, prompts and pairs."""
        return self.index.pool

    @cached_property
    def rewards_KR(self) -> torch.Tensor:
        """Posterior reward samples of all responses of the pool, float32."""
        return sampled_rewards(self.model, self.splits["pool"].features_RD)

    @cached_property
    def uncertainty_U(self) -> Uncertainty:
        """Uncertainties of the unlabelled pairs."""
        return pair_uncertainty(self.model, self.pairs(self.unlabelled_U), self.rewards_KR)

    @property
    def epistemic_U(self) -> Array:
        """Epistemic uncertainty of the unlabelled pairs, float64: BALD scores, or the posterior's own measure."""
        return self.score_U("epistemic")

    def score_U(self, kind: UncertaintyKind) -> Array:
        """Return an uncertainty of the unlabelled pairs, float64 (U,).

        Args:
            kind: `epistemic` (BALD, or the posterior's own measure), `predictive` entropy or `variance`.

        Raises:
            ValueError: a value is outside the range of its kind.
        """
        uncertainty = self.uncertainty_U
        ranges = {"epistemic": uncertainty.epistemic_range, "predictive": (0.0, LN2), "variance": (0.0, 0.25)}
        scores_U = getattr(uncertainty, f"{kind}_N").cpu().numpy()
        check_range(scores_U, ranges[kind])
        return scores_U

    def probability_Kn(self, pairs: Array) -> torch.Tensor:
        """Return P(first preferred) of pairs under each posterior sample, float64 (K, n)."""
        return pair_probability(self.model, self.pairs(pairs), self.rewards_KR)

    def logit_scale_n(self, pairs: Array) -> torch.Tensor | None:
        """Return the factor of each pair's logit (see `ScaledLogits`), float64 (n,); None if the model has none."""
        return logit_scale(self.model, self.pairs(pairs))

    def pairs(self, pairs: Array) -> Responses:
        """Return the pairs with these numbers, without labels."""
        return self.splits["pool"].take(torch.from_numpy(pairs))

    def responses(self, pairs: Array) -> torch.Tensor:
        """Return the two responses of pairs, int64 (n, 2), on the device."""
        return self.pairs(pairs).responses_N2

    @cached_property
    def embedding_RH(self) -> torch.Tensor:
        """Inputs of the reward model's last layer for all responses of the pool, float32 (see `FittedPosterior`)."""
        return self.model.embedding_RH(self.splits["pool"].features_RD)

    def differences(self, pairs: Array) -> torch.Tensor:
        """Return the gradient of each pair's logit by the weights of the last layer, float32 (n, H).

        It is the embedding of the first response minus that of the second, times the factor of the logit if the model
        has one (see `ScaledLogits`).
        """
        responses_n2, scale_n = self.responses(pairs), self.logit_scale_n(pairs)
        difference_nH = self.embedding_RH[responses_n2[:, 0]] - self.embedding_RH[responses_n2[:, 1]]
        return difference_nH if scale_n is None else difference_nH.mul_(scale_n[:, None])

    def uniform_U(self, stream: Stream) -> Array:
        """Return uniform noise in (0, 1) for each unlabelled pair, float64 (U,), independent of the storage order."""
        return self.index.uniform_N(stream)[self.unlabelled_U]


def view_names() -> list[str]:
    """Return the public names of a `PoolView`, fields first."""
    fields = list(PoolView.__dataclass_fields__)
    return fields + [name for name in vars(PoolView) if not name.startswith("_") and name not in fields]


# Names that authors of policies may try first, and the attributes with the same meaning.
OTHER_NAMES = {
    "features": "splits['pool'].features_RD",
    "prompts": "pool.prompt_of_pair_N",
    "labels": "label_n",
    "unlabeled": "unlabelled_U",
    "entropy": "score_U('predictive')",
    "bald": "epistemic_U",
}


def _suggestion(name: str) -> str:
    """Return advice for an unknown attribute: a similar attribute, or all attributes."""
    meanings = OTHER_NAMES | {known.lower(): known for known in view_names()}
    nearest = difflib.get_close_matches(name.lower(), meanings, n=1, cutoff=0.6)
    return f"; did you mean {meanings[nearest[0]]}?" if nearest else f"; it has {', '.join(view_names())}"


@dataclass(frozen=True)
class Selection:
    """An ordered batch.

    Attributes:
        pairs_B: pair numbers, in the order of acquisition.
        scores_B: the score of each pair when it was chosen.
        diagnostics: finite numbers about the batch, which enter the round's record.
    """

    pairs_B: Array
    scores_B: Array
    diagnostics: Mapping[str, float] = field(default_factory=dict)


class Policy(Component):
    """An acquisition rule. Its fields are its settings in a study file.

    A subclass implements `select` and sets the class attributes below; `family` and `source` have no default.
    """

    family: ClassVar[str] = ""
    """Group of related methods, shown by `balbench list policies`."""
    source: ClassVar[str] = ""
    """Paper and equation."""
    cost: ClassVar[str] = "N"
    """Growth of the time of a batch with N pairs, X distinct prompts and B picks."""
    needs_rewards: ClassVar[bool] = True
    """Whether `select` uses reward samples of the whole pool; their time and uncertainties are then logged."""
    acquires_all: ClassVar[bool] = False
    """Whether the whole pool is labelled before the first round."""
    score_range: ClassVar[tuple[float, float]] = (-np.inf, np.inf)
    """The range of all scores."""

    def check_data(self, contents: Contents) -> None:
        """Check that the data contain what the policy needs: before the first round, and if possible before building.

        Raises:
            DataError: the data lack something; the message names what is missing, and the remedy.
        """

    @abstractmethod
    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Return an ordered batch of unlabelled pairs without repetition, the same for the same stream.

        Args:
            view: the input of the policy, which `select` must not change.
            batch_size: the number of pairs to return, at most the number of unlabelled pairs.
            stream: the source of all randomness of this call.

        Raises:
            ValueError: a score is outside its range.
        """


def take_highest(
    view: PoolView, scores_U: Array, batch_size: int, score_range: tuple[float, float] = (-np.inf, np.inf)
) -> Selection:
    """Select the pairs with the highest scores; ties go to the lowest pair number.

    Args:
        view: the round.
        scores_U: the score of each unlabelled pair.
        batch_size: the number of pairs.
        score_range: the range of valid scores.

    Raises:
        ValueError: a score is not a number, or is outside the range.
    """
    check_range(scores_U, score_range)
    order = np.argsort(-scores_U, kind="stable")[:batch_size]
    return Selection(view.unlabelled_U[order], scores_U[order])


def check_range(scores: Array, limits: tuple[float, float], tolerance: float = 1e-6) -> None:
    """Raise ValueError unless all scores are numbers within their limits."""
    low, high = limits
    if len(scores) and not (scores.min() >= low - tolerance and scores.max() <= high + tolerance):
        raise ValueError(f"scores must be in [{low:.6g}, {high:.6g}]; got [{scores.min():.6g}, {scores.max():.6g}]")
