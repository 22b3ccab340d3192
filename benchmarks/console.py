"""Where the command line writes to, and the exit codes of one that is told to stop."""

from __future__ import annotations

from rich.console import Console

PIPE_WIDTH = 160
INTERRUPTED, TERMINATED = 130, 143  # by Ctrl-C, by SIGTERM


def wide_console() -> Console:
    """Standard output; where that has no width of its own (a log, a pipe) nothing is cut off."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def say(console: Console, line: str) -> None:
    """Print one line as it is, however long."""
    console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
