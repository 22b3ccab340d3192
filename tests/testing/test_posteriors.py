"""`check_posterior` fails for posteriors that break one promise each, and its message names the promise."""

from typing import Any

import numpy as np
import pytest
import torch

from balbench.harness.posteriors.bayesian_linear import BayesianLinear
from balbench.harness.posteriors.posterior import DivergedError, Posterior, try_fit
from balbench.harness.streams import stream as stream_of
from balbench.testing import ContractError, check_posterior


class Model:
    """Rewards that are linear in the features; the subclasses below change one thing."""

    def __init__(self, weights_KD: torch.Tensor) -> None:
        self.weights_KD = weights_KD

    def rewards_KR(self, features_RD):
        return torch.cat([self.weights_KD @ block.T for block in features_RD.split(50)], dim=1)

    def embedding_RH(self, features_RD):
        return torch.cat([block.clone() for block in features_RD.split(50)])


class Honest(Posterior):
    """One Newton step of a linear reward from 0, with noise; the posteriors below change one thing."""

    model: Any = Model

    def fit(self, train, validation, stream):
        features_RD = train.features_RD[torch.arange(len(train.features_RD))]
        self._require_numbers(features_RD, train.label_n)
        difference_nD = features_RD[train.responses_n2[:, 0]] - features_RD[train.responses_n2[:, 1]]
        gradient_D = (train.label_n - 0.5) @ difference_nD
        curvature_DD = torch.eye(features_RD.shape[1]) + 0.25 * difference_nD.T @ difference_nD
        weights_D = torch.linalg.solve(curvature_DD, gradient_D)
        noise_KD = torch.randn((3, len(weights_D)), generator=stream.torch())
        return self.model(weights_D + 0.3 * noise_KD)

    def _require_numbers(self, features_RD, label_n):
        if not (features_RD.isfinite().all() and label_n.isfinite().all()):
            raise DivergedError("the loss is not a number")


def rewards(change) -> Posterior:
    """A posterior whose rewards are changed by a function."""

    class Changed(Model):
        def rewards_KR(self, features_RD):
            return change(super().rewards_KR(features_RD))

    return Honest(model=Changed)


def embedding(change) -> Posterior:
    """A posterior whose embeddings are changed by a function."""

    class Changed(Model):
        def embedding_RH(self, features_RD):
            return change(super().embedding_RH(features_RD))

    return Honest(model=Changed)


class DrawsPerCall(Model):
    """Draws new noise in each call."""

    def rewards_KR(self, features_RD):
        rewards_KR = super().rewards_KR(features_RD)
        return rewards_KR + torch.from_numpy(np.random.default_rng().random(rewards_KR.shape)).float()


class Centred(Model):
    """Subtracts the mean over the responses of the call."""

    def rewards_KR(self, features_RD):
        rewards_KR = super().rewards_KR(features_RD)
        return rewards_KR - rewards_KR.mean(dim=1, keepdim=True)


class InMemoryOnly(Model):
    """Gives other rewards where features are not a tensor."""

    def rewards_KR(self, features_RD):
        return super().rewards_KR(features_RD) * (1.0 if isinstance(features_RD, torch.Tensor) else 2.0)


class OutOfRange(Model):
    """Has an own measure of uncertainty, which exceeds its range."""

    epistemic_range = (0.0, 1.0)

    def epistemic_N(self, features_RD, responses_N2, rewards_KR):
        return torch.full((len(responses_N2),), 2.0, dtype=torch.float64)


class OneUncertainty(OutOfRange):
    """Has an own measure of uncertainty with one number for all pairs."""

    def epistemic_N(self, features_RD, responses_N2, rewards_KR):
        return torch.zeros(1)


class ScaledByZero(Model):
    """Multiplies the logits of near pairs by 0."""

    def logit_scale_N(self, distance_N):
        return (distance_N > 2).double()


class OneScale(Model):
    """Has one factor for all pairs."""

    def logit_scale_N(self, distance_N):
        return torch.ones(1, dtype=torch.float64)


class Undocumented(Honest):
    pass


class Scribbles(Honest):
    """Writes into the labels."""

    def fit(self, train, validation, stream):
        model = super().fit(train, validation, stream)
        train.label_n.clamp_(0.1, 0.9)
        return model


class GlobalNoise(Honest):
    """Draws from torch's global generator."""

    def fit(self, train, validation, stream):
        torch.rand(1)
        return super().fit(train, validation, stream)


class HiddenGlobal(Honest):
    """Draws from torch's global generator and restores its state."""

    def fit(self, train, validation, stream):
        with torch.random.fork_rng():
            return super().fit(train, validation, stream_of(int(torch.randint(100, (1,)))))


