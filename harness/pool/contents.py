"""Facts about a data set that are known before it is built."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from balbench.harness.pool.pairs import PreferenceData


@dataclass(frozen=True)
class Sizes:
    """The size of a data set, known without building it.

    Attributes:
        pairs: exact number of pairs of the pool; a study that needs more is refused before the data are built.
        responses, prompts: approximate numbers of responses and prompts of the pool.
        held_out_responses: approximate number of responses of all other splits.
        dimension: number of response features.
        most_pairs_a_prompt: exact largest number of pairs of a prompt of the pool; None if unknown.
        eval_pairs: exact number of pairs of the split eval; None if unknown.
    """

    pairs: int
    responses: int
    prompts: int
    held_out_responses: int
    dimension: int
    most_pairs_a_prompt: int | None = None
    eval_pairs: int | None = None

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
    """The splits and optional tables of a data set.

    Attributes:
        splits: names of its splits.
        response_tables: the optional tables of `PreferencePool` that the data set has.
        most_pairs_a_prompt: largest number of pairs of a prompt of the pool; None if not known yet.
    """

    splits: tuple[str, ...]
    response_tables: frozenset[str] = frozenset()
    most_pairs_a_prompt: int | None = None

    @classmethod
    def of(cls, data: PreferenceData) -> Contents:
        """Return the contents of a built data set."""
        pool = data.splits["pool"].pairs
        optional = {item.name for item in fields(pool) if item.default is None}
        tables = frozenset(name for name in optional if getattr(pool, name) is not None)
        most = int(np.bincount(pool.prompt_of_pair_N).max()) if len(pool) else 0
        return cls(tuple(data.splits), tables, most)
