"""Automatic settings of training: the learning rate and the interval between evaluations."""

import math

import pytest
import torch

from balbench.harness import registry
from balbench.harness.posteriors import training_config
from balbench.harness.posteriors.bayesian_linear import BayesianLinear
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.posterior import DivergedError
from balbench.harness.posteriors.training_config import LEARNING_RATES, evaluations_after
from balbench.harness.streams import stream
from balbench.testing.examples import labelled_pairs

AUTO = Ensemble.model_validate({"preset": "auto", "members": 2, "hidden": [8]})
TRAIN, VALIDATION = labelled_pairs(40), labelled_pairs(60, seed=1)
TRAINED = [
    name
    for name in registry.BUILT_IN["posteriors"]
    if issubclass(registry.load("posteriors", name), training_config.TrainingConfig)
]


class TestLearningRate:
    @pytest.mark.parametrize("epochs", [1, 60])
    def test_the_rate_with_the_lowest_loss_on_eval_is_chosen(self, epochs):
        posterior = AUTO.model_copy(update={"epochs": epochs})
        losses = {}
        for rate in LEARNING_RATES:
            fixed = posterior.model_copy(update={"learning_rate": rate})
            losses[rate] = fixed.fit(TRAIN, VALIDATION, stream(0, "learning rate")).diagnostics["evaluation_loss_best"]
        assert posterior.tuned(TRAIN, VALIDATION).learning_rate == min(losses, key=losses.get)

    def test_rates_that_diverge_are_not_chosen(self, monkeypatch):
        monkeypatch.setattr(training_config, "LEARNING_RATES", (1e30, 1e-3))
        posterior = AUTO.model_copy(update={"clip": 1e30})
        assert posterior.tuned(TRAIN, VALIDATION).learning_rate == 1e-3
        broken = TRAIN._replace(label_n=torch.full((40,), torch.nan))
        with pytest.raises(DivergedError):
            posterior.fit(broken, VALIDATION, stream(0))

    @pytest.mark.parametrize("name", TRAINED)
    def test_every_trained_posterior_has_the_preset_and_keeps_its_other_settings(self, name):
        posterior = registry.load("posteriors", name).model_validate({"preset": "auto", "hidden": [8]})
        tuned = posterior.tuned(TRAIN, VALIDATION)
        assert posterior.learning_rate == "auto"
        assert tuned.learning_rate in LEARNING_RATES
        assert tuned.model_copy(update={"learning_rate": "auto"}) == posterior
        assert tuned.fit(TRAIN, VALIDATION, stream(0)).diagnostics["learning_rate"] == tuned.learning_rate

    def test_a_fit_without_tuning_tunes_on_its_own_labels(self):
        first, second = (p.fit(TRAIN, VALIDATION, stream(0)) for p in (AUTO, AUTO.tuned(TRAIN, VALIDATION)))
        assert torch.equal(first.rewards_KR(TRAIN.features_RD), second.rewards_KR(TRAIN.features_RD))

    def test_posteriors_without_automatic_settings_stay_themselves(self):
        for posterior in (BayesianLinear(), Ensemble(learning_rate=0.1)):
            assert posterior.tuned(TRAIN, VALIDATION) is posterior


class TestEvaluations:
    @pytest.mark.parametrize("labels", [1, 32, 160, 1600, 3200, 24_000])
    def test_automatic_intervals_are_five_steps_or_give_at_most_eighty_evaluations(self, labels):
        steps = AUTO.epochs * math.ceil(labels / AUTO.batch)
        at = [step for step in range(1, steps + 1) if evaluations_after(step, steps, AUTO)]
        ends = set(range(steps // AUTO.epochs, steps + 1, steps // AUTO.epochs))
        assert ends <= set(at)
        apart = min(set(at) - ends, default=0)
        assert apart == 0 or apart == (5 if steps <= 400 else math.ceil(steps / 80))
        assert len(set(at) - ends) <= 80

    @pytest.mark.parametrize("every", [1, 4, 7, 100, "auto"])
    @pytest.mark.parametrize("repeat", [False, True])
    @pytest.mark.parametrize("labels", [1, 33, 500])
    def test_their_number_is_known_before_training(self, every, repeat, labels):
        posterior = Ensemble(evaluate_every=every, repeat_evaluations=repeat, epochs=3)
        steps = 3 * math.ceil(labels / 32)
        expected = 1 + sum(evaluations_after(step, steps, posterior) for step in range(1, steps + 1))
        assert posterior.evaluations(labels) == expected