class SharedStream(Honest):
    """Fits all cells of a fleet with the first stream."""

    def fit_fleet(self, trains, validation, streams):
        return [try_fit(self.fit, train, validation, streams[0]) for train in trains]


class OneModel(Honest):
    """Fits one cell of a fleet."""

    def fit_fleet(self, trains, validation, streams):
        return super().fit_fleet(trains[:1], validation, streams[:1])


class AllOrNothing(Honest):
    """A failed cell fails its fleet."""

    def fit_fleet(self, trains, validation, streams):
        models = super().fit_fleet(trains, validation, streams)
        errors = [model for model in models if isinstance(model, Exception)]
        return [errors[0] if errors else model for model in models]


class RaisesInFleets(Honest):
    """Raises the error of a cell instead of returning it."""

    def fit_fleet(self, trains, validation, streams):
        return [self.fit(train, validation, stream) for train, stream in zip(trains, streams, strict=True)]


class Placid(Honest):
    """Accepts numbers that are not finite."""

    def _require_numbers(self, features_RD, label_n):
        features_RD.nan_to_num_(0.0)
        label_n.nan_to_num_(0.5)


class WrongError(Honest):
    """Raises an error of another kind."""

    def _require_numbers(self, features_RD, label_n):
        if features_RD.isnan().any():
            raise ValueError("NaN")
        super()._require_numbers(features_RD, label_n)


class Backwards(Honest):
    """Confuses first and second."""

    def fit(self, train, validation, stream):
        return super().fit(train._replace(responses_n2=train.responses_n2.flip(1)), validation, stream)


class NoEstimate(Honest):
    """Gives no estimate of its memory."""

    def training_bytes(self, dimension):
        return None


class AtLeastThree(Honest):
    """Needs three labels."""

    def fit(self, train, validation, stream):
        if len(train.label_n) < 3:
            raise ValueError("too few")
        return super().fit(train, validation, stream)


BROKEN = {
    "no posterior": ("a text", "is not an instance of Posterior"),
    "no docstring": (Undocumented(), "has no docstring"),
    "float64": (rewards(lambda r: r.double()), "rewards_KR has the type torch.float64"),
    "one axis": (rewards(lambda r: r[0]), "must return rewards"),
    "no samples": (rewards(lambda r: r[:0]), "0 samples"),
    "infinite": (rewards(lambda r: r / 0), "not all finite"),
    "embedding shape": (embedding(lambda e: e[:3]), "embedding_RH has the type torch.float32 and the shape"),
    "embedding NaN": (embedding(lambda e: e * torch.nan), "embedding_RH is not finite"),
    "per call": (Honest(model=DrawsPerCall), "rewards_KR differs from call to call"),
    "centred": (Honest(model=Centred), "depends on the responses that are scored with it"),
    "memory only": (Honest(model=InMemoryOnly), "rewards_KR differs where features are read from disk"),
    "own range": (Honest(model=OutOfRange), "keep it within epistemic_range"),
    "factor 0": (Honest(model=ScaledByZero), "factors that are not positive"),
    "one factor": (Honest(model=OneScale), "return one float64 number per pair"),
    "own shape": (Honest(model=OneUncertainty), "epistemic_N has the type torch.float32 and the shape"),
    "scribbles": (Scribbles(), "fit changes label_n of the data"),
    "global": (GlobalNoise(), "the global generator of torch"),
    "hidden global": (HiddenGlobal(), "gives two answers to the same data and stream"),
    "shared stream": (SharedStream(), "cell 1 has other rewards in a fleet than alone"),
    "one model": (OneModel(), "fit_fleet returns 1 models"),
    "all or nothing": (AllOrNothing(), "the failure of a cell changes another cell"),
    "raises in fleets": (RaisesInFleets(), "fit_fleet raised DivergedError"),
    "placid": (Placid(), "return the error of a fit that fails|fits without an error"),
    "wrong error": (WrongError(), "fit raised ValueError: NaN"),
    "backwards": (Backwards(), "orders .* of new pairs"),
    "no estimate": (NoEstimate(), "training_bytes returns None"),
    "three labels": (AtLeastThree(), "fit raised ValueError: too few .given 1 labels"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_promise_is_named(case):
    posterior, message = BROKEN[case]
    with pytest.raises(ContractError, match=message) as caught:
        check_posterior(posterior)
    assert "\n" not in str(caught.value)


def test_an_honest_posterior_passes():
    check_posterior(Honest(), accuracy=0.9)


def test_accuracy_may_be_left_out():
    check_posterior(Backwards(), accuracy=None)


def test_a_posterior_that_cannot_be_sent_to_another_process():
    class Unpicklable(BayesianLinear):
        """Has a setting that cannot be pickled."""

        generator: Any = None

    with pytest.raises(ContractError, match="does not work in another process"):
        check_posterior(Unpicklable(generator=(n for n in [1])))
