"""All built-in policies keep the contract (balbench.testing.check_policy), in all their variants."""

from typing import Any

import pytest

from balbench.harness import registry
from balbench.testing import check_policy

FEW = {"samples": 20, "universes": 2}  # few numbers suffice for contracts
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "k_center": [{}, {"space": "prompt"}],
    "k_means": [{}, {"space": "pair"}],
    "typiclust": [{}, {"space": "pair"}],
    "max_herding": [{}, {"space": "pair"}],
    "u_herding": [{}, {"space": "pair"}, {"uncertainty": "epistemic", "lengthscale": 0.5}],
    "bal_pm": [
        {},
        {"variant": "as_coded"},
        {"normalise_entropy": True},
        {"digamma_divisor": "dimension"},
        {"estimator": "kl"},
        {"estimator": "kl", "variant": "as_coded"},
        {"estimator": "kl", "normalise_entropy": True},
    ],
    "entropy_only": [{}, {"estimator": "kl"}, {"variant": "as_coded"}],
    "random": [{}, {"variant": "as_coded"}],
    "softmax_bald": [{}, {"variant": "as_coded"}],
    "soft_rank_bald": [{}, {"variant": "as_coded", "uncertainty": "variance"}],
    "power_bald": [{}, {"anneal_rounds": 15}, {"anneal_rounds": 15, "variant": "as_coded"}],
    "llm_perplexity_high": [{}, {"score": "token_entropy"}],
    "sample_then_rank": [{}, {"group": 3, "uncertainty": "predictive"}],
    "parbals": [
        FEW | {"targets": 10},
        FEW | {"pseudo_labels": "drawn", "candidates": 5, "targets": 10},
        FEW | {"pseudo_labels": "predictive", "target": "pool", "targets": 10},
    ],
    "batch_bald": [{}, {"exact_up_to": 2}, {"exact_up_to": 0, "samples": 200, "estimator": "published"}],
    "epig": [{}, {"targets": 5}, {"target": "pool"}],
    "arm_fi": [{}, {"variant": "as_coded"}],
    "adpo": [{}, {"features": "frozen"}, {"weights_of": "equal"}],
    "sharpe": [{}, {"prior": "model"}],
    "infomax": [{}, {"prompts": "uncertain"}],
    "double_thompson": [{}, {"draws": "interval"}, {"prompts": "uncertain"}],
    "drts": [{}, {"draws": "posterior"}],
    "max_min_lcb": [{}, {"bounds": "pairs"}],
}
CLUSTERS = ("k_means", "typiclust")  # the number of clusters follows the size of the batch
POLICIES = [
    pytest.param(name, settings, id=f"{name}-{'-'.join(map(str, settings.values())) or 'default'}")
    for name in registry.BUILT_IN["policies"]
    for settings in VARIANTS.get(name, [{}])
]


@pytest.mark.parametrize(("name", "settings"), POLICIES)
def test_contract(name, settings):
    check_policy(
        registry.load("policies", name)(**settings),
        # Means over the pool's pairs round differently in another order.
        storage_order="same_pairs" if settings.get("normalise_entropy") else "same_batch",
        nested=name not in CLUSTERS,
    )


@pytest.mark.parametrize("name", registry.BUILT_IN["policies"])
def test_both_variants_are_checked(name):
    variant = registry.load("policies", name).model_fields.get("variant")
    if variant is not None:
        checked = {settings.get("variant", variant.default) for settings in VARIANTS.get(name, [{}])}
        assert checked == {"published", "as_coded"}


@pytest.mark.parametrize("name", registry.BUILT_IN["policies"])
def test_every_setting_is_documented(name):
    for setting, field in registry.load("policies", name).model_fields.items():
        assert field.description, setting
