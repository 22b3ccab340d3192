"""Dueling policies against their rules in plain loops, over the pairs that can be had."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from balbench.harness.policies.dueling import DeltaUcb, DoubleThompson, Drts, Infomax, MaxMinLcb
from balbench.harness.pool.index import PoolIndex
from balbench.harness.streams import stream
from balbench.testing.examples import LinearRewards, pool_of, reordered, responses_of, view_of
from support.duels import thinned

VIEWS = {
    "all pairs": view_of(pool_of(prompts=12, responses=4), acquired=20, members=4),
    "few pairs": view_of(thinned(pool_of(prompts=30, responses=6), 0.4), acquired=60, members=5),
    "last pairs": view_of(thinned(pool_of(prompts=30, responses=6), 0.4), acquired=140, members=5),
    "two responses": view_of(pool_of(prompts=20, responses=2), acquired=4),
    "one sample": view_of(pool_of(prompts=12, responses=4), acquired=20, members=1),
}
POLICIES = [
    Infomax(),
    DeltaUcb(),
    MaxMinLcb(),
    MaxMinLcb(bounds="pairs"),
    DoubleThompson(),
    DoubleThompson(draws="interval"),
    Drts(),
]
each_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{type(policy).__name__}")


def duels_left(view):
    """{prompt: [(pair, i, j), ...]} in both directions, of the unlabelled pairs."""
    left = {}
    for pair in view.unlabelled_U:
        i, j = (int(r) for r in view.pool.responses_of_pair_N2[pair])
        left.setdefault(int(view.pool.prompt_of_pair_N[pair]), []).extend([(int(pair), i, j), (int(pair), j, i)])
    return left


def bounds_of(view):
    """Mean and standard deviation (ddof 1) of each response's reward."""
    rewards = view.rewards_KR.double().numpy()
    std = np.array([np.std(r, ddof=1) if len(r) > 1 else 0.0 for r in rewards.T])
    return rewards.mean(axis=0), std


def one_pass(policy, view, seed=0):
    """{prompt: (pair, score)} of a batch that visits every prompt once."""
    prompts = len(duels_left(view))
    selection = policy.select(view, prompts, stream(seed, "policy"))
    chosen = view.pool.prompt_of_pair_N[selection.pairs_B].tolist()
    assert len(set(chosen)) == prompts
    return dict(zip(chosen, zip(selection.pairs_B.tolist(), selection.scores_B.tolist(), strict=True), strict=True))


def assert_same(actual, expected):
    assert {prompt: pair for prompt, (pair, _) in actual.items()} == {p: pair for p, (pair, _) in expected.items()}
    for prompt, (_, score) in expected.items():
        assert actual[prompt][1] == pytest.approx(score, abs=1e-9)


# The rules


@each_view
def test_infomax_takes_the_pair_whose_probability_varies_most(view):
    rewards = view.rewards_KR.double().numpy()

    def variance(i, j):
        p = [1 / (1 + np.exp(-(r[i] - r[j]))) for r in rewards]
        return sum((value - sum(p) / len(p)) ** 2 for value in p) / len(p)

    actual = one_pass(Infomax(), view)
    for prompt, duels in duels_left(view).items():
        value = {pair: variance(i, j) for pair, i, j in duels}
        pair, score = actual[prompt]
        assert score == pytest.approx(max(value.values()), abs=1e-9)
        assert value[pair] == pytest.approx(score, abs=1e-9)


@each_view
@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_delta_ucb_takes_the_largest_optimistic_gap(view, beta):
    mean, std = bounds_of(view)
    expected = {}
    for prompt, duels in duels_left(view).items():
        gap = {(mean[i] + beta * std[i]) - (mean[j] - beta * std[j]): pair for pair, i, j in duels}
        expected[prompt] = (gap[max(gap)], max(gap))
    assert_same(one_pass(DeltaUcb(beta=beta), view), expected)


