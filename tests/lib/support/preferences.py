"""Preferences from rows in memory."""

from collections.abc import Iterable
from typing import Any

from balbench.harness.datasets.containers import row_batches
from balbench.harness.datasets.reading import read_votes
from balbench.harness.datasets.text_pairs import TextPairs, gather
from balbench.harness.streams import Stream, stream


def pairs_of_rows(rows: Iterable[dict[str, Any]], order: Stream | None = None, **settings: Any) -> TextPairs:
    """Read rows as the data set `file` reads those of a file; `settings` are arguments of `read_votes`."""
    batches = row_batches(iter(enumerate(rows, start=1)), "rows", "line")
    return gather(read_votes(batches, "rows", **settings), order or stream(0, "order"))
