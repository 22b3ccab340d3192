from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from threadpoolctl import threadpool_info, threadpool_limits

from balbench.harness.datasets import world
from balbench.harness.datasets.simulated import BEST_POSSIBLE, Simulated
from balbench.harness.pool.contents import Contents
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.streams import stream
from balbench.oracles.annotations import Choice
from support.faults import one_line

TINY = {
    "pool_pairs": 900,
    "pool_prompts": 220,
    "eval_pairs": 60,
    "test_pairs": 150,
    "ood_pairs": 150,
    "dimension": 16,
}


def build(**settings):
    return Simulated(**(TINY | settings)).build(lambda what, done, of: None)


def arrays(data: PreferenceData, split: str) -> dict[str, np.ndarray]:
    pairs, records = data.splits[split].pairs, data.splits[split].records
    found = {**vars(pairs), "probability_N": records.probability_N, "vote_choice_V": records.vote_choice_V}
    return {name: value for name, value in found.items() if value is not None}


@pytest.fixture(scope="module")
def small() -> PreferenceData:
    return Simulated(preset="small").build(lambda what, done, of: None)


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


def test_responses_stand_in_many_pairs(small):
    pairs = small.splits["pool"].pairs
    responses = len(pairs.prompt_of_response_R)
    assert responses < 0.5 * 2 * len(pairs)
    assert len(np.unique(pairs.responses_of_pair_N2)) == responses  # and none stands in no pair


def test_pairs_are_of_two_responses_and_no_pair_stands_twice(small):
    for split in small.splits.values():
        sorted_N2 = np.sort(split.pairs.responses_of_pair_N2, axis=1)
        assert np.all(sorted_N2[:, 0] < sorted_N2[:, 1])
        assert len(np.unique(sorted_N2, axis=0)) == len(sorted_N2)


def test_pairs_of_a_prompt_do_not_stand_together(small):
    prompt_N = small.splits["pool"].pairs.prompt_of_pair_N
    assert np.mean(prompt_N[1:] == prompt_N[:-1]) < 0.02


def test_held_out_prompts_have_as_many_pairs_as_those_of_the_pool(small):
    for split in small.splits.values():
        assert len(split.pairs) / len(split.pairs.prompt_features_PQ) == pytest.approx(5_000 / 800, rel=0.01)


def test_order_shown_says_nothing(small):
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


# Topics


def test_topic_frequencies_are_zipf():
    world_like = Simulated(**(TINY | {"pool_prompts": 900, "zipf": 1.2}))
    share = np.mean(world_like.latent_split("pool").topic_P == 0)
    expected = 1 / sum(rank**-1.2 for rank in range(1, 61))
    assert expected > 0.25
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 900)


def test_without_zipf_all_topics_are_as_frequent():
    topic_P = Simulated(**(TINY | {"pool_prompts": 900, "zipf": 0})).latent_split("pool").topic_P
    assert np.bincount(topic_P, minlength=60).max() < 40  # 15 expected


@pytest.mark.parametrize("spread", [0.1, 0.5, 2.0])
def test_prompts_lie_around_their_topic_at_the_asked_spread(spread):
    latent = Simulated(**(TINY | {"spread": spread, "topics": 5, "zipf": 0})).latent_split("pool")
    centred = [latent.prompt_PL[latent.topic_P == topic] for topic in range(5)]
    within = np.concatenate([part - part.mean(axis=0) for part in centred])
    assert within.std() == pytest.approx(spread, rel=0.1)


def test_a_narrow_spread_makes_the_observed_prompts_redundant():
    def nearest(spread):
        features_PQ = build(spread=spread).splits["pool"].pairs.prompt_features_PQ.astype(float)
        distance_PP = np.linalg.norm(features_PQ[:, None] - features_PQ, axis=-1)
        return np.median(np.sort(distance_PP, axis=1)[:, 1])

    assert nearest(0.1) < 0.5 * nearest(0.5)


@pytest.mark.parametrize("unseen", [0.0, 0.5, 1.0])
def test_ood_topics_are_flat_and_unseen_to_the_asked_share(unseen):
    simulated = Simulated(**(TINY | {"ood_pairs": 2_000, "ood_unseen": unseen}))
    topic_P = simulated.latent_split("ood").topic_P
    assert np.mean(topic_P >= 60) == pytest.approx(unseen, abs=0.1)
    assert np.bincount(topic_P).max() / len(topic_P) < 0.06
    for split in ("pool", "eval", "test"):
        assert simulated.latent_split(split).topic_P.max() < 60