def max_min_by_loops(view, centre, width):
    """The game of every prompt; also how often it was played among plausible arms, with one, with none."""
    recorded = {}
    for i, j in view.pool.responses_of_pair_N2.tolist():
        recorded.setdefault(i, []).append(j)
        recorded.setdefault(j, []).append(i)
    plausible = {i: all(centre(i, j) + width(i, j) >= 0 for j in met) for i, met in recorded.items()}
    expected, kinds = {}, Counter()
    for prompt, duels in duels_left(view).items():
        both = [duel for duel in duels if plausible[duel[1]] and plausible[duel[2]]]
        led = [duel for duel in duels if plausible[duel[1]]]
        game = both or led or duels
        kinds["both" if both else "led" if led else "none"] += 1
        lower = {(i, j): (centre(i, j) - width(i, j), pair) for pair, i, j in game}
        worst = {i: min(value for (leader, _), value in lower.items() if leader == i) for i, _ in lower}
        leader = max(worst, key=worst.get)
        value, pair = min(value for (i, _), value in lower.items() if i == leader)
        expected[prompt] = (pair, value)
    return expected, kinds


def max_min_on_rewards(view, beta):
    mean, std = bounds_of(view)
    return max_min_by_loops(view, lambda i, j: mean[i] - mean[j], lambda i, j: beta * (std[i] + std[j]))


@each_view
@pytest.mark.parametrize("beta", [0.02, 0.3, 1.0])
def test_max_min_lcb_plays_its_game_on_bounds_of_rewards(view, beta):
    expected, _ = max_min_on_rewards(view, beta)
    assert_same(one_pass(MaxMinLcb(beta=beta), view), expected)


@each_view
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_max_min_lcb_plays_its_game_on_bounds_of_pairs(view, beta):
    rewards = view.rewards_KR.double().numpy()

    def probability(i, j):
        return 1 / (1 + np.exp(-(rewards[:, i] - rewards[:, j])))

    def width(i, j):
        return beta * np.std(probability(i, j), ddof=1) if len(rewards) > 1 else 0.0

    expected, _ = max_min_by_loops(view, lambda i, j: probability(i, j).mean() - 0.5, width)
    assert_same(one_pass(MaxMinLcb(beta=beta, bounds="pairs"), view), expected)


def test_all_three_games_of_max_min_lcb_were_tried():
    kinds = Counter()
    for view in VIEWS.values():
        for beta in (0.02, 0.3, 1.0):
            kinds += max_min_on_rewards(view, beta)[1]
    assert min(kinds["both"], kinds["led"], kinds["none"]) > 0


def pair_odds(view, prompt, tries):
    """The exact distribution of double Thompson sampling over {pair: probability} at one prompt."""
    rewards = view.rewards_KR.double().numpy()
    duels = duels_left(view)[prompt]
    leaders = {i for _, i, _ in duels}
    odds = Counter()
    for first in rewards:
        i = max(leaders, key=lambda r: first[r])
        partners = {j: pair for pair, leader, j in duels if leader == i}
        seconds = [max([i, *partners], key=lambda r: second[r]) for second in rewards]
        stuck = (seconds.count(i) / len(rewards)) ** tries
        for j in partners:
            drawn = seconds.count(j) / max(1, sum(second != i for second in seconds))
            odds[partners[j]] += ((1 - stuck) * drawn + stuck / len(partners)) / len(rewards)
    return odds


@pytest.mark.parametrize("tries", [1, 3])
@pytest.mark.parametrize("view", [VIEWS["all pairs"], VIEWS["few pairs"]], ids=["all pairs", "few pairs"])
def test_double_thompson_draws_pairs_as_often_as_its_rule_says(view, tries):
    seeds = 1500
    actual = {prompt: Counter() for prompt in duels_left(view)}
    for seed in range(seeds):
        for prompt, (pair, _) in one_pass(DoubleThompson(tries=tries), view, seed).items():
            actual[prompt][pair] += 1
    for prompt, count in actual.items():
        odds = pair_odds(view, prompt, tries)
        assert sum(odds.values()) == pytest.approx(1)
        for pair, p in odds.items():
            assert abs(count[pair] / seeds - p) < 5 * np.sqrt(p * (1 - p) / seeds) + 1e-12


