"""Scores of the responses under a language model; rewards and labels are not used."""

from __future__ import annotations

from typing import ClassVar, Literal

from balbench.harness.errors import DataError
from balbench.harness.policies.policy import Array, Policy, PoolView, Selection, take_highest
from balbench.harness.pool.contents import Contents
from balbench.harness.pool.pairs import PreferencePool
from balbench.harness.streams import Stream

Score = Literal["log_perplexity", "token_entropy"]


class _Perplexity(Policy):
    """Top B by scores of the two responses under a language model."""

    family: ClassVar[str] = "perplexity"
    source: ClassVar[str] = "Melo et al. 2024 (2406.10023) further baselines"
    needs_rewards: ClassVar[bool] = False
    sign: ClassVar[int] = 1

    score: Score = "log_perplexity"
    """The score of a pair. `log_perplexity` is the mean log-perplexity (nats per token) of its two responses given the
    prompt. `token_entropy` is what the authors' code ranks by: the entropy of the model's next-token distribution,
    summed over all tokens of the prompt and both responses, so that long texts come first."""

    def check_data(self, contents: Contents) -> None:
        """Check that the data set has the score (errors as in `Policy.check_data`)."""
        if f"response_{self.score}_R" not in contents.response_tables:
            raise DataError(
                f"the data set has no {self.score.replace('_', ' ')} of its responses;"
                " if it has texts, set dataset.perplexity to a causal language model"
            )

    def select(self, view: PoolView, batch_size: int, stream: Stream) -> Selection:
        """Select the pairs with the largest or smallest scores (deterministic: `stream` is not used)."""
        return take_highest(view, self.sign * pair_scores(view.pool, view.unlabelled_U, self.score), batch_size)


class LlmPerplexityHigh(_Perplexity):
    """Top B by the perplexity of the two responses: the least likely texts under a language model."""


class LlmPerplexityLow(_Perplexity):
    """Top B by minus the perplexity of the two responses: the most likely texts under a language model."""

    sign: ClassVar[int] = -1


def pair_scores(pool: PreferencePool, pairs: Array, score: Score) -> Array:
    """Return the scores of pairs, float64 (U,): mean (or for `token_entropy` sum) of their responses' scores."""
    table_R = getattr(pool, f"response_{score}_R")
    score_U2 = table_R[pool.responses_of_pair_N2[pairs]].astype("float64")
    return score_U2.mean(axis=1) if score == "log_perplexity" else score_U2.sum(axis=1)
