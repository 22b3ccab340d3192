"""The split by prompt: all pairs of a prompt stand in the same split."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike
from pydantic import Field, field_validator, model_validator

from balbench.harness.component import Component
from balbench.harness.datasets.feature_cache import spare_array
from balbench.harness.datasets.reading import OodRule
from balbench.harness.datasets.text_pairs import TextPairs
from balbench.harness.errors import DataError
from balbench.harness.pool.array_checks import array_blocks
from balbench.harness.pool.pairs import PreferencePool, Split
from balbench.harness.streams import Stream
from balbench.oracles.annotations import PairRecords

Array = np.ndarray


class SplitSettings(Component):
    """How pairs are split into `pool`, `eval`, `test` and, where asked for, `ood`."""

    eval_share: float = Field(0.1, gt=0, lt=1, description="share of the prompts whose pairs select models")
    test_share: float = Field(0.2, gt=0, lt=1, description="share of the prompts whose pairs judge")
    ood_field: str | None = Field(None, description="field of the rows that says which prompts are out of distribution")
    ood_pattern: str | None = Field(
        None,
        description="regular expression to find in ood_field; prompts where it is found form the split ood",
    )

    @field_validator("ood_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _fit(self) -> SplitSettings:
        if self.eval_share + self.test_share >= 1:
            raise ValueError("eval_share and test_share leave the pool no prompts; lower them below 1 together")
        if (self.ood_field is None) != (self.ood_pattern is None):
            raise ValueError("ood_field and ood_pattern go together; give both or none")
        return self

    def ood_rule(self) -> OodRule | None:
        """Return which rows are out of distribution, if any are asked for."""
        if self.ood_field is None or self.ood_pattern is None:
            return None
        return OodRule(self.ood_field, re.compile(self.ood_pattern))

    def split_prompts(self, pairs: TextPairs, stream: Stream, source: str) -> dict[str, Array]:
        """Return the rows of the prompts of each split, ascending.

        Which split a prompt falls into depends on the set of prompts and the stream, not on the file's order.
        `eval` and `test` get their shares of the prompts that are not out of distribution, at least one each.

        Args:
            pairs: the texts.
            stream: what decides.
            source: the name of the data, for errors.

        Raises:
            DataError: there are too few prompts, or none is out of distribution.
        """
        if self.ood_field is not None and not pairs.ood_P.any():
            raise DataError(
                f"{source}: no row has {self.ood_pattern!r} in the field {self.ood_field!r};"
                " change dataset.ood_pattern or leave both out"
            )
        rest = np.flatnonzero(~pairs.ood_P)
        evals, tests = (max(1, round(share * len(rest))) for share in (self.eval_share, self.test_share))
        if evals + tests >= len(rest):
            raise DataError(
                f"{source}: {len(rest)} distinct prompts are too few for eval ({evals}), test ({tests})"
                " and a pool; give more prompts"
            )
        draws = [(stream.uniform(pairs.prompt_P[prompt]), pairs.prompt_P[prompt]) for prompt in rest]
        shuffled = rest[sorted(range(len(rest)), key=draws.__getitem__)]
        found = {
            "pool": shuffled[evals + tests :],
            "eval": shuffled[tests : evals + tests],
            "test": shuffled[:tests],
        }
        if self.ood_field is not None:
            found["ood"] = np.flatnonzero(pairs.ood_P)
        return {name: np.sort(rows) for name, rows in found.items()}


def build_split(
    pairs: TextPairs,
    response_features_RD: Array,
    prompt_features_PQ: Array,
    prompts: Array,
    response_tables: Mapping[str, Array] | None = None,
    storage: DTypeLike = np.float32,
) -> Split:
    """Return the pairs of some prompts, with response and prompt tables of their own.

    Args:
        pairs: all texts.
        response_features_RD: features of all responses.
        prompt_features_PQ: features of all prompts.
        prompts: the rows of the prompts to take, ascending.
        response_tables: what else is known of all responses, by its name in `PreferencePool`.
        storage: type of the split's response features, float32 or float16.
    """
    wanted_P = np.isin(np.arange(len(pairs.prompt_P)), prompts)
    responses = np.flatnonzero(wanted_P[pairs.prompt_of_response_R])
    rows = np.flatnonzero(wanted_P[pairs.prompt_of_response_R[pairs.responses_of_pair_N2[:, 0]]])
    new_prompt_P = np.cumsum(wanted_P) - 1
    new_response_R = np.full(len(pairs.response_R), -1)
    new_response_R[responses] = np.arange(len(responses))
    pool = PreferencePool(
        response_features_RD=_taken(response_features_RD, responses, storage),
        prompt_features_PQ=prompt_features_PQ[prompts],
        prompt_of_response_R=new_prompt_P[pairs.prompt_of_response_R[responses]],
        responses_of_pair_N2=new_response_R[pairs.responses_of_pair_N2[rows]],
        pair_id_N=pairs.pair_id_N[rows],
        **{name: table_R[responses] for name, table_R in (response_tables or {}).items()},
    )
    return Split(pool, all_records(pairs).take(rows))


def _taken(features_RD: Array, rows_S: Array, storage: DTypeLike) -> Array:
    """Rows of a table in a table of their own, copied in blocks: neither need fit in memory."""
    taken_SD = spare_array((len(rows_S), features_RD.shape[1]), storage)
    with np.errstate(over="ignore"):  # infinity, which `PreferencePool.check` will name
        for start, block_bD in array_blocks(taken_SD):
            block_bD[:] = features_RD[rows_S[start : start + len(block_bD)]]
    return taken_SD


def all_records(pairs: TextPairs) -> PairRecords:
    """Return the votes on all pairs, with the characters of the two responses."""
    length_R = np.array([len(text) for text in pairs.response_R], dtype=np.int64)
    return PairRecords(
        pair_id_N=pairs.pair_id_N,
        vote_pair_V=pairs.vote_pair_V,
        vote_choice_V=pairs.vote_choice_V,
        vote_annotator_V=pairs.vote_annotator_V,
        response_length_N2=length_R[pairs.responses_of_pair_N2],
    )
