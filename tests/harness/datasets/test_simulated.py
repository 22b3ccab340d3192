"""The simulated data set: contract, pairs, presets and checks of settings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from threadpoolctl import threadpool_info, threadpool_limits

from balbench.harness.datasets import world
from balbench.harness.datasets.simulated import BEST_POSSIBLE, Simulated
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.streams import stream
from balbench.oracles.annotations import Choice
from support.worlds import TINY_WORLD, build


def arrays(data: PreferenceData, split: str) -> dict[str, np.ndarray]:
    pairs, records = data.splits[split].pairs, data.splits[split].records
    values = {**vars(pairs), "probability_N": records.probability_N, "vote_choice_V": records.vote_choice_V}
    return {name: value for name, value in values.items() if value is not None}


# What a data set must be


def test_every_split_passes_its_checks(small):
    small.check()
    assert list(small.splits) == ["pool", "eval", "test", "ood"]


def test_the_same_seed_gives_the_same_bytes():
    one, two = build(data_seed=3), build(data_seed=3)
    for split in one.splits:
        for name, value in arrays(one, split).items():
            assert value.tobytes() == arrays(two, split)[name].tobytes(), (split, name)
    assert one.reference_lines == two.reference_lines


def test_another_seed_gives_another_world():
    one, two = build(data_seed=3), build(data_seed=4)
    for name, value in arrays(one, "pool").items():
        if name != "pair_id_N":
            assert value.tobytes() != arrays(two, "pool")[name].tobytes(), name


def test_the_size_of_one_split_leaves_the_others_alone():
    one, two = build(), build(eval_pairs=90, test_pairs=200)
    for split in ("pool", "ood"):
        for name, value in arrays(one, split).items():
            assert value.tobytes() == arrays(two, split)[name].tobytes(), (split, name)


def test_more_features_leave_the_world_alone():
    narrow, wide = build(dimension=16), build(dimension=40)
    first, second = arrays(narrow, "pool"), arrays(wide, "pool")
    for name in ("responses_of_pair_N2", "probability_N", "vote_choice_V"):
        assert first[name].tobytes() == second[name].tobytes()
    np.testing.assert_allclose(
        first["response_features_RD"], second["response_features_RD"][:, :16], rtol=1e-4, atol=1e-5
    )


def test_pair_ids_are_stable_strings(small):
    assert small.splits["pool"].pairs.pair_id_N[123] == "pool-000123"
    assert list(small.splits["ood"].records.pair_id_N[:2]) == ["ood-000000", "ood-000001"]


def test_features_are_float32_of_unit_scale_and_asked_dimension():
    pairs = build(dimension=48, prompt_dimension=24).splits["pool"].pairs
    assert pairs.response_features_RD.dtype == pairs.prompt_features_PQ.dtype == np.float32
    assert pairs.response_features_RD.shape[1] == 48
    assert pairs.prompt_features_PQ.shape == (220, 24)
    assert 0.7 < pairs.response_features_RD.std() < 1.5
    assert 0.7 < pairs.prompt_features_PQ.std() < 1.5


def test_prompts_have_as_many_features_as_responses_where_nothing_else_is_asked():
    assert build(dimension=20).splits["pool"].pairs.prompt_features_PQ.shape[1] == 20


def test_lifting_in_blocks_is_lifting(monkeypatch):
    feature_map = world.FeatureMap.draw(6, 10, 0.4, stream(0))
    latent_RL = stream(1).numpy().standard_normal((35, 6))
    at_once = feature_map.features(latent_RL)
    monkeypatch.setattr(world, "MAP_BLOCK", 80)  # 8 rows a block, the last one short
    np.testing.assert_allclose(feature_map.features(latent_RL), at_once, rtol=1e-5, atol=1e-6)


# Pairs and the responses that they share


def test_responses_are_in_many_pairs(small):
    pairs = small.splits["pool"].pairs
    responses = len(pairs.prompt_of_response_R)
    assert responses < 0.5 * 2 * len(pairs)
    assert len(np.unique(pairs.responses_of_pair_N2)) == responses  # every response is in a pair


def test_pairs_have_two_responses_and_no_pair_occurs_twice(small):
    for split in small.splits.values():
        sorted_N2 = np.sort(split.pairs.responses_of_pair_N2, axis=1)
        assert np.all(sorted_N2[:, 0] < sorted_N2[:, 1])
        assert len(np.unique(sorted_N2, axis=0)) == len(sorted_N2)


def test_pairs_of_a_prompt_are_not_adjacent(small):
    prompt_N = small.splits["pool"].pairs.prompt_of_pair_N
    assert np.mean(prompt_N[1:] == prompt_N[:-1]) < 0.02


def test_held_out_prompts_have_as_many_pairs_as_those_of_the_pool(small):
    for split in small.splits.values():
        assert len(split.pairs) / len(split.pairs.prompt_features_PQ) == pytest.approx(5_000 / 800, rel=0.01)


def test_the_order_shown_is_independent_of_the_vote(small):
    pair_N2 = small.splits["pool"].pairs.responses_of_pair_N2
    ascending = np.mean(pair_N2[:, 0] < pair_N2[:, 1])
    assert abs(ascending - 0.5) < 4 * 0.5 / np.sqrt(len(pair_N2))


@given(
    prompts=st.integers(1, 60),
    at_most=st.integers(1, 30),
    fill=st.floats(0, 1),
    tail=st.floats(0.3, 10),
    seed=st.integers(0, 2**20),
)
@settings(deadline=None, max_examples=60)
def test_pair_counts_sum_and_stay_in_bounds(prompts, at_most, fill, tail, seed):
    pairs = prompts + round(fill * prompts * (at_most - 1))
    count_P = world.draw_pair_counts(pairs, prompts, tail, at_most, stream(seed))
    assert count_P.sum() == pairs
    assert count_P.min() >= 1
    assert count_P.max() <= at_most


def test_responses_needed_are_the_fewest_that_do():
    for count, needed in zip(range(1, 400), world.responses_needed(np.arange(1, 400)), strict=True):
        assert needed * (needed - 1) / 2 >= count > (needed - 1) * (needed - 2) / 2


def test_a_heavy_tail_gives_few_prompts_most_pairs():
    def top_tenth(tail):
        count_P = np.sort(world.draw_pair_counts(5_000, 1_250, tail, 40, stream(0)))
        return count_P[-125:].sum() / 5_000

    assert top_tenth(1.2) > 0.4
    assert top_tenth(10.0) < 0.25


# The best that can be reached


def test_best_possible_is_the_truth_judged_by_the_recorded_votes(small):
    for name, split in small.splits.items():
        records = split.records
        both = list(zip(records.probability_N, records.vote_choice_V == Choice.FIRST, strict=True))
        slow = {
            "log_likelihood": np.mean([np.log(p) if first else np.log(1 - p) for p, first in both]),
            "accuracy": np.mean([(p > 0.5) == first for p, first in both]),
            "brier": np.mean([(p - first) ** 2 for p, first in both]),
        }
        line = small.reference_lines[BEST_POSSIBLE][name]
        assert {metric: line[metric] for metric in slow} == pytest.approx(slow)


# Settings


def test_small_is_small(small):
    sizes = {name: len(split.pairs) for name, split in small.splits.items()}
    assert 4_000 <= sizes["pool"] <= 6_000
    assert (sizes["eval"], sizes["test"], sizes["ood"]) == (1_000, 2_000, 2_000)


def test_tldr_like_has_the_size_and_the_agreement_of_tldr():
    data = Simulated(preset="tldr_like", dimension=8).build(lambda what, done, of: None)
    pairs = data.splits["pool"].pairs
    p_N = data.splits["pool"].records.probability_N
    assert len(pairs) == pytest.approx(92_000, rel=0.02)
    assert len(pairs.prompt_features_PQ) == pytest.approx(14_700, rel=0.02)
    assert np.mean(p_N**2 + (1 - p_N) ** 2) == pytest.approx(0.73, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "responses"), [({}, 6), ({"max_pairs_per_prompt": 28, "pool_pairs": 600 * 28, "test_pairs": 28}, 8)]
)
def test_duels_have_all_pairs_of_all_responses(settings, responses):
    data = Simulated(preset="duels", dimension=8, **settings).build(lambda what, done, of: None)
    for name in ("pool", "eval", "test", "ood") if not settings else ("pool", "test"):
        pairs = data.splits[name].pairs
        assert np.bincount(pairs.prompt_of_response_R).tolist() == [responses] * len(pairs.prompt_features_PQ)
        distinct = np.unique(np.sort(pairs.responses_of_pair_N2, axis=1), axis=0)
        assert len(distinct) == len(pairs) == len(pairs.prompt_features_PQ) * responses * (responses - 1) // 2
    assert len(data.splits["pool"].pairs.prompt_features_PQ) == 600


def test_a_setting_beats_its_preset():
    assert Simulated(preset="tldr_like", pool_pairs=60_000).pool_pairs == 60_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pool_pairs": 100, "pool_prompts": 200}, "200 to 8000 pairs"),
        ({"pool_pairs": 900, "pool_prompts": 200, "max_pairs_per_prompt": 4}, "200 to 800 pairs"),
        ({"agreement": 0.4}, "agreement"),
        ({"spread": -1}, "spread"),
        ({"local": 1.5}, "local"),
        ({"temperature": 0}, "temperature"),
        ({"dimension": 0}, "dimension"),
        ({"near_tie": 1}, "near_tie"),
        ({"preset": "tldr"}, "tldr_like"),
    ],
)
def test_wrong_settings_say_what_is_wrong(wrong, message):
    with pytest.raises(ValidationError, match=message):
        Simulated(**wrong)


def test_a_held_out_split_may_be_of_one_pair():
    build(eval_pairs=1, test_pairs=1, ood_pairs=1).check()


def test_every_setting_is_described():
    for name, field in Simulated.model_fields.items():
        assert name == "data_seed" or field.description, name


def test_perplexity_grows_with_the_length_of_the_offset_and_is_independent_of_the_reward():
    settings = Simulated(preset="small")
    latent = settings.latent_split("pool")
    found_R = settings.build(lambda what, done, of: None).splits["pool"].pairs.response_log_perplexity_R
    length_R = np.linalg.norm(latent.offset_RL, axis=1) / np.sqrt(settings.latent_dimension)
    rest_R = found_R - (2 + length_R / 2)
    assert found_R.min() >= 0
    assert rest_R.mean() == pytest.approx(0, abs=4 * 0.25 / np.sqrt(len(rest_R)))
    assert rest_R.std() == pytest.approx(0.25, rel=0.06)
    assert abs(np.corrcoef(found_R, latent.reward_R)[0, 1]) < 0.08


def test_progress_is_reported():
    calls = []
    Simulated(**TINY_WORLD).build(lambda *call: calls.append(call))
    assert calls[-1] == ("simulate", 4, 4)


def test_a_world_does_not_depend_on_the_number_of_threads(monkeypatch):
    features, threads = world.FeatureMap.features, []

    def watched(self, latent_RL):
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return features(self, latent_RL)

    monkeypatch.setattr(world.FeatureMap, "features", watched)
    worlds = []
    for number in (1, 2, 3):
        with threadpool_limits(number, user_api="blas"):
            worlds.append(Simulated(pool_pairs=600, pool_prompts=90).build(lambda *_: None))
    assert set(threads) == {1}
    for other in worlds[1:]:
        for name, split in worlds[0].splits.items():
            pairs = other.splits[name].pairs
            assert pairs.response_features_RD.tobytes() == split.pairs.response_features_RD.tobytes()
            assert pairs.prompt_features_PQ.tobytes() == split.pairs.prompt_features_PQ.tobytes()
        assert other.reference_lines == worlds[0].reference_lines
