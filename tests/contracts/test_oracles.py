"""What every oracle must keep: an answer is a pure function of (pair, annotator, repetition, seed)."""

import numpy as np
import pytest

from balbench.harness import registry
from balbench.harness.streams import stream
from balbench.oracles.annotations import Choice, PairRecords

ORACLES = [
    pytest.param(name, settings, id=f"{name}-{'-'.join(settings.values()) or 'default'}")
    for name in registry.names("oracles")
    for settings in ([{"votes": votes} for votes in ("first", "sample", "majority")] if name == "replay" else [{}])
]


def records_of(pairs: int = 30, seed: int = 0) -> PairRecords:
    rng = np.random.default_rng(seed)
    votes = rng.integers(1, 6, size=pairs)
    pair_V = np.repeat(np.arange(pairs), votes)
    return PairRecords(
        pair_id_N=np.array([f"pair-{number}" for number in range(pairs)]),
        vote_pair_V=pair_V,
        vote_choice_V=rng.integers(0, 2, size=len(pair_V)).astype(np.int8),
        vote_annotator_V=np.array([f"person-{number}" for number in rng.integers(0, 9, size=len(pair_V))]),
        probability_N=rng.random(pairs),
        response_length_N2=rng.integers(1, 99, size=(pairs, 2)),
    )


@pytest.mark.parametrize(("name", "settings"), ORACLES)
class TestOracleContract:
    def ask(self, name, settings, records, seed=0):
        return registry.load("oracles", name)(**settings).annotate(records, stream(seed, "oracle"))

    def test_one_answer_a_query(self, name, settings):
        answers = self.ask(name, settings, records_of())
        assert len(answers.choice_B) == len(answers.annotator_B) == len(answers.cost_B) == len(answers.seconds_B) == 30
        assert np.isin(answers.choice_B, list(Choice)).all()

    def test_the_order_and_company_of_queries_do_not_matter(self, name, settings):
        records, order = records_of(), np.random.default_rng(1).permutation(30)[:17]
        together = self.ask(name, settings, records)
        apart = self.ask(name, settings, records.take(order))
        np.testing.assert_array_equal(together.choice_B[order], apart.choice_B)
        np.testing.assert_array_equal(together.annotator_B[order], apart.annotator_B)

    def test_asking_again_hears_the_same(self, name, settings):
        first, second = (self.ask(name, settings, records_of(), seed=4) for _ in range(2))
        np.testing.assert_array_equal(first.choice_B, second.choice_B)

    def test_no_queries_no_answers(self, name, settings):
        assert len(self.ask(name, settings, records_of().take(np.array([], dtype=int))).choice_B) == 0
