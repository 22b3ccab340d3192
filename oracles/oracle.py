"""The contract of every oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from balbench.oracles.annotations import Annotations, PairRecords


class Stream(Protocol):
    """A named source of randomness (see `balbench.harness.streams.Stream`)."""

    def uniform(self, *names: object) -> float:
        """Return a number in [0, 1) that is a pure function of the stream and the names."""
        ...


class Oracle(BaseModel, ABC):
    """A simulated annotator. Its fields are its settings in a study file.

    The answer to a query must be a pure function of (pair, annotator, repetition, seed): every
    policy gets the same answers, in any order of queries. Draw randomness only from `stream.uniform(pair_id, ...)`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    version: ClassVar[int] = 1
    """Raise the version when the same settings no longer give the same answers."""

    def check_records(self, pairs: PairRecords) -> None:
        """Check, before the first query, that the records of a pool are complete for this oracle.

        Raises:
            ValueError: a record is incomplete; the message names the pair, the missing part and the remedy.
        """

    @abstractmethod
    def annotate(self, pairs: PairRecords, stream: Stream) -> Annotations:
        """Answer one query for each pair of `pairs`.

        Args:
            pairs: records of the B pairs.
            stream: the oracle's stream for the cell's seed.

        Raises:
            ValueError: the records are incomplete for this oracle.
        """
