"""The contract of every dataset."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields

from pydantic import Field

from harness.component import Component
from harness.pairs import PreferenceData

Progress = Callable[[str, int, int], None]  # (what is being done, how many are done, of how many)


@dataclass(frozen=True)
class Sizes:
    """How large a data set is, known without building it.

    Attributes:
        pairs: of the pool, exactly: a study that needs more is refused before anything is built.
        responses, prompts: of the pool, about.
        held_out_responses: of all other splits, about.
        dimension: of the response features.
    """

    pairs: int
    responses: int
    prompts: int
    held_out_responses: int
    dimension: int

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
    """What a data set holds beside features and votes.

    Attributes:
        splits: names of its splits.
        response_tables: the optional tables of `PreferencePool` that it has for all responses.
    """

    splits: tuple[str, ...]
    response_tables: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: PreferenceData) -> Contents:
        """The contents of a data set that is built."""
        pool = data.splits["pool"].pairs
        optional = {item.name for item in fields(pool) if item.default is None}
        return cls(tuple(data.splits), frozenset(name for name in optional if getattr(pool, name) is not None))


class Dataset(Component):
    """A source of pairs. Its fields are its settings in a study file.

    Attributes:
        data_seed: the seed of everything about the data (the world, the split); the same for all cells of a
            study. The seeds of a study are something else: they vary initial sets, answers, members and policies.
    """

    data_seed: int = Field(0, ge=0)

    @abstractmethod
    def build(self, progress: Progress) -> PreferenceData:
        """Make or read the data. `progress` is called now and then while it takes long.

        Raises:
            DataError: the source is missing or wrong, with its place and the remedy.
        """

    def source_key(self) -> str:
        """Return a hash of what the data depend on besides the settings (files); empty where there is nothing."""
        return ""

    def contents(self) -> Contents | None:
        """Return what the data will hold as their settings say, so that a study that needs more is refused at once.

        None (as here): it is known only when they are built.
        """
        return None

    @abstractmethod
    def sizes(self) -> Sizes:
        """Return how large the data are, without building them (files may be read, nothing is encoded).

        Raises:
            DataError: the source is missing or wrong.
        """
