"""Facts about a data set that are known before it is built."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from balbench.harness.pool.pairs import PreferenceData


@dataclass(frozen=True)
class Sizes:
    """The size of a data set, known without building it.

    Attributes:
        pairs: pairs of the pool, exactly: a study that needs more is refused before anything is built.
        responses, prompts: of the pool, approximately.
        held_out_responses: of all other splits, approximately.
        dimension: of the response features.
        most_pairs_a_prompt: the most pairs of one prompt of the pool, exactly; None if it is not known.
    """

    pairs: int
    responses: int
    prompts: int
    held_out_responses: int
    dimension: int
    most_pairs_a_prompt: int | None = None

    @property
    def response_bytes(self) -> int:
        """Bytes of the features of all responses."""
        return 4 * self.dimension * (self.responses + self.held_out_responses)

    @property
    def bytes(self) -> int:
        """Bytes of all features."""
        return self.response_bytes + 4 * self.dimension * self.prompts

    def __str__(self) -> str:
        return (
            f"about {self.pairs:,} pairs in the pool, {self.responses:,} responses, {self.prompts:,} prompts, "
            f"{self.dimension} features, {self.bytes / 2**30:.2f} GiB"
        )


@dataclass(frozen=True)
class Contents:
    """What a data set holds besides features and votes.

    Attributes:
        splits: names of its splits.
        response_tables: the optional tables of `PreferencePool` that it has for all responses.
        most_pairs_a_prompt: the most pairs of one prompt of the pool; None if it is not known yet.
    """

    splits: tuple[str, ...]
    response_tables: frozenset[str] = frozenset()
    most_pairs_a_prompt: int | None = None

    @classmethod
    def of(cls, data: PreferenceData) -> Contents:
        """Return the contents of a data set that is built."""
        pool = data.splits["pool"].pairs
        optional = {item.name for item in fields(pool) if item.default is None}
        tables = frozenset(name for name in optional if getattr(pool, name) is not None)
        most = int(np.bincount(pool.prompt_of_pair_N).max()) if len(pool) else 0
        return cls(tuple(data.splits), tables, most)
