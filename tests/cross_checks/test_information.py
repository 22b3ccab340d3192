"""BALD, BatchBALD and EPIG against scikit-activeml and baal."""

import numpy as np
import pytest
import torch

from balbench.harness.policies.batch_bald import BatchBald
from balbench.harness.policies.epig import Epig
from balbench.harness.policies.uncertainty import Bald
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of

WHY = "cross-checks need `pip install .[cross-checks]`"


@pytest.fixture
def view():
    return view_of(pool_of(prompts=20), members=4)


def answers(view, pairs=None):
    """P(each answer) under each posterior sample, as the libraries want it: (K, n, 2)."""
    p_Kn = view.probability_Kn(view.unlabelled_U if pairs is None else pairs).numpy()
    return np.stack([p_Kn, 1 - p_Kn], axis=2)


def by_pair(view, selection):
    """Scores of all unlabelled pairs, in their order."""
    return selection.scores_B[np.argsort(selection.pairs_B)]


def test_bald_against_scikit_activeml(view):
    bald = pytest.importorskip("skactiveml.pool", reason=WHY).batch_bald
    ours_U = by_pair(view, Bald().select(view, len(view.unlabelled_U), stream(0)))
    np.testing.assert_allclose(ours_U, bald(answers(view), 1, eps=1e-12)[0], atol=1e-9)


def test_bald_against_baal(view):
    bald = pytest.importorskip("baal.active.heuristics", reason=WHY).BALD()
    ours_U = by_pair(view, Bald().select(view, len(view.unlabelled_U), stream(0)))
    np.testing.assert_allclose(ours_U, bald.get_uncertainties(answers(view).transpose(1, 2, 0)), atol=1e-12)


def test_exact_batch_bald_against_scikit_activeml(view):
    batch_bald, B = pytest.importorskip("skactiveml.pool", reason=WHY).batch_bald, 6
    information_BU = batch_bald(answers(view), B, n_MC_samples=2**B, eps=1e-12)
    ours = BatchBald().select(view, B, stream(0))
    np.testing.assert_array_equal(ours.pairs_B, view.unlabelled_U[np.nanargmax(information_BU, axis=1)])
    np.testing.assert_allclose(ours.scores_B.cumsum(), np.nanmax(information_BU, axis=1), atol=1e-8)


def test_drawn_batch_bald_against_scikit_activeml():
    batch_bald, B = pytest.importorskip("skactiveml.pool", reason=WHY).batch_bald, 6
    view = view_of(pool_of(prompts=20), members=4)
    # Both estimate the same numbers: theirs from 4000 configurations from the 5th pick on, ours from the 2nd on.
    information_BU = batch_bald(answers(view), B, n_MC_samples=4000, eps=1e-12, random_state=0)
    for estimator in ("paired", "published"):
        policy = BatchBald(exact_up_to=0, samples=4000, estimator=estimator)
        ours = policy.select(view, B, stream(0))
        places = np.searchsorted(view.unlabelled_U, ours.pairs_B)
        np.testing.assert_array_equal(places[:2], np.nanargmax(information_BU, axis=1)[:2])
        np.testing.assert_allclose(ours.scores_B.cumsum(), np.nanmax(information_BU, axis=1), atol=0.02)


def test_batch_bald_against_baal(view):
    """baal's scores are those of the picks: H(y_1 .. y_b) - H(y_b | k), estimated from the second pick on."""
    heuristics, B = pytest.importorskip("baal.active.heuristics", reason=WHY), 4
    torch.manual_seed(0)
    p_UCK = answers(view).transpose(1, 2, 0)
    theirs_U = heuristics.BatchBALD(num_samples=B - 1, num_draw=5000).get_uncertainties(p_UCK)
    ours = BatchBald().select(view, B, stream(0))
    places = np.searchsorted(view.unlabelled_U, ours.pairs_B)
    assert set(np.flatnonzero(theirs_U)) == set(places)
    given_U = -(p_UCK * np.log(p_UCK)).sum(axis=1).mean(axis=1)
    before_B = np.concatenate([[0], given_U[places].cumsum()[:-1]])
    np.testing.assert_allclose(theirs_U[places], ours.scores_B.cumsum() + before_B, atol=0.03)


@pytest.mark.parametrize("members", [1, 4])
def test_epig_against_baal(members):
    heuristics = pytest.importorskip("baal.active.heuristics", reason=WHY)
    view = view_of(pool_of(prompts=20), members=members)
    everything = np.arange(len(view.pool))
    theirs_U = heuristics.EPIG().compute_score(
        answers(view).transpose(1, 2, 0), target_predictions=answers(view, everything).transpose(1, 2, 0)
    )
    ours_U = by_pair(view, Epig(target="pool").select(view, len(view.unlabelled_U), stream(0)))
    np.testing.assert_allclose(ours_U, theirs_U, atol=2e-6)  # theirs are float32
