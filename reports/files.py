"""Files of a report: written completely or not at all, under names that any file system accepts."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pandas as pd

from balbench.harness.files import replacing

LONGEST_SLUG = 60  # characters of a label that enter a file name
DIGITS = 6  # significant digits of numbers in CSV files: more than any seed or test set supports


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file atomically: a reader sees the old content or the new, and a failed write leaves no trace.

    Raises:
        OSError: the folder cannot be created or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def csv_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as CSV: numbers with `DIGITS` significant digits, an empty field where a number is missing."""
    return significant(table).to_csv(index=False, lineterminator="\n").encode()


def significant(table: pd.DataFrame) -> pd.DataFrame:
    """Round all floats of a table to `DIGITS` significant digits."""
    return table.assign(**{str(name): table[name].map(_rounded) for name in table.select_dtypes("float")})


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def slug(text: str) -> str:
    """Turn a label into a part of a file name; different labels give different parts."""
    clean = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[:LONGEST_SLUG]
    if clean and clean == text:
        return clean
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{clean}-{digest}" if clean else digest
