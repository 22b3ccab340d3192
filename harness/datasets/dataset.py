"""The contract of every data set."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from pydantic import Field

from balbench.harness.component import Component
from balbench.harness.pool.contents import Contents, Sizes
from balbench.harness.pool.pairs import PreferenceData

Progress = Callable[[str, int, int], None]  # (name of the work, number done, total number)


class Source(NamedTuple):
    """A file, or the files of a model, that data depend on.

    Attributes:
        setting: the setting that names the source.
        location: path or name of the source, for messages; it does not enter any key.
        digest: a hash of the contents.
    """

    setting: str
    location: str
    digest: str


class Dataset(Component):
    """A source of pairs. Its fields are its settings in a study file."""

    data_seed: int = Field(0, ge=0)
    """Seed of the data (the world, the split), the same for all cells of a study. The `seeds` of a study vary initial
    sets, answers, members and policies instead."""

    @abstractmethod
    def build(self, progress: Progress) -> PreferenceData:
        """Generate or read the data. `progress` is called during long work.

        Raises:
            DataError: the source is missing or invalid; the message names the source and the remedy.
        """

    def sources(self) -> tuple[Source, ...]:
        """Return the files that the data depend on besides the settings; none by default.

        Raises:
            DataError: a file is missing or cannot be read.
        """
        return ()

    def source_key(self) -> str:
        """Return a hash of the contents of all `sources`, empty if there are none."""
        digests = ":".join(source.digest for source in self.sources())
        return hashlib.sha256(digests.encode()).hexdigest() if digests else ""

    def contents(self) -> Contents | None:
        """Return what the data will hold according to the settings, so that a study that needs more is refused early.

        The default is None: the contents are known only after the data are built.
        """
        return None

    @abstractmethod
    def sizes(self) -> Sizes:
        """Return the sizes of the data without building them (files may be read, nothing is encoded).

        Raises:
            DataError: the source is missing or wrong.
        """

    def examine(self) -> tuple[Sizes, list[str]]:
        """Return the sizes and further lines for `balbench check`: how rows became pairs, warnings, time to build.

        Examining may take some seconds. By default there are no lines.

        Raises:
            DataError: the source is missing or wrong.
        """
        return self.sizes(), []
