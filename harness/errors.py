"""Errors that a user can correct. The command line prints them as one line and exits with code 2."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

QUOTE_CHARACTERS, MESSAGE_CHARACTERS = 60, 1_000  # largest length of quoted input, and of a whole message

# Errors that the code of a cell (for example of a plug-in) can raise. Workers ignore the signal of Ctrl-C.
CELL_ERRORS = (Exception, SystemExit, KeyboardInterrupt)


def shortened(text: str, longest: int = QUOTE_CHARACTERS) -> str:
    """Return a text cut to `longest` characters, because a message quotes only the start of long input."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def fitted(message: str) -> str:
    """Return a message, cut in its middle if it is too long: it begins with the place and ends with the remedy."""
    half = MESSAGE_CHARACTERS // 2
    return message if len(message) <= MESSAGE_CHARACTERS else f"{message[:half]}...{message[-half:]}"


class BalbenchError(Exception):
    """The input, a setting or the machine is wrong; the message names the place and the remedy.

    Attributes:
        setting: name of the invalid argument, with which the message begins; None if the error is not in an argument.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(fitted(message))
        self.setting = setting


class StudyError(BalbenchError):
    """A study file or an argument is wrong."""


class DataError(BalbenchError):
    """A data file, a text or a feature array is wrong."""


class RunDirectoryError(BalbenchError):
    """A run directory is in use, belongs to another study, or cannot be written."""


class ClusterError(BalbenchError):
    """The connection to a cluster is lost, or its workers cannot run the tasks."""


@contextmanager
def in_one_line(code: str) -> Iterator[None]:
    """Turn any error of a plug-in's code into one line with the file and line number.

    Args:
        code: name of the code that runs, for the message.

    Raises:
        DataError: replaces every error that is not a BalbenchError.
    """
    try:
        yield
    except BalbenchError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        summary = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{code}: {summary} ({Path(last.filename).name}, line {last.lineno}); fix it") from error


def answer_of(method: Callable[..., T], kind: type[T], *arguments: Any) -> T:
    """Call a method that can belong to a plug-in, and check the type of its result.

    Raises:
        DataError: the method raises an error, or returns another type.
    """
    with in_one_line(method.__qualname__):
        answer = method(*arguments)
    if not isinstance(answer, kind):
        raise DataError(f"{method.__qualname__}: returned {type(answer).__name__}; return {kind.__name__}")
    return answer
