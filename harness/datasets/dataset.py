"""The contract of every dataset."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from pydantic import Field

from balbench.harness.component import Component
from balbench.harness.pool.contents import Contents, Sizes
from balbench.harness.pool.pairs import PreferenceData

Progress = Callable[[str, int, int], None]  # (what is being done, how many are done, of how many)


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