def test_unseen_topics_lie_farther_from_the_pool_than_the_test_split():
    data = build(ood_unseen=1.0, topics=10, zipf=0)  # so that the pool knows all of its own topics well
    pool_PQ = data.splits["pool"].pairs.prompt_features_PQ.astype(float)

    def distance(split):
        features_PQ = data.splits[split].pairs.prompt_features_PQ
        return np.median(np.linalg.norm(features_PQ[:, None] - pool_PQ, axis=-1).min(axis=1))

    assert distance("ood") > 2 * distance("test")


def test_held_out_prompts_are_new(small):
    pool = {row.tobytes() for row in small.splits["pool"].pairs.prompt_features_PQ}
    for name in ("eval", "test", "ood"):
        assert not pool & {row.tobytes() for row in small.splits[name].pairs.prompt_features_PQ}


# Rewards and annotators


@pytest.mark.parametrize("agreement", [0.6, 0.73, 0.9])
@pytest.mark.parametrize("near_ties", [0.0, 1.0, 2.0])
def test_annotators_agree_as_often_as_asked(agreement, near_ties):
    p_N = build(agreement=agreement, near_ties=near_ties).splits["pool"].records.probability_N
    assert np.mean(p_N**2 + (1 - p_N) ** 2) == pytest.approx(agreement, abs=1e-6)


def test_two_votes_on_a_pair_agree_as_often_as_asked(small):
    p_N = small.splits["pool"].records.probability_N
    two_N2 = stream(5).numpy().random((len(p_N), 2)) < p_N[:, None]
    assert np.mean(two_N2[:, 0] == two_N2[:, 1]) == pytest.approx(0.73, abs=0.03)


def test_a_given_temperature_has_its_way():
    simulated = Simulated(**(TINY | {"temperature": 0.7}))
    records = simulated.build(lambda what, done, of: None).splits["test"].records
    expected_N = 1 / (1 + np.exp(-simulated.latent_split("test").gap_N / 0.7))
    np.testing.assert_allclose(records.probability_N, expected_N, rtol=1e-9)


def test_near_ties_grow_with_their_setting():
    def share(near_ties):
        p_N = build(near_ties=near_ties).splits["pool"].records.probability_N
        return np.mean(np.abs(p_N - 0.5) < 0.1)

    shares = [share(near_ties) for near_ties in (0.0, 0.7, 1.4, 2.1)]
    assert shares == sorted(shares)
    assert shares[-1] > 2 * shares[0]


@pytest.mark.parametrize("near_ties", [0.0, 0.5, 1.0, 2.0])
def test_offsets_have_mean_square_one_whatever_their_spread(near_ties):
    prompt_of_response_R = np.arange(40_000) // 2
    offset_RL = world.draw_offsets(prompt_of_response_R, 12, near_ties, stream(0))
    assert np.mean(offset_RL**2) == pytest.approx(1.0, rel=0.15)


