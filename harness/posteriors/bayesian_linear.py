"""Bayesian linear reward on the frozen features, under the Bradley-Terry likelihood (RewardUQ, 2602.24040)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from balbench.harness.posteriors.gaussian import PRIOR_GRID, BradleyTerry, Gaussian, Linear, Standardiser, best_samples
from balbench.harness.posteriors.links import LinkSettings
from balbench.harness.posteriors.posterior import FittedPosterior, LabelledPairs
from balbench.harness.streams import Stream


class BayesianLinear(LinkSettings):
    """Bayesian logistic regression on differences of standardised features: posterior mode, Laplace samples.

    Each feature gets mean 0 and variance 1 / D over all responses of the pool, labelled or not, so that the prior
    variance of a typical reward is 1 / prior_precision.
    """

    samples: int = Field(50, ge=1, le=4096)
    """K, the number of draws from the Gaussian."""
    prior_precision: Annotated[float, Field(gt=0)] | Literal["eval"] = "eval"
    """Lambda. `eval` chooses from 100, 10, 1, 0.1 and 0.01 the value with which the samples' mean probabilities have
    the highest log-likelihood on the eval split (five fits instead of one)."""

    def fit(self, train: LabelledPairs, validation: LabelledPairs, stream: Stream) -> FittedPosterior:
        """Find the mode, draw samples and fit the link (see `Posterior.fit`)."""
        link = self.pair_link(validation)
        model = self._samples(link.for_training(train), link.for_training(validation), stream)
        return link.attached(model)

    def _samples(self, train: LabelledPairs, validation: LabelledPairs, stream: Stream) -> Linear:
        """Find the mode and draw samples."""
        standardise = Standardiser(train.features_RD)
        difference_nD, validation_nD = (
            standardise.differences(pairs.features_RD, pairs.responses_n2, pairs.scale_n)
            for pairs in (train, validation)
        )
        likelihood = BradleyTerry(difference_nD, train.label_n)
        mode_H = None

        def posterior_at(prior_precision: float) -> Gaussian:
            nonlocal mode_H
            mode_H = likelihood.mode_H(prior_precision, start_H=mode_H)
            return likelihood.laplace(mode_H, prior_precision)

        samples_KH = best_samples(
            posterior_at,
            PRIOR_GRID if self.prior_precision == "eval" else (self.prior_precision,),
            self.samples,
            stream.child("samples").torch,
            validation_nD,
            validation.label_n,
        )
        return Linear(standardise, samples_KH)
