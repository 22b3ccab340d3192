"""Links: factors of logits in training, evaluation and acquisition, against slow definitions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from balbench.harness.policies.batch_bald import BatchBald
from balbench.harness.policies.epig import Epig
from balbench.harness.policies.fisher import Adpo, ArmFi
from balbench.harness.policies.gradient import Sharpe, hallucinated_gradients
from balbench.harness.policies.herding import UHerding
from balbench.harness.policies.uncertainty import Bald
from balbench.harness.posteriors.bayesian_linear import BayesianLinear
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.links import SMALLEST_DISTANCE, DistanceScale, LinkedModel
from balbench.harness.posteriors.mc_dropout import McDropout
from balbench.harness.posteriors.posterior import ScaledLogits, pair_probability
from balbench.harness.posteriors.trainable import Minibatch
from balbench.harness.streams import stream
from balbench.testing.examples import labelled_pairs, pool_of, view_of

HEAD = {"hidden": (8, 5), "learning_rate": 0.02, "weight_std": 0.3}
POSTERIORS = {
    "bayesian_linear": lambda link: BayesianLinear(link=link, samples=9),
    "ensemble": lambda link: Ensemble(link=link, members=3, **HEAD),
    "mc_dropout": lambda link: McDropout(link=link, members=2, samples=4, **HEAD),
}
TRAIN, VALIDATION = labelled_pairs(30), labelled_pairs(60, seed=1)


def link_of(name, validation=VALIDATION):
    return BayesianLinear(link=name).pair_link(validation)


def distances(pairs):
    first, second = (pairs.features_RD[pairs.responses_n2[:, side]].double() for side in (0, 1))
    return (first - second).square().sum(dim=1).sqrt()


def slow_probability(model, pairs, scale_n):
    """P(first preferred), one pair and sample at a time."""
    rewards_KR = model.rewards_KR(pairs.features_RD).double()
    return torch.tensor(
        [
            [
                torch.sigmoid(scale * (rewards_R[a] - rewards_R[b]))
                for (a, b), scale in zip(pairs.responses_n2, scale_n, strict=True)
            ]
            for rewards_R in rewards_KR
        ]
    )


@pytest.mark.parametrize("name", POSTERIORS)
class TestPosteriors:
    def test_a_plain_link_returns_the_posterior_itself(self, name):
        assert not isinstance(POSTERIORS[name]("plain").fit(TRAIN, VALIDATION, stream(0)), ScaledLogits)

    def test_a_normalised_logit_is_divided_by_the_relative_distance(self, name):
        model = POSTERIORS[name]("distance_normalised").fit(TRAIN, VALIDATION, stream(0))
        actual = pair_probability(model, VALIDATION.pairs(), model.rewards_KR(VALIDATION.features_RD))
        relative_n = distances(VALIDATION) / distances(VALIDATION).mean()
        assert relative_n.min() > SMALLEST_DISTANCE
        torch.testing.assert_close(actual, slow_probability(model, VALIDATION, 1 / relative_n))

    def test_the_exponent_is_a_setting_of_the_normalised_link_only(self, name):
        posterior = POSTERIORS[name]("distance_normalised").model_copy(update={"distance_exponent": 0.5})
        model = posterior.fit(TRAIN, VALIDATION, stream(0))
        actual = pair_probability(model, VALIDATION.pairs(), model.rewards_KR(VALIDATION.features_RD))
        relative_n = distances(VALIDATION) / distances(VALIDATION).mean()
        torch.testing.assert_close(actual, slow_probability(model, VALIDATION, relative_n**-0.5))
        for link in ("plain", "distance_temperature"):
            with pytest.raises(ValueError, match=f"link {link} does not use distance_exponent"):
                type(posterior)(link=link, distance_exponent=0.5)

    def test_a_temperature_leaves_the_plain_rewards_and_raises_the_likelihood_on_eval(self, name):
        plain, model = (
            POSTERIORS[name](link).fit(TRAIN, VALIDATION, stream(0)) for link in ("plain", "distance_temperature")
        )
        assert torch.equal(plain.rewards_KR(TRAIN.features_RD), model.rewards_KR(TRAIN.features_RD))
        likelihoods = [
            F.binary_cross_entropy(
                pair_probability(m, VALIDATION.pairs(), m.rewards_KR(VALIDATION.features_RD)).mean(dim=0),
                VALIDATION.label_n.double(),
            )
            for m in (plain, model)
        ]
        assert likelihoods[1] <= likelihoods[0]
        assert {"link_log_temperature", "link_exponent"} <= set(model.diagnostics)


class TestScale:
    def test_factors_equal_their_definition_with_a_smallest_distance(self):
        scale, distance_n = DistanceScale(2.0, 0.3, 0.7), torch.tensor([0.0, 0.1, 1.0, 2.0, 9.0])
        relative = [max(float(d) / 2, SMALLEST_DISTANCE) for d in distance_n]
        expected = [np.exp(-0.3) * r**-0.7 for r in relative]
        assert scale(distance_n).tolist() == pytest.approx(expected, rel=1e-6)

    def test_equal_responses_everywhere_give_finite_factors(self):
        same = VALIDATION._replace(features_RD=torch.ones_like(VALIDATION.features_RD))
        assert link_of("distance_normalised", same).for_training(same).scale_n.isfinite().all()

    def test_the_factor_depends_on_eval_and_not_on_the_labels_bought(self):
        link = link_of("distance_normalised")
        few = TRAIN._replace(responses_n2=TRAIN.responses_n2[:3], label_n=TRAIN.label_n[:3])
        assert torch.equal(link.for_training(few).scale_n, link.for_training(TRAIN).scale_n[:3])

    def test_known_distances_replace_those_of_the_features(self):
        known = TRAIN._replace(known_distances=lambda: torch.full((30,), 4.0, dtype=torch.float64))
        expected = 1 / (4 / distances(VALIDATION).mean())
        actual = link_of("distance_normalised").for_training(known).scale_n
        assert actual.tolist() == pytest.approx([float(expected)] * 30)


class TestTemperature:
    @pytest.mark.parametrize(("a", "b"), [(0.5, 0.8), (-1.0, -0.5), (0.0, 0.0)])
    def test_known_parameters_are_recovered_from_their_probabilities(self, a, b):
        pairs, typical = VALIDATION, float(distances(VALIDATION).mean())
        heads = Ensemble(members=2, **HEAD).fit(TRAIN, VALIDATION, stream(0))
        true = LinkedModel(heads, DistanceScale(typical, a, b))
        labels = pair_probability(true, pairs.pairs(), heads.rewards_KR(pairs.features_RD)).mean(dim=0)
        fitted = link_of("distance_temperature", pairs._replace(label_n=labels)).attached(heads)
        assert fitted.scale[1:] == pytest.approx((a, b), abs=0.02)

    def test_rewards_that_are_all_equal_keep_the_plain_link(self):
        heads = Heads([torch.zeros(1, 5, 1)], [torch.zeros(1, 1, 1)], "tanh")
        assert link_of("distance_temperature").attached(heads).scale[1:] == (0, 0)


class TestTraining:
    def test_gradients_of_scaled_logits_equal_autograd(self):
        heads = Heads.draw([stream(k).torch() for k in range(3)], [4, 6, 1], None, "tanh")
        generator = stream(9).torch()
        inputs, label = torch.randn(3, 10, 4, generator=generator), torch.rand(3, 5, generator=generator)
        scale = torch.rand(3, 5, generator=generator) + 0.5
        gradients = [torch.zeros_like(parameter) for parameter in heads.parameters]
        loss = heads.step(Minibatch(inputs, torch.zeros(3, 10, dtype=torch.int64), label, None, scale), gradients)
        leaves = [parameter.clone().requires_grad_() for parameter in heads.parameters]
        hidden = torch.tanh(leaves[2] + inputs @ leaves[0])
        rewards = (leaves[3] + hidden @ leaves[1])[..., 0]
        expected = F.binary_cross_entropy_with_logits(
            scale * (rewards[:, :5] - rewards[:, 5:]), label, reduction="none"
        ).mean(dim=1)
        expected.sum().backward()
        torch.testing.assert_close(loss, expected)
        for actual, leaf in zip(gradients, leaves, strict=True):
            torch.testing.assert_close(actual, leaf.grad)

    def test_a_linear_model_trains_on_scaled_differences(self):
        """Normalised pairs equal plain pairs of responses that were moved to distance 1."""
        model = BayesianLinear(link="distance_normalised", prior_precision=1.0)
        link = link_of("distance_normalised")
        scaled = [link.for_training(pairs) for pairs in (TRAIN, VALIDATION)]
        as_plain = model._samples(*scaled, stream(0))
        linked = model.fit(TRAIN, VALIDATION, stream(0))
        assert torch.equal(as_plain.rewards_KR(TRAIN.features_RD), linked.rewards_KR(TRAIN.features_RD))
        unscaled = model._samples(TRAIN, VALIDATION, stream(0))
        assert not torch.allclose(unscaled.rewards_KR(TRAIN.features_RD), linked.rewards_KR(TRAIN.features_RD))

    def test_the_epochs_evaluate_with_the_factors(self):
        """The best evaluation in the diagnostics is the loss of the scaled logits."""
        model = Ensemble(link="distance_normalised", members=1, **HEAD).fit(TRAIN, VALIDATION, stream(0))
        p_n = pair_probability(model, VALIDATION.pairs(), model.rewards_KR(VALIDATION.features_RD))[0]
        loss = F.binary_cross_entropy(p_n, VALIDATION.label_n.double())
        assert model.diagnostics["evaluation_loss_best"] == pytest.approx(float(loss), rel=1e-5)


class TestPolicies:
    """Policies that use probabilities or gradients of pairs see the factors."""

    @pytest.fixture
    def views(self):
        """A round with a plain model, and with a model whose factor is the same for all pairs."""
        plain = view_of(pool_of())
        constant = LinkedModel(plain.model, DistanceScale(1.0, -0.7, 0.0))
        return plain, replace(plain, model=constant), float(np.exp(0.7))

    def test_a_constant_factor_equals_rewards_times_that_factor(self, views):
        plain, scaled, factor = views
        larger = replace(plain)
        larger.__dict__["rewards_KR"] = plain.rewards_KR.double() * factor
        for pairs in (plain.unlabelled_U, plain.acquired_n):
            torch.testing.assert_close(scaled.probability_Kn(pairs), larger.probability_Kn(pairs))
        torch.testing.assert_close(scaled.uncertainty_U.epistemic_N, larger.uncertainty_U.epistemic_N)
        torch.testing.assert_close(scaled.differences(plain.acquired_n), factor * plain.differences(plain.acquired_n))

    @pytest.mark.parametrize("policy", [Bald(), Epig(targets=7), BatchBald(), ArmFi(), Adpo(), Sharpe(), UHerding()])
    def test_the_scores_of_policies_change_with_the_factors_of_pairs(self, policy):
        plain = view_of(pool_of())
        scaled = replace(plain, model=LinkedModel(plain.model, DistanceScale(2.0)))
        first, second = (policy.select(view, 5, stream(0)) for view in (plain, scaled))
        assert not np.allclose(first.scores_B, second.scores_B)

    def test_gradients_are_those_of_the_scaled_logits(self):
        plain = view_of(pool_of())
        scaled = replace(plain, model=LinkedModel(plain.model, DistanceScale(2.0)))
        mean_U = scaled.probability_Kn(scaled.unlabelled_U).mean(dim=0)
        error_U = (mean_U - (mean_U >= 0.5).double()).float()
        factor_U = scaled.logit_scale_n(scaled.unlabelled_U).float()
        expected = (error_U * factor_U)[:, None] * plain.differences(plain.unlabelled_U)
        torch.testing.assert_close(hallucinated_gradients(scaled), expected)
