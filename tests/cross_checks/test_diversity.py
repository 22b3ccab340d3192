"""k-center and BADGE against scikit-activeml."""

import numpy as np
import pytest

from balbench.harness.policies.coverage import KCenter
from balbench.harness.policies.gradient import Badge, GradientNorm
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of

WHY = "cross-checks need `pip install .[cross-checks]`"


@pytest.fixture
def skactiveml():
    pytest.importorskip("skactiveml", reason=WHY)
    import skactiveml.base
    import skactiveml.pool

    return skactiveml


@pytest.fixture
def view():
    return view_of(pool_of(prompts=60, responses=2))


def answers_of(view):
    """The answers to acquired pairs, NaN for the others."""
    answers_N = np.full(len(view.pool), np.nan)
    answers_N[view.acquired_n] = view.label_n
    return answers_N


def test_k_center_of_prompts(skactiveml, view):
    points_NQ = view.pool.prompt_features_PQ[view.pool.prompt_of_pair_N]
    picks, distance_BN = skactiveml.pool.CoreSet(random_state=0).query(
        points_NQ, answers_of(view), batch_size=20, return_utilities=True
    )
    ours = KCenter(space="prompt").select(view, 20, stream(0))
    np.testing.assert_array_equal(ours.pairs_B, picks)
    np.testing.assert_allclose(ours.scores_B, np.nanmax(distance_BN, axis=1), rtol=1e-5)


def test_k_center_of_pairs(skactiveml, view):
    # The sign of a difference says only which response stands first: the nearer of the two counts.
    rows_NH = view.differences(np.arange(len(view.pool))).double().numpy()
    query = skactiveml.pool.CoreSet(
        random_state=0, metric=lambda a, b: min(np.linalg.norm(a - b), np.linalg.norm(a + b))
    )
    picks, distance_BN = query.query(rows_NH, answers_of(view), batch_size=20, return_utilities=True)
    ours = KCenter(space="pair").select(view, 20, stream(0))
    np.testing.assert_array_equal(ours.pairs_B, picks)
    np.testing.assert_allclose(ours.scores_B, np.nanmax(distance_BN, axis=1), rtol=1e-5)


def test_badge_weighs_by_the_same_squared_distances(skactiveml, view):
    class Known(skactiveml.base.SkactivemlClassifier):
        """Gives the mean probabilities and the rows that it is asked about."""

        def fit(self, X, y, sample_weight=None):
            return self

        def predict_proba(self, X):
            pairs = X[:, 0].astype(int)
            mean_n = view.probability_Kn(pairs).mean(dim=0).numpy()
            return np.stack([mean_n, 1 - mean_n], axis=1), view.differences(pairs).double().numpy()

    numbers_N1 = np.arange(len(view.pool), dtype=np.float64)[:, None]
    picks, probability_BN = skactiveml.pool.Badge(random_state=0).query(
        numbers_N1, answers_of(view), Known(classes=[0, 1]), fit_clf=False, batch_size=2, return_utilities=True
    )
    lengths = GradientNorm().select(view, len(view.unlabelled_U), stream(0))
    length_of = dict(zip(lengths.pairs_B, lengths.scores_B, strict=True))
    ratio_of = {}
    for seed in range(300):
        ours = Badge().select(view, 2, stream(seed))
        assert ours.pairs_B[0] == picks[0]
        second = ours.pairs_B[1]
        # Theirs counts the origin as a centre too, which neither the paper nor its code does.
        weight = min(ours.scores_B[1], length_of[second] ** 2)
        ratio_of[second] = weight / probability_BN[1, second]
    assert len(ratio_of) > 30
    np.testing.assert_allclose(list(ratio_of.values()), ratio_of[second], rtol=1e-4)