def thompson_by_loops(rng, mean, std, duels, beta, tries, reverse):
    """One duel of a prompt by the rule with intervals."""

    def draw(responses):
        return {r: mean[r] + beta * rng.uniform(-1, 1) * std[r] for r in responses}

    first = draw({i for _, i, _ in duels})
    i = max(first, key=first.get)
    partners = {j: pair for pair, leader, j in duels if leader == i}
    for _ in range(tries):
        second = draw([i, *partners])
        j = (min if reverse else max)(second, key=second.get)
        if j != i:
            return partners[j]
    return partners[rng.choice(list(partners))]


@pytest.mark.parametrize("reverse", [False, True])
def test_draws_from_intervals_give_pairs_as_often_as_loops_do(reverse):
    view, seeds = VIEWS["few pairs"], 2000
    kind = Drts if reverse else DoubleThompson
    policy = kind(draws="interval", beta=1.5, tries=2)
    rng, (mean, std), left = np.random.default_rng(0), bounds_of(view), duels_left(view)
    actual, expected = Counter(), Counter()
    for seed in range(seeds):
        actual.update(pair for pair, _ in one_pass(policy, view, seed).values())
        expected.update(thompson_by_loops(rng, mean, std, duels, 1.5, 2, reverse) for duels in left.values())
    shares = np.array([(actual[pair] / seeds, expected[pair] / seeds) for pair in view.unlabelled_U])
    noise = np.sqrt(2 * shares.mean(axis=1) * (1 - shares.mean(axis=1)) / seeds)
    assert (np.abs(shares[:, 0] - shares[:, 1]) <= 5 * noise).all()
    assert ((shares > 0.05) & (shares < 0.95)).any(axis=1).sum() > 10  # else nothing was left to chance


def test_without_noise_drts_is_the_best_against_the_worst():
    view = view_of(pool_of(prompts=12, responses=5), acquired=0)
    mean, _ = bounds_of(view)
    for prompt, (pair, score) in one_pass(Drts(beta=0), view).items():
        of_prompt = np.flatnonzero(view.pool.prompt_of_response_R == prompt)
        best, worst = of_prompt[np.argmax(mean[of_prompt])], of_prompt[np.argmin(mean[of_prompt])]
        assert set(view.pool.responses_of_pair_N2[pair]) == {best, worst}
        assert score == pytest.approx(mean[best] - mean[worst])


def test_a_single_sample_leaves_the_second_response_of_double_thompson_to_chance():
    view = view_of(pool_of(prompts=200, responses=4), acquired=0, members=1)
    reward = view.rewards_KR[0].numpy()
    others = Counter()
    for prompt, (pair, _) in one_pass(DoubleThompson(), view).items():
        of_prompt = np.flatnonzero(view.pool.prompt_of_response_R == prompt)
        best = of_prompt[np.argmax(reward[of_prompt])]
        (other,) = set(view.pool.responses_of_pair_N2[pair]) - {best}
        others[sorted(set(of_prompt) - {best}).index(other)] += 1
    assert min(others[place] for place in range(3)) > 40  # 67 expected


# Prompts and passes


@each_policy
def test_every_prompt_has_its_duel_before_any_has_two(policy):
    view = VIEWS["few pairs"]
    left = Counter(view.pool.prompt_of_pair_N[view.unlabelled_U].tolist())
    batch = policy.select(view, len(view.unlabelled_U), stream(0)).pairs_B
    prompts = view.pool.prompt_of_pair_N[batch].tolist()
    done = 0
    for number in range(1, max(left.values()) + 1):
        expected = {prompt for prompt, count in left.items() if count >= number}
        assert set(prompts[done : done + len(expected)]) == expected
        done += len(expected)
    assert done == len(batch)


