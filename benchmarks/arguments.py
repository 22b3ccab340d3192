"""Values of options of the command line."""

from __future__ import annotations

from pathlib import Path

from balbench.harness.files import as_path


def given_path(text: str) -> Path:
    """Return the path of an `--out` option. An empty text would become the working directory.

    Raises:
        BalbenchError: the text is empty.
    """
    return as_path("out", text)
