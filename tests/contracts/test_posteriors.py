"""What every posterior must keep."""

import numpy as np
import pytest
import torch

from balbench.harness import registry
from balbench.harness.pool import feature_table as streamed
from balbench.harness.posteriors.posterior import DivergedError, LabelledPairs, pair_uncertainty
from balbench.harness.streams import stream
from balbench.testing.examples import on_disk

SMALL_HEAD = {"hidden": [8, 4], "learning_rate": 0.01, "weight_std": 0.3}
SMALL = {
    "ensemble": SMALL_HEAD | {"members": 3},
    "mc_dropout": SMALL_HEAD | {"members": 2, "samples": 6, "rate": 0.1},
    "epinet": SMALL_HEAD | {"samples": 6, "epinet_hidden": [5]},
    "laplace": SMALL_HEAD,
    "latent_reward": SMALL_HEAD,
    "feature_density": SMALL_HEAD,
}
POSTERIORS = registry.names("posteriors")


def answered(n: int, responses: int = 40, dimension: int = 5, seed: int = 0) -> LabelledPairs:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(responses, dimension)).astype(np.float32)
    pairs = np.stack([rng.permutation(responses)[:2] for _ in range(n)])
    target = (features[pairs[:, 0], 0] > features[pairs[:, 1], 0]).astype(np.float32)
    return LabelledPairs(torch.from_numpy(features), torch.from_numpy(pairs), torch.from_numpy(target))


@pytest.mark.parametrize("name", POSTERIORS)
class TestPosteriorContract:
    def posterior(self, name, **settings):
        return registry.load("posteriors", name)(**(SMALL.get(name, {}) | settings))

    def test_reward_samples_have_one_shape(self, name):
        data, posterior = answered(20), self.posterior(name)
        rewards = posterior.fit(data, answered(10, seed=1), stream(0)).rewards_KR(data.features_RD)
        assert rewards.shape[1] == len(data.features_RD)
        assert rewards.dtype == torch.float32
        assert torch.isfinite(rewards).all()

    def test_the_same_stream_gives_the_same_bits(self, name):
        data, posterior = answered(20), self.posterior(name)
        first, second, other = (
            posterior.fit(data, answered(10, seed=1), stream(seed)).rewards_KR(data.features_RD) for seed in (3, 3, 4)
        )
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    def test_scoring_in_parts_gives_the_same_rewards(self, name):
        data, posterior = answered(20, responses=700), self.posterior(name)
        model = posterior.fit(data, answered(10, seed=1), stream(0))
        whole = model.rewards_KR(data.features_RD)
        parts = torch.cat([model.rewards_KR(part) for part in data.features_RD.split(123)], dim=1)
        torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)

    def test_embeddings_have_one_shape_and_the_same_bits_in_each_call(self, name):
        data, posterior = answered(20, responses=700), self.posterior(name)
        model = posterior.fit(data, answered(10, seed=1), stream(0))
        first, second = (model.embedding_RH(data.features_RD) for _ in range(2))
        assert first.dtype == torch.float32
        assert first.shape[0] == 700
        assert torch.isfinite(first).all()
        assert torch.equal(first, second)
        parts = torch.cat([model.embedding_RH(part) for part in data.features_RD.split(123)])
        torch.testing.assert_close(first, parts, rtol=1e-5, atol=1e-6)

    def test_streamed_features_give_the_same_bits(self, name, tmp_path, monkeypatch):
        monkeypatch.setattr(streamed, "BLOCK_BYTES", 123 * 4 * 5)
        monkeypatch.setattr(streamed, "LEAST_ROWS", 1)
        data, validation = answered(20, responses=700), answered(10, seed=1)
        on_file, validation_on_file = (
            part._replace(features_RD=on_disk(part.features_RD, tmp_path)) for part in (data, validation)
        )
        model = self.posterior(name).fit(data, validation, stream(0))
        model_of_streamed = self.posterior(name).fit(on_file, validation_on_file, stream(0))
        for what in ("rewards_KR", "embedding_RH"):
            found = getattr(model_of_streamed, what)(on_file.features_RD)
            assert torch.equal(found, getattr(model, what)(data.features_RD))
        found, wanted = (
            pair_uncertainty(fitted, part.features_RD, part.responses_n2, fitted.rewards_KR(part.features_RD))
            for fitted, part in ((model_of_streamed, on_file), (model, data))
        )
        assert torch.equal(found.epistemic_N, wanted.epistemic_N)

    def test_it_learns_what_can_be_learned(self, name):
        posterior = self.posterior(name, **({"epochs": 60} if "epochs" in self.posterior(name).model_dump() else {}))
        train, test = answered(300, responses=200), answered(300, responses=200, seed=2)
        rewards = posterior.fit(train, test, stream(0)).rewards_KR(test.features_RD).mean(dim=0)
        right = (rewards[test.responses_n2[:, 0]] > rewards[test.responses_n2[:, 1]]).float() == test.label_n
        assert right.float().mean() > 0.8

    @pytest.mark.parametrize("n", [1, 2, 31, 33])
    def test_any_number_of_labels_will_do(self, name, n):
        data = answered(n)
        rewards = self.posterior(name).fit(data, answered(10, seed=1), stream(0)).rewards_KR(data.features_RD)
        assert torch.isfinite(rewards).all()

    def test_features_that_are_not_numbers_are_reported(self, name):
        data = answered(20)
        data.features_RD[:] = torch.nan
        with pytest.raises(DivergedError, match="not a number"):
            self.posterior(name).fit(data, data, stream(0))