@each_policy
def test_with_two_responses_a_prompt_all_rules_choose_the_same(policy):
    view = VIEWS["two responses"]
    batch = policy.select(view, 10, stream(2)).pairs_B
    np.testing.assert_array_equal(batch, DeltaUcb().select(view, 10, stream(2)).pairs_B)


@each_policy
def test_prompts_come_at_random(policy):
    view = VIEWS["all pairs"]
    firsts = [int(view.pool.prompt_of_pair_N[policy.select(view, 1, stream(seed)).pairs_B[0]]) for seed in range(600)]
    count = np.bincount(firsts, minlength=12)
    assert count.min() > 20  # 50 expected
    assert count.max() < 90


@pytest.mark.parametrize("policy", [Infomax, DeltaUcb, MaxMinLcb, DoubleThompson, Drts])
def test_uncertain_prompts_come_first_if_asked(policy):
    view = VIEWS["few pairs"]
    epistemic = dict(zip(view.unlabelled_U.tolist(), view.epistemic_U, strict=True))
    peak = {prompt: max(epistemic[pair] for pair, _, _ in duels) for prompt, duels in duels_left(view).items()}
    batch = policy(prompts="uncertain").select(view, 9, stream(0)).pairs_B
    assert view.pool.prompt_of_pair_N[batch].tolist() == sorted(peak, key=peak.get, reverse=True)[:9]


@pytest.mark.parametrize("policy", [Infomax(), DeltaUcb(), MaxMinLcb()])
def test_a_pass_plays_on_with_what_is_left(policy):
    view = view_of(pool_of(prompts=1, responses=5), acquired=0)
    batch = policy.select(view, 10, stream(0)).pairs_B
    for number in range(10):
        left = replace(view, unlabelled_U=np.setdiff1d(view.unlabelled_U, batch[:number]))
        assert policy.select(left, 1, stream(0)).pairs_B[0] == batch[number]


@each_policy
def test_the_storage_order_of_responses_and_prompts_does_not_matter_either(policy):
    view = VIEWS["few pairs"]
    moved, pair_order, response_order = reordered(view.pool, seed=4)
    place = np.argsort(pair_order)
    stored = replace(
        view,
        index=PoolIndex(moved),
        unlabelled_U=np.sort(place[view.unlabelled_U]),
        acquired_n=place[view.acquired_n],
        splits=dict(view.splits) | {"pool": responses_of(moved)},
    )
    assert not np.array_equal(response_order, np.arange(len(response_order)))
    one, two = (policy.select(some, 40, stream(3)) for some in (view, stored))
    np.testing.assert_array_equal(pair_order[two.pairs_B], one.pairs_B)
    np.testing.assert_allclose(two.scores_B, one.scores_B, rtol=0, atol=1e-12)


@each_policy
def test_a_response_paired_with_itself_is_no_obstacle(policy):
    pool = pool_of(prompts=1, responses=3)
    pool.responses_of_pair_N2[1] = 2  # (0, 1), (2, 2), (1, 2)
    view = view_of(pool, acquired=0)
    assert sorted(policy.select(view, 3, stream(0)).pairs_B) == [0, 1, 2]


@each_policy
def test_constant_rewards_are_no_obstacle(policy):
    class Constant(LinearRewards):
        def rewards_KR(self, features_RD):
            return torch.zeros(3, len(features_RD))

    view = view_of(pool_of(responses=4), model=Constant(4))
    selection = policy.select(view, 20, stream(0))
    np.testing.assert_array_equal(selection.scores_B, 0)


@pytest.mark.parametrize("wrong", [{"beta": -1}, {"tries": 0}, {"prompts": "best"}, {"draws": "normal"}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Drts(**wrong)
