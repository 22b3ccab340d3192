"""The simulated world: topics, rewards, annotators and their settings."""

from dataclasses import replace

import numpy as np
import pytest

from balbench.harness.datasets import world
from balbench.harness.datasets.simulated import Simulated
from balbench.harness.pool.contents import Contents
from balbench.harness.streams import stream
from balbench.oracles.annotations import Choice
from support.faults import one_line
from support.worlds import TINY_WORLD, build

# Topics


def test_topic_frequencies_are_zipf():
    world_like = Simulated(**(TINY_WORLD | {"pool_prompts": 900, "zipf": 1.2}))
    share = np.mean(world_like.latent_split("pool").topic_P == 0)
    expected = 1 / sum(rank**-1.2 for rank in range(1, 61))
    assert expected > 0.25
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 900)


def test_without_zipf_all_topics_are_as_frequent():
    topic_P = Simulated(**(TINY_WORLD | {"pool_prompts": 900, "zipf": 0})).latent_split("pool").topic_P
    assert np.bincount(topic_P, minlength=60).max() < 40  # 15 expected


@pytest.mark.parametrize("spread", [0.1, 0.5, 2.0])
def test_prompts_lie_around_their_topic_at_the_asked_spread(spread):
    latent = Simulated(**(TINY_WORLD | {"spread": spread, "topics": 5, "zipf": 0})).latent_split("pool")
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
    simulated = Simulated(**(TINY_WORLD | {"ood_pairs": 2_000, "ood_unseen": unseen}))
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


def test_a_given_temperature_replaces_agreement():
    simulated = Simulated(**(TINY_WORLD | {"temperature": 0.7}))
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
        simulated = Simulated(**(TINY_WORLD | {"nonlinearity": nonlinearity}))
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


# Misfit by distance


def test_the_default_exponent_leaves_votes_as_they_are():
    gap_N, distance_N = np.array([0.5, -1.0, 0.0]), np.array([2.0, 1.0, 0.0])
    assert world.signal_at_distance(gap_N, distance_N, 1.5, 1.0) is gap_N
    for name, split in build().splits.items():
        same = build(distance_exponent=1.0).splits[name]
        np.testing.assert_array_equal(split.records.probability_N, same.records.probability_N)


def test_the_perceived_signal_equals_its_definition():
    gap_N, distance_N = np.array([0.5, -1.0, 0.3]), np.array([2.0, 1.0, 4.0])
    expected = [gap * (distance / 1.5) ** (0.25 - 1) for gap, distance in zip(gap_N, distance_N, strict=True)]
    np.testing.assert_allclose(world.signal_at_distance(gap_N, distance_N, 1.5, 0.25), expected)
    assert np.isfinite(world.signal_at_distance(np.zeros(1), np.zeros(1), 1.0, -1.0)).all()


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.5, 1.0])
def test_annotators_agree_as_often_as_asked_at_every_exponent(exponent):
    p_N = build(distance_exponent=exponent).splits["pool"].records.probability_N
    assert np.mean(p_N**2 + (1 - p_N) ** 2) == pytest.approx(0.73, abs=1e-6)


def test_the_signal_grows_with_distance_as_asked_and_features_stay():
    def clearness(exponent):
        """Mean probability of the better response above 1/2, among near and among distant pairs."""
        settings = TINY_WORLD | {"distance_exponent": exponent, "pool_pairs": 4_000, "pool_prompts": 900}
        simulated = Simulated(**settings)
        p_N = simulated.build(lambda what, done, of: None).splits["pool"].records.probability_N
        distance_N = simulated.latent_split("pool").distance_N
        near_N, far_N = distance_N < np.quantile(distance_N, 0.25), distance_N > np.quantile(distance_N, 0.75)
        return np.abs(p_N - 0.5)[near_N].mean(), np.abs(p_N - 0.5)[far_N].mean()

    near, far = clearness(1.0)
    assert far > 2 * near
    near, far = clearness(0.0)
    assert far == pytest.approx(near, rel=0.15)
    near, far = clearness(-0.5)
    assert far < 0.7 * near
    for name in ("pool", "test"):
        plain, changed = (build(distance_exponent=exponent).splits[name].pairs for exponent in (1.0, 0.0))
        np.testing.assert_array_equal(plain.response_features_RD, changed.response_features_RD)
        np.testing.assert_array_equal(plain.responses_of_pair_N2, changed.responses_of_pair_N2)
