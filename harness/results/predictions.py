"""Predictions of held-out pairs, for each round of a cell.

The file predictions.f16 beside rounds.jsonl has one row for each line of rounds.jsonl, in the same order, and nothing
else. A row has the logit of the predicted P(first preferred) of every pair of the held-out splits except `eval`, as
little-endian float16: the pairs of the first split in the order of the data set, then those of the next split. The
line says which splits, how many pairs, and the hash of the row:

    "predictions": {"pairs": {"ood": 10000, "test": 10000}, "sha256": "0f343b0931126a20"}

A row is on disk before its line, so a complete line implies a complete row. The study of the paper's figure (15 cells,
75 rounds, 20,000 pairs) needs 45 MB. The file may be deleted: reports then lack the parts that need single pairs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import disk_errors
from balbench.harness.results.records import PredictionsRow, RoundRecord

Array = np.ndarray
FILE = "predictions.f16"
LOGIT = np.dtype("<f2")
DIGITS = 16  # digits of a row's hash: they detect damage, not fraud


def predicted_splits(splits: Iterable[str]) -> list[str]:
    """Return the splits whose predictions are stored, in the order of a row: sorted, without `pool` and `eval`."""
    return sorted(set(splits) - {"pool", "eval"})


def row_bytes(logits: dict[str, Array] | None) -> bytes:
    """Return the bytes of a row."""
    return b"".join(logit_N.astype(LOGIT).tobytes() for logit_N in (logits or {}).values())


def described(record: RoundRecord, logits: dict[str, Array] | None, row: bytes) -> RoundRecord:
    """Return a round's record with the description of its row; unchanged if the round has no predictions."""
    if logits is None:
        return record
    pairs = {split: len(logit_N) for split, logit_N in logits.items()}
    return {**record, "predictions": {"pairs": pairs, "sha256": _digest(row)}}


def row_sizes(records: Sequence[RoundRecord]) -> list[int]:
    """Return the number of bytes of the row of each round."""
    return [_size(record.get("predictions")) for record in records]


def whole_rows(path: Path, records: Sequence[RoundRecord]) -> int:
    """Return how many rounds at the beginning of a log have an intact row in the file (or need none)."""
    ends = np.cumsum([0, *row_sizes(records)]).tolist()
    content = path.read_bytes() if path.exists() else b""
    for number, (start, end) in enumerate(pairwise(ends)):
        if not _is_intact(content[start:end], records[number].get("predictions")):
            return number
    return len(records)


def read_predictions(path: Path, rows: Sequence[PredictionsRow | None]) -> dict[str, Array] | None:
    """Read the logits of the first rounds of a cell.

    Args:
        path: the file.
        rows: descriptions of the rows, one for each round.

    Returns:
        Float16 logits (T, N) of each split; None if a round has no predictions, or the file was deleted.

    Raises:
        RunDirectoryError: a row is damaged, or the file cannot be read.
    """
    known = [row for row in rows if row is not None]
    if not known or len(known) < len(rows) or not path.exists():
        return None
    pairs, size = known[0]["pairs"], _size(known[0])
    remedy = f"delete the file (all other results stay), or delete {path.parent} and run the study again"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from None
    for number, row in enumerate(known):
        if row["pairs"] != pairs or not _is_intact(content[number * size : (number + 1) * size], row):
            raise RunDirectoryError(f"{path}: the row of round {number} is damaged; {remedy}")
    logit_TN = np.frombuffer(content, LOGIT, len(known) * size // LOGIT.itemsize).reshape(len(known), -1)
    parts = np.split(logit_TN, np.cumsum(list(pairs.values()))[:-1], axis=1)
    return dict(zip(pairs, parts, strict=True))


def cut(path: Path, size: int) -> None:
    """Cut a file to a number of bytes; a missing file counts as empty.

    Raises:
        RunDirectoryError: the file cannot be written.
    """
    if path.exists() and path.stat().st_size > size:
        with disk_errors(path):
            os.truncate(path, size)


def _size(row: PredictionsRow | None) -> int:
    return LOGIT.itemsize * sum(row["pairs"].values()) if row else 0


def _is_intact(content: bytes, row: PredictionsRow | None) -> bool:
    return row is None or _digest(content) == row["sha256"]


def _digest(row: bytes) -> str:
    return hashlib.sha256(row).hexdigest()[:DIGITS]
