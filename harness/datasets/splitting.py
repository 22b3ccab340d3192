"""The split by prompt: pairs of the same prompt, and of prompts that belong together, are in the same split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike
from pydantic import Field, field_validator, model_validator

from balbench.harness.component import Component
from balbench.harness.datasets.feature_cache import spare_array
from balbench.harness.datasets.grouping import PromptGroups, group_prompts
from balbench.harness.datasets.text_pairs import TextPairs
from balbench.harness.datasets.votes import OodRule
from balbench.harness.errors import DataError
from balbench.harness.pool.blocks import array_blocks
from balbench.harness.pool.pairs import PreferencePool, Split
from balbench.harness.streams import Stream
from balbench.oracles.annotations import PairRecords

Array = np.ndarray


class SplitSettings(Component):
    """How pairs are split into `pool`, `eval`, `test` and, if `ood_field` is given, `ood`."""

    eval_share: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts whose pairs select models."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts whose pairs judge models."""
    group: str | None = None
    """Field of the rows with a group key: prompts with the same key are in the same split. By default turns of the same
    dialogue are found by their texts: a prompt that begins another prompt is in the same split."""
    ood_field: str | None = None
    """Field of the rows that says which prompts are out of distribution."""
    ood_pattern: str | None = None
    """Regular expression; prompts of rows whose ood_field contains a match form the split ood."""

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
        """Return which rows are out of distribution; None without a split `ood`."""
        if self.ood_field is None or self.ood_pattern is None:
            return None
        return OodRule(self.ood_field, re.compile(self.ood_pattern))

    def split_prompts(
        self, pairs: TextPairs, stream: Stream, source: str, groups: PromptGroups | None = None
    ) -> dict[str, Array]:
        """Return the rows of the prompts of each split, ascending.

        The split of a prompt depends on the set of prompts and the stream, not on the file's order. `eval` and `test`
        get their shares of the prompts that are not out of distribution, at least one prompt each; fewer if whole
        groups do not fit. A group with a prompt that is out of distribution belongs to `ood`; otherwise a group with a
        prompt of the file's own split `test` belongs to `test`, and no other prompts do if there is one.

        Args:
            pairs: the texts.
            stream: the randomness.
            source: the name of the data, for errors.
            groups: the groups of prompts; by default the result of `group_prompts`.

        Raises:
            DataError: there are too few prompts or groups, or no prompt is out of distribution.
        """
        if self.ood_field is not None and not pairs.ood_P.any():
            raise DataError(
                f"{source}: no row has {self.ood_pattern!r} in the field {self.ood_field!r};"
                " change dataset.ood_pattern or leave both out"
            )
        group_P = (groups or group_prompts(pairs)).group_P
        ood_P = np.isin(group_P, group_P[pairs.ood_P])
        test_P = np.isin(group_P, group_P[pairs.test_P]) & ~ood_P
        rest = np.flatnonzero(~ood_P & ~test_P)
        shares = {"test": self.test_share, "eval": self.eval_share}
        if test_P.any():
            del shares["test"]
        most = {name: max(1, round(share * len(rest))) for name, share in shares.items()}
        if sum(most.values()) >= len(rest):
            needed = ", ".join(f"{name} ({most[name]})" for name in sorted(most))
            raise DataError(
                f"{source}: {len(rest)} distinct prompts are too few for {needed} and a pool; give more prompts"
            )
        splits = _fill(_drawn_groups(pairs.prompt_P, group_P, rest, stream), most)
        if not all(splits.values()):
            raise DataError(
                f"{source}: {len(rest)} prompts are {len(np.unique(group_P[rest]))} groups of prompts that belong"
                " together, too few for eval, test and a pool; give more prompts, or a finer key with dataset.group"
            )
        rows = {name: np.sort(np.concatenate(groups)) for name, groups in splits.items()}
        rows = {name: rows.get(name, np.flatnonzero(test_P)) for name in ("pool", "eval", "test")}
        return rows | ({"ood": np.flatnonzero(ood_P)} if self.ood_field is not None else {})


def _drawn_groups(prompts: Sequence[str], group_P: Array, rows: Array, stream: Stream) -> list[Array]:
    """Return the rows of each group, in an order that depends on the texts and the stream only."""
    by_group = rows[np.argsort(group_P[rows], kind="stable")]
    groups = np.split(by_group, np.flatnonzero(np.diff(group_P[by_group])) + 1)
    draws = [stream.uniform(min(prompts[row] for row in group)) for group in groups]
    return [groups[number] for number in np.argsort(draws, kind="stable").tolist()]


def _fill(groups: list[Array], most: Mapping[str, int]) -> dict[str, list[Array]]:
    """Assign each group to the first split in which the group fits, or else to the pool.

    A split for which all groups are too large gets the smallest group.
    """
    splits: dict[str, list[Array]] = {name: [] for name in (*most, "pool")}
    left = dict(most)
    for group in groups:
        name = next((name for name in most if len(group) <= left[name]), "pool")
        splits[name].append(group)
        if name != "pool":
            left[name] -= len(group)
    for name in most:
        if not splits[name] and len(splits["pool"]) > 1:
            smallest = min(range(len(splits["pool"])), key=lambda number: len(splits["pool"][number]))
            splits[name].append(splits["pool"].pop(smallest))
    return splits


def build_split(
    pairs: TextPairs,
    response_features_RD: Array,
    prompt_features_PQ: Array,
    prompts: Array,
    response_tables: Mapping[str, Array] | None = None,
    storage: DTypeLike = np.float32,
) -> Split:
    """Return the pairs of some prompts, with their own response and prompt tables.

    Args:
        pairs: all texts.
        response_features_RD: features of all responses.
        prompt_features_PQ: features of all prompts.
        prompts: rows of the prompts of the split, ascending.
        response_tables: further tables of all responses, by their names in `PreferencePool`.
        storage: type of the split's response features, float32 or float16.
    """
    taken_P = np.isin(np.arange(len(pairs.prompt_P)), prompts)
    responses = np.flatnonzero(taken_P[pairs.prompt_of_response_R])
    rows = np.flatnonzero(taken_P[pairs.prompt_of_response_R[pairs.responses_of_pair_N2[:, 0]]])
    new_prompt_P = np.cumsum(taken_P) - 1
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
    """Copy rows to a new table in blocks, so that neither table must fit in memory."""
    taken_SD = spare_array((len(rows_S), features_RD.shape[1]), storage)
    with np.errstate(over="ignore"):  # an overflow gives infinity, which `PreferencePool.check` reports
        for start, block_bD in array_blocks(taken_SD):
            block_bD[:] = features_RD[rows_S[start : start + len(block_bD)]]
    return taken_SD


def all_records(pairs: TextPairs) -> PairRecords:
    """Return the votes on all pairs, with what was recorded about them and the lengths of responses in characters."""
    length_R = pairs.response_R.lengths()
    return PairRecords(
        pair_id_N=pairs.pair_id_N,
        vote_pair_V=pairs.vote_pair_V,
        vote_choice_V=pairs.vote_choice_V,
        vote_annotator_V=pairs.vote_annotator_V,
        response_length_N2=length_R[pairs.responses_of_pair_N2],
        vote_strength_V=pairs.vote_strength_V,
        vote_seconds_V=pairs.vote_seconds_V,
        vote_price_V=pairs.vote_price_V,
    )
