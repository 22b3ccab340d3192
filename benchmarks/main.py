"""The program `balbench`: signals, streams, error messages and exit codes. Commands are imported later, in `cli`."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import Any, NoReturn

from balbench.benchmarks.exit_codes import CLOSED_PIPE, INTERRUPTED, INVALID_INPUT, TERMINATED

# Settings of `run_study` that error messages name; each has the flag of the same name, but for these.
SETTINGS = {
    *("out", "seeds", "override", "jobs", "device", "fleet", "fleets_per_device"),
    *("cluster", "features", "grace", "reuse", "remove", "older_than"),
}
FLAGS = {"override": "--set"}
# Typer's words for an invalid value, and the words of all other messages.
TYPER_WORDS = (
    (r"^Invalid value for '([^']+)'", r"\1"),
    (r"Value error, ", ""),
    (r"Input should be a valid", "must be a valid"),
    (r", unable to parse string as an? \w+", ""),
)


def main() -> NoReturn:
    """Run the command line and exit.

    Exit codes: 0; 1 if cells failed; 2 for invalid input; 130 after Ctrl-C; 141 if the reader of the output closed it;
    143 after SIGTERM (`run` first waits for running rounds as long as `--grace` says; a second signal stops at once).
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _run() -> int:
    """Run the command that the arguments name, and return its exit code."""
    from typer import BadParameter

    from balbench.benchmarks.cli import app
    from balbench.benchmarks.console import ClosedPipeError, replace_unencodable
    from balbench.harness.errors import BalbenchError

    usage_error: Any = BadParameter.__base__  # typer has no public name for it
    replace_unencodable()
    try:
        code = app(prog_name="balbench", standalone_mode=False) or 0
        sys.stdout.flush()
    except BalbenchError as error:
        return _refuse(with_flags(error))
    except usage_error as error:
        return _refuse(_usage(error))
    except MemoryError as error:
        details = f" ({str(error).splitlines()[0]})" if str(error) else ""
        return _refuse(f"out of memory{details}; make the study smaller")
    except (BrokenPipeError, ClosedPipeError):
        _discard_output()
        return CLOSED_PIPE
    except OSError as error:
        _discard_output()
        return _refuse(f"{error.filename or 'standard output'}: {error.strerror or error}")
    return int(code)


def with_flags(error: Any) -> str:
    """Return the message of a BalbenchError with flags in place of the settings that the message names."""
    message = str(error)
    if error.setting in SETTINGS and message.startswith(error.setting):
        message = _flag(error.setting) + message.removeprefix(error.setting)
    return re.sub(r"`(\w+)`", lambda match: _flag(match[1]) if match[1] in SETTINGS else match[0], message)


def _flag(setting: str) -> str:
    return FLAGS.get(setting, f"--{setting.replace('_', '-')}")


def _refuse(message: str) -> int:
    from balbench.benchmarks.console import say, standard_error

    say(standard_error(), f"balbench: {message}", style="bold")
    return INVALID_INPUT


def _usage(error: Any) -> str:
    """Say what is wrong with the arguments, in one line with the place and the remedy."""
    if not sys.argv[1:]:  # typer has printed the help
        return "no command; give one of those above"
    message = " ".join(error.format_message().split()).rstrip(".")
    for pattern, words in TYPER_WORDS:
        message = re.sub(pattern, words, message)
    place = error.ctx.command_path if error.ctx else "balbench"
    return f"{message[:1].lower()}{message[1:]} (see {place} --help)"


def _discard_output() -> None:
    """Discard what is still in the buffers: Python writes them at its end and would report the closed pipe again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _terminate(number: int, frame: object) -> NoReturn:
    """Exit on SIGTERM (`run_study` has its own handler). Nothing is imported here: an import may be interrupted."""
    sys.exit(TERMINATED)
