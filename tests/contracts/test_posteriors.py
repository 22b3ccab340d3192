"""All built-in posteriors keep the contract (balbench.testing.check_posterior)."""

from typing import Any

import pytest
import torch

from balbench.harness import registry
from balbench.harness.posteriors.posterior import DivergedError
from balbench.harness.streams import stream
from balbench.testing import check_posterior
from balbench.testing.examples import labelled_pairs, on_disk
from balbench.testing.posteriors import scores_of, small_blocks

HEAD: dict[str, Any] = {"hidden": [8, 5], "learning_rate": 0.02, "weight_std": 0.3}
SMALL: dict[str, dict[str, Any]] = {
    "ensemble": HEAD | {"members": 3},
    "mc_dropout": HEAD | {"members": 2, "samples": 6, "rate": 0.1},
    "epinet": HEAD | {"samples": 6, "epinet_hidden": [5]},
    "laplace": HEAD,
    "latent_reward": HEAD,
    "feature_density": HEAD,
}
LINKED = [
    f"{name} {link}"
    for name in ("bayesian_linear", "ensemble", "mc_dropout")
    for link in ("distance_normalised", "distance_temperature")
]


def small(name: str):
    name, _, link = name.partition(" ")
    return registry.load("posteriors", name)(**SMALL.get(name, {}), **({"link": link} if link else {}))


@pytest.mark.parametrize("name", [*registry.BUILT_IN["posteriors"], *LINKED])
class TestPosteriors:
    def test_contract(self, name):
        check_posterior(small(name), accuracy=0.8)

    def test_another_stream_gives_other_samples(self, name):
        train, validation = labelled_pairs(20), labelled_pairs(10, seed=1)
        first, second = (
            small(name).fit(train, validation, stream(seed)).rewards_KR(train.features_RD) for seed in (3, 4)
        )
        assert not torch.equal(first, second)

    def test_features_on_disk_give_the_same_bits(self, name, tmp_path):
        train, validation = labelled_pairs(20, responses=700), labelled_pairs(10, seed=1)
        on_file, validation_on_file = (
            pairs._replace(features_RD=on_disk(pairs.features_RD, tmp_path)) for pairs in (train, validation)
        )
        with small_blocks(dimension=5):
            streamed = scores_of(small(name).fit(on_file, validation_on_file, stream(0)), on_file)
            in_memory = scores_of(small(name).fit(train, validation, stream(0)), train)
        for part, score in in_memory.items():
            assert torch.equal(streamed[part], score), part

    def test_features_that_are_not_numbers_are_reported(self, name):
        train = labelled_pairs(20)
        train.features_RD[:] = torch.nan
        with pytest.raises(DivergedError, match="not a number"):
            small(name).fit(train, train, stream(0))
