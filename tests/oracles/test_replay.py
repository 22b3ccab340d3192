import numpy as np
import pytest

from balbench.harness.streams import stream
from balbench.oracles.annotations import Choice, PairRecords
from balbench.oracles.replay import Replay

RECORDS = PairRecords(
    pair_id_N=np.array(["a", "b", "c"]),
    vote_pair_V=np.array([0, 0, 0, 1, 1, 2]),
    vote_choice_V=np.array([Choice.SECOND, Choice.FIRST, Choice.FIRST, Choice.FIRST, Choice.SECOND, Choice.FIRST]),
    vote_annotator_V=np.array(["u", "v", "w", "u", "v", "w"]),
)


def test_first_answers_with_the_first_vote():
    answers = Replay(votes="first").annotate(RECORDS, stream(0))
    assert answers.choice_B.tolist() == [Choice.SECOND, Choice.FIRST, Choice.FIRST]
    assert answers.annotator_B.tolist() == ["u", "u", "w"]


def test_majority_counts_votes_and_an_even_split_is_a_tie():
    answers = Replay(votes="majority").annotate(RECORDS, stream(0))
    assert answers.choice_B.tolist() == [Choice.FIRST, Choice.TIE, Choice.FIRST]
    assert answers.label_B.tolist() == [1.0, 0.5, 1.0]


def test_sample_draws_each_vote_equally_often_over_seeds():
    draws = np.array([Replay(votes="sample").annotate(RECORDS, stream(seed)).annotator_B for seed in range(600)])
    share = [np.mean(draws[:, 0] == annotator) for annotator in "uvw"]
    np.testing.assert_allclose(share, 1 / 3, atol=0.06)
    assert (draws[:, 2] == "w").all()


def test_a_pair_without_votes_is_named():
    silent = PairRecords(np.array(["a", "quiet"]), np.array([0]), np.array([1]), np.array(["u"]))
    with pytest.raises(ValueError, match="'quiet' has no recorded vote"):
        Replay().annotate(silent, stream(0))
    with pytest.raises(ValueError, match="'quiet' has no recorded vote"):
        Replay().check_records(silent)


def test_shares_of_votes():
    np.testing.assert_allclose(RECORDS.first_share_N, [2 / 3, 1 / 2, 1])
    with_tie = PairRecords(
        np.array(["a", "b"]), np.array([0, 0]), np.array([Choice.TIE, Choice.FIRST]), np.array(["", ""])
    )
    np.testing.assert_allclose(with_tie.first_share_N, [0.75, np.nan])


def test_take_keeps_votes_with_their_pairs():
    taken = RECORDS.take(np.array([2, 0, 2]))
    assert taken.pair_id_N.tolist() == ["c", "a", "c"]
    assert taken.vote_pair_V.tolist() == [0, 1, 1, 1, 2]
    assert taken.vote_annotator_V.tolist() == ["w", "u", "v", "w", "w"]


def test_votes_must_stand_together():
    with pytest.raises(ValueError, match="ascending"):
        PairRecords(np.array(["a", "b"]), np.array([1, 0]), np.array([1, 1]), np.array(["", ""]))