def test_log_lengths_spread_as_asked_and_half_of_it_by_prompt():
    offset_RL = world.draw_offsets(np.arange(40_000) // 2, 400, 1.0, stream(0))  # 400: lengths hardly vary otherwise
    length_P2 = np.log(np.linalg.norm(offset_RL, axis=1)).reshape(-1, 2)
    assert length_P2.std() == pytest.approx(1.0, abs=0.03)
    assert np.corrcoef(length_P2.T)[0, 1] == pytest.approx(0.5, abs=0.03)
    assert length_P2.max() - np.median(length_P2) == pytest.approx(2.5, abs=0.2)  # where lengths are cut


@pytest.mark.parametrize("local", [0.0, 0.3, 1.0])
def test_local_is_the_share_of_the_direction_that_places_do_not_share(local):
    field = world.RewardField.draw(12, local, 1.0, stream(0))
    direction_PL = field.directions_PL(10 * stream(1).numpy().standard_normal((4_000, 12)))
    common_L = direction_PL.mean(axis=0)
    assert common_L @ common_L == pytest.approx(1 - local, abs=0.03)
    assert np.mean(np.sum((direction_PL - common_L) ** 2, axis=1)) == pytest.approx(local, abs=0.03)


def test_local_directions_are_alike_within_its_reach_and_not_beyond():
    field = world.RewardField.draw(12, 1.0, 3.0, stream(0))
    here_PL = stream(1).numpy().standard_normal((500, 12))
    step_PL = stream(2).numpy().standard_normal((500, 12))
    step_PL /= np.linalg.norm(step_PL, axis=1, keepdims=True)

    def likeness(distance):
        both = field.directions_PL(here_PL), field.directions_PL(here_PL + distance * step_PL)
        return np.mean(np.sum(both[0] * both[1], axis=1))

    assert likeness(0.3) > 0.98
    assert likeness(3.0) == pytest.approx(np.exp(-0.5), abs=0.1)
    assert abs(likeness(15.0)) < 0.1


def test_reward_is_the_offset_along_the_direction():
    field = world.RewardField.draw(3, 0.4, 2.0, stream(0))
    prompt_PL = stream(1).numpy().standard_normal((4, 3))
    offset_RL = stream(2).numpy().standard_normal((6, 3))
    prompt_of_response_R = np.array([0, 0, 1, 2, 3, 3])
    direction_PL = field.directions_PL(prompt_PL)
    slow = [sum(direction_PL[p][i] * offset_RL[r][i] for i in range(3)) for r, p in enumerate(prompt_of_response_R)]
    np.testing.assert_allclose(field.rewards_R(prompt_PL, prompt_of_response_R, offset_RL), slow)


def test_nonlinearity_hides_latents_from_affine_maps():
    def unexplained(nonlinearity):
        simulated = Simulated(**(TINY | {"nonlinearity": nonlinearity}))
        latent = simulated.latent_split("pool")
        place_RL = latent.prompt_PL[latent.prompt_of_response_R]
        design = np.column_stack([place_RL, latent.offset_RL, np.ones(len(place_RL))])
        pairs = simulated.build(lambda what, done, of: None).splits["pool"].pairs
        features = pairs.response_features_RD.astype(float)
        fitted = design @ np.linalg.lstsq(design, features, rcond=None)[0]
        return np.var(features - fitted) / np.var(features)

    shares = [unexplained(nonlinearity) for nonlinearity in (0.0, 0.3, 1.0)]
    assert shares[0] < 1e-10
    assert 0.05 < shares[1] < 0.5 * shares[2]


def test_contents_are_known_before_the_world_is_drawn(small):
    assert Simulated().contents() == replace(Contents.of(small), most_pairs_a_prompt=None)
    assert Simulated().sizes().most_pairs_a_prompt == Contents.of(small).most_pairs_a_prompt


def test_a_world_larger_than_memory_is_refused(monkeypatch):
    monkeypatch.setattr("balbench.harness.datasets.simulated.usable_memory", lambda: 10**6)
    one_line(
        lambda: Simulated().sizes(), "dataset: the features would take 0.0 GiB of memory", "lower dataset.dimension"
    )
    wide = Simulated(max_pairs_per_prompt=1000)
    one_line(wide.sizes, "dataset: drawing the pairs would take", "lower the numbers of pairs and prompts")


def test_votes_come_as_often_as_their_probabilities_say(small):
    p_N = np.concatenate([split.records.probability_N for split in small.splits.values()])
    votes_N = np.concatenate([split.records.vote_choice_V == Choice.FIRST for split in small.splits.values()])
    for low in np.arange(0, 1, 0.1):
        inside = (low <= p_N) & (p_N < low + 0.1)
        error = np.sqrt(np.sum(p_N[inside] * (1 - p_N[inside]))) / inside.sum()
        assert abs(np.mean(votes_N[inside]) - np.mean(p_N[inside])) < 4 * error, low


def test_each_pair_has_one_vote(small):
    for split in small.splits.values():
        assert np.all(split.records.votes_N == 1)
        assert np.isfinite(split.records.first_share_N).all()


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
    ("wrong", "said"),
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
def test_wrong_settings_say_what_is_wrong(wrong, said):
    with pytest.raises(ValidationError, match=said):
        Simulated(**wrong)


def test_a_held_out_split_may_be_of_one_pair():
    build(eval_pairs=1, test_pairs=1, ood_pairs=1).check()


def test_every_setting_is_described():
    for name, field in Simulated.model_fields.items():
        assert name == "data_seed" or field.description, name


def test_perplexity_grows_with_the_length_of_the_offset_and_says_nothing_of_the_reward():
    settings = Simulated(preset="small")
    latent = settings.latent_split("pool")
    found_R = settings.build(lambda what, done, of: None).splits["pool"].pairs.response_log_perplexity_R
    length_R = np.linalg.norm(latent.offset_RL, axis=1) / np.sqrt(settings.latent_dimension)
    rest_R = found_R - (2 + length_R / 2)
    assert found_R.min() >= 0
    assert rest_R.mean() == pytest.approx(0, abs=4 * 0.25 / np.sqrt(len(rest_R)))
    assert rest_R.std() == pytest.approx(0.25, rel=0.06)
    assert abs(np.corrcoef(found_R, latent.reward_R)[0, 1]) < 0.08


def test_progress_is_told():
    calls = []
    Simulated(**TINY).build(lambda *call: calls.append(call))
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
