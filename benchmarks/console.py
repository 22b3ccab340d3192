"""The consoles that the command line prints to."""

from __future__ import annotations

import io
import sys
from typing import Any, NoReturn

from rich.console import Console

PIPE_WIDTH = 160


class ClosedPipeError(Exception):
    """The program that reads the output closed its end, as `head` does.

    The class is no OSError, because typer turns OSErrors into exit code 1.
    """


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise ClosedPipeError


def replace_unencodable() -> None:
    """Print characters that the encoding of a stream lacks as escapes; rich then draws boxes in ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def standard_output() -> Console:
    """Return the console of standard output; its width is `PIPE_WIDTH` where the output is no terminal."""
    console = _Console()
    return console if console.is_terminal else _Console(width=PIPE_WIDTH)


def standard_error() -> Console:
    """Return the console of standard error."""
    return _Console(stderr=True)


def say(console: Console, line: str, **options: Any) -> None:
    """Print one line without wrapping, markup or highlighting."""
    console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True, **options)
