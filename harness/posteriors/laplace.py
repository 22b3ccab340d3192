"""Last-layer Laplace approximation of a trained reward head (Kristiadi et al. 2020; Daxberger et al. 2021)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from balbench.harness.posteriors.gaussian import BradleyTerry, Linear, best_samples, differences
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.posteriors.single_head import OnTrainedHead, only_used
from balbench.harness.streams import Stream

PRIOR_GRID = tuple(10.0**power for power in range(4, -5, -1))


class Laplace(OnTrainedHead):
    """One trained head; Gaussian over its last layer's weights (2106.14806, section 3).

    The Gaussian has the trained weights as its mean and lambda I + sum p (1 - p) d d^T as its precision, where d is the
    difference of the last hidden layer between the two responses. The last bias cancels in every pair.
    """

    samples: int = Field(50, ge=1, le=4096)
    """K, the number of draws from the Gaussian."""
    prior_precision: Annotated[float, Field(gt=0)] | Literal["eval"] = "eval"
    """Lambda. `eval` chooses from 1e4, 1e3, ..., 1e-4 the value with which the samples' mean probabilities have the
    highest log-likelihood on the eval split."""

    def fitted(self, heads: Heads, train: LabelledPairs, validation: LabelledPairs, stream: Stream) -> Linear:
        """Approximate the posterior of the last layer's weights."""
        weights_H = heads.weights[-1][0, :, 0].double()
        used = only_used(train)
        likelihood = BradleyTerry(differences(heads.embedding_RH(used.features_RD), used.responses_n2), used.label_n)
        samples_KH = best_samples(
            lambda prior: likelihood.laplace(weights_H, prior),
            PRIOR_GRID if self.prior_precision == "eval" else (self.prior_precision,),
            self.samples,
            stream.child("samples").torch,
            differences(heads.embedding_RH(validation.features_RD), validation.responses_n2),
            validation.label_n,
        )
        return Linear(heads.embedding_RH, samples_KH, heads.diagnostics)
