"""Policies that rank by language model scores, against their definitions; data without scores are refused."""

import pytest

from balbench.harness.policies.perplexity import LlmPerplexityHigh, LlmPerplexityLow
from balbench.harness.policies.random import Random
from balbench.harness.pool.contents import Contents
from balbench.harness.streams import stream
from balbench.testing.examples import pool_of, view_of
from support.faults import one_line


@pytest.mark.parametrize(("policy", "sign"), [(LlmPerplexityHigh, 1), (LlmPerplexityLow, -1)])
@pytest.mark.parametrize("score", ["log_perplexity", "token_entropy"])
def test_pairs_are_ranked_by_both_responses(policy, sign, score):
    view = view_of(pool_of())
    table = getattr(view.pool, f"response_{score}_R").tolist()
    share = 2 if score == "log_perplexity" else 1
    scores = {}
    for pair in view.unlabelled_U.tolist():
        first, second = view.pool.responses_of_pair_N2[pair]
        scores[pair] = sign * (table[first] + table[second]) / share
    selection = policy(score=score).select(view, 6, stream(0))
    assert selection.pairs_B.tolist() == sorted(scores, key=lambda pair: (-scores[pair], pair))[:6]
    assert selection.scores_B.tolist() == [scores[pair] for pair in selection.pairs_B.tolist()]


def test_a_pool_without_them_is_refused():
    contents = Contents(("pool", "eval"), frozenset({"response_log_perplexity_R"}))
    LlmPerplexityHigh().check_data(contents)
    Random().check_data(contents)
    policy = LlmPerplexityHigh(score="token_entropy")
    one_line(lambda: policy.check_data(contents), "no token entropy of its responses", "set dataset.perplexity")
