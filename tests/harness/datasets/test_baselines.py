import numpy as np
import pytest
from scipy.special import expit

from balbench.harness.datasets.baselines import length_only
from balbench.harness.pool.pairs import PreferencePool, Split
from balbench.oracles.annotations import Choice, PairRecords


def split_of(lengths, shares, votes=100) -> Split:
    """Pairs of given lengths (N, 2), with `votes` votes each, of which `shares` for the first."""
    count = len(lengths)
    responses_N2 = np.stack([2 * np.arange(count), 2 * np.arange(count) + 1], axis=1)
    pairs = PreferencePool(
        *[np.zeros((0, 1))] * 2, np.arange(2 * count) // 2, responses_N2, np.arange(count).astype(str)
    )
    first_N = np.round(np.asarray(shares) * votes)
    choice_NV = np.where(np.arange(votes) < first_N[:, None], Choice.FIRST, Choice.SECOND)
    records = PairRecords(
        pair_id_N=pairs.pair_id_N,
        vote_pair_V=np.repeat(np.arange(count), votes),
        vote_choice_V=choice_NV.ravel(),
        vote_annotator_V=np.full(count * votes, ""),
        response_length_N2=np.asarray(lengths),
    )
    return Split(pairs, records)


def made_up(count, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 500, (count, 2))
    logit = 0.004 * (lengths[:, 0] - lengths[:, 1]) + 0.5 * np.log(lengths[:, 0] / lengths[:, 1])
    return lengths, expit(logit)


def test_a_world_in_which_length_decides_is_found():
    lengths, truth = made_up(3000)
    pool, test = split_of(lengths[:2000], truth[:2000]), split_of(lengths[2000:], truth[2000:])
    actual = length_only(pool, {"test": test})["test"]
    q = test.records.first_share_N
    best = np.mean(q * np.log(truth[2000:]) + (1 - q) * np.log(1 - truth[2000:]))
    assert actual["log_likelihood"] == pytest.approx(best, abs=1e-3)
    assert actual["accuracy"] == pytest.approx(np.mean(np.maximum(q, 1 - q)), abs=5e-3)
    assert actual["brier"] == pytest.approx(0, abs=1e-3)


def test_the_order_shown_does_not_matter():
    lengths, truth = made_up(200)
    rng = np.random.default_rng(1)
    turn = rng.random(200) < 0.5
    turned = split_of(np.where(turn[:, None], lengths[:, ::-1], lengths), np.where(turn, 1 - truth, truth))
    plain = split_of(lengths, truth)
    one, other = length_only(plain, {"test": plain})["test"], length_only(turned, {"test": turned})["test"]
    assert one == pytest.approx(other, abs=1e-6)


def test_lengths_that_say_nothing_give_a_coin():
    same = split_of([[7, 7], [9, 9]], [1.0, 0.0])
    actual = length_only(same, {"eval": same})["eval"]
    assert actual["log_likelihood"] == pytest.approx(-np.log(2))
    assert actual["accuracy"] == 0.5
    assert actual["brier"] == 0.25


def test_lengths_that_decide_all_give_finite_numbers():
    sure = split_of([[9, 3], [2, 8], [30, 10]], [1.0, 0.0, 1.0])
    actual = length_only(sure, {"test": sure})["test"]
    assert actual["accuracy"] == 1
    assert -0.2 < actual["log_likelihood"] < 0


def test_pairs_without_votes_have_no_say():
    lengths, truth = made_up(100)
    pool = split_of(lengths, truth)
    silent = PairRecords(
        pair_id_N=np.arange(101).astype(str),
        vote_pair_V=pool.records.vote_pair_V,
        vote_choice_V=pool.records.vote_choice_V,
        vote_annotator_V=pool.records.vote_annotator_V,
        response_length_N2=np.vstack([lengths, [[1, 1]]]),
    )
    one, other = (length_only(each, {"t": pool})["t"] for each in (pool, Split(pool.pairs, silent)))
    assert one == pytest.approx(other, abs=1e-3)


def test_features_without_texts_are_refused():
    pool = split_of(*made_up(5))
    bare = Split(pool.pairs, PairRecords(pool.pairs.pair_id_N, *[np.zeros(0, int)] * 3))
    with pytest.raises(ValueError, match="response_length_N2"):
        length_only(bare, {})
