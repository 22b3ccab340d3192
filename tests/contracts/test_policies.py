"""What every policy must keep, whatever it is after."""

from dataclasses import replace

import numpy as np
import pytest

from balbench.harness import registry
from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.streams import stream
from balbench.testing.examples import on_disk, pool_of, shuffled, view_of

VARIANTS = {
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
    "entropy_only": [{}, {"estimator": "kl"}],
    "random": [{}, {"variant": "as_coded"}],
    "softmax_bald": [{}, {"variant": "as_coded"}],
    "soft_rank_bald": [{}, {"variant": "as_coded", "uncertainty": "variance"}],
    "power_bald": [{}, {"anneal_rounds": 15}, {"anneal_rounds": 15, "variant": "as_coded"}],
    "llm_perplexity_high": [{}, {"score": "token_entropy"}],
    "sample_then_rank": [{}, {"group": 3, "uncertainty": "predictive"}],
    "parbals": [{}, {"pseudo_labels": "drawn", "candidates": 5}, {"pseudo_labels": "predictive", "target": "pool"}],
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
POLICIES = [
    pytest.param(name, settings, id=f"{name}-{'-'.join(map(str, settings.values())) or 'default'}")
    for name in registry.names("policies")
    for settings in VARIANTS.get(name, [{}])
]
HEADS = Ensemble(members=3, hidden=(8, 5), weight_std=0.5).initial_heads(4, stream(0))
POOLS = {
    "plain": pool_of(),
    "one prompt": pool_of(prompts=1, responses=8),
    "constant features": pool_of(constant=True),
    "duplicate prompts": pool_of(twins=True),
    "one feature": pool_of(dimension=1),
}


@pytest.mark.parametrize(("name", "settings"), POLICIES)
class TestPolicyContract:
    def policy(self, name, settings):
        return registry.load("policies", name)(**settings)

    @pytest.mark.parametrize("pool", POOLS)
    @pytest.mark.parametrize("batch", [1, 7, None], ids=["one", "seven", "all that is left"])
    def test_batch_is_ordered_distinct_and_unlabelled(self, name, settings, pool, batch):
        view = view_of(POOLS[pool])
        batch = batch or len(view.unlabelled_U)
        selection = self.policy(name, settings).select(view, batch, stream(0, "policy"))
        assert len(selection.pairs_B) == len(selection.scores_B) == batch
        assert len(set(selection.pairs_B.tolist())) == batch
        assert np.isin(selection.pairs_B, view.unlabelled_U).all()
        assert np.isfinite(selection.scores_B).all()

    def test_the_same_stream_gives_the_same_batch(self, name, settings):
        policy, view = self.policy(name, settings), view_of(pool_of())
        first, second = (policy.select(view, 6, stream(3, "policy", 1)) for _ in range(2))
        np.testing.assert_array_equal(first.pairs_B, second.pairs_B)
        np.testing.assert_array_equal(first.scores_B, second.scores_B)

    def test_the_order_in_which_the_pool_is_stored_does_not_matter(self, name, settings):
        # One pair a prompt, so that no two pairs tie.
        policy, view = self.policy(name, settings), view_of(pool_of(prompts=40, responses=2))
        order = np.random.default_rng(5).permutation(len(view.pool))
        selection = policy.select(view, 8, stream(3, "policy"))
        moved = policy.select(shuffled(view, order), 8, stream(3, "policy"))
        if settings.get("normalise_entropy"):  # means in another order round otherwise
            assert set(order[moved.pairs_B]) == set(selection.pairs_B)
        else:
            np.testing.assert_array_equal(order[moved.pairs_B], selection.pairs_B)

    def test_streamed_features_give_the_same_batch(self, name, settings, tmp_path):
        policy, view = self.policy(name, settings), view_of(pool_of(), model=HEADS)
        splits = {
            split: replace(responses, features_RD=on_disk(responses.features_RD, tmp_path))
            for split, responses in view.splits.items()
        }
        streamed = replace(view, splits=splits)
        found, wanted = (policy.select(which, 6, stream(3, "policy")) for which in (streamed, view))
        np.testing.assert_array_equal(found.pairs_B, wanted.pairs_B)
        np.testing.assert_array_equal(found.scores_B, wanted.scores_B)

    def test_one_member_is_enough(self, name, settings):
        view = view_of(pool_of(), members=1)
        assert len(self.policy(name, settings).select(view, 4, stream(0)).pairs_B) == 4

    def test_before_anything_is_acquired(self, name, settings):
        view = view_of(pool_of(), acquired=0)
        assert len(self.policy(name, settings).select(view, 4, stream(0)).pairs_B) == 4

    def test_a_batch_continues_a_smaller_one(self, name, settings):
        if name in ("k_means", "typiclust"):
            pytest.skip("the number of clusters follows the batch")
        policy, view = self.policy(name, settings), view_of(pool_of())
        small, large = (policy.select(view, size, stream(3, "policy")).pairs_B for size in (3, 9))
        np.testing.assert_array_equal(large[:3], small)

    def test_it_says_what_it_is(self, name, settings):
        policy = registry.load("policies", name)
        assert policy.family
        assert policy.source
        assert policy.cost
        assert policy.__doc__
