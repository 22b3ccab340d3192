"""Errors that a user can mend. The command line prints them as one line and exits with code 2."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# What the code of a cell, a plug-in's for example, may raise. A worker process is not told of Ctrl-C.
CELL_ERRORS = (Exception, SystemExit, KeyboardInterrupt)


class BalbenchError(Exception):
    """Something in the input, the settings or the machine is wrong; the message names the place and the remedy."""


class StudyError(BalbenchError):
    """A study file or a flag is wrong."""


class DataError(BalbenchError):
    """A data file, a text or a feature array is wrong."""


class RunDirectoryError(BalbenchError):
    """A run directory is in use, belongs to another study, or cannot be written."""


class ClusterError(BalbenchError):
    """A cluster is gone, or its workers cannot do what they were asked."""


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Tell any error of somebody's code, a plug-in's for example, in one line that names the place.

    Args:
        what: whose code runs, for the message.

    Raises:
        DataError: in place of all but a BalbenchError.
    """
    try:
        yield
    except BalbenchError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{what}: {told} ({Path(last.filename).name}, line {last.lineno}); mend it") from error


def answer_of(method: Callable[..., T], kind: type[T], *arguments: Any) -> T:
    """Call a method that a plug-in may have written, and check what it returns.

    Raises:
        DataError: it fails, or returns something else.
    """
    with in_one_line(method.__qualname__):
        found = method(*arguments)
    if not isinstance(found, kind):
        raise DataError(f"{method.__qualname__}: returned {type(found).__name__}; return {kind.__name__}")
    return found
