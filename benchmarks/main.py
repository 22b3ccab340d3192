"""The program `balbench`: signals, streams, error messages and exit codes. Commands are imported later, in `cli`."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from balbench.benchmarks.exit_codes import CLOSED_PIPE, INTERRUPTED, INVALID_INPUT, TERMINATED

# The imports of torch and matplotlib make very many objects that stay. With Python's default (700 or 2,000), the
# search for garbage among these objects takes several percent of a short run.
OBJECTS_PER_COLLECTION = 100_000
# Settings that error messages name. The flag of a setting has the same name, except those in FLAGS.
SETTINGS = {
    *("out", "seeds", "reference_seeds", "until_width", "max_seeds", "override", "jobs", "device", "fleet"),
    *(
        "fleets_per_device",
        "cluster",
        "features",
        "grace",
        "reuse",
        "remove",
        "older_than",
        "posterior",
        "effect",
        "policies",
        "margin",
        "alpha",
        "metric",
        "split",
        "cost",
        "width",
        "power",
    ),
}
FLAGS = {"override": "--set", "policies": "--policy"}
# Patterns in typer's messages, and their replacements in the style of our own messages.
TYPER_WORDS = (
    (r"^Invalid value for '([^']+)'", r"\1"),
    (r"Value error, ", ""),
    (r"Input should be a valid", "must be a valid"),
    (r", unable to parse string as an? \w+", ""),
)


def main() -> NoReturn:
    """Run the command line and exit.

    Exit codes: 0; 1 if cells failed, or a gate found a policy that got worse; 2 for invalid input; 3 if a gate cannot
    tell; 130 after Ctrl-C; 141 if the output was closed; 143 after SIGTERM (`run` first waits up to `--grace` seconds
    for running rounds; a second signal stops at once).
    """
    signal.signal(signal.SIGTERM, _terminate)
    gc.set_threshold(OBJECTS_PER_COLLECTION)
    _open_closed_streams()
    try:
        code = _run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the exit code remains
            _discard(stream)
    sys.exit(code)


def _run() -> int:
    """Run the command that the arguments name, and return its exit code."""
    from typer import BadParameter

    from balbench.benchmarks.cli import app
    from balbench.benchmarks.console import ClosedPipeError, replace_unencodable
    from balbench.harness.errors import BalbenchError

    usage_error: Any = BadParameter.__base__  # typer does not export this class
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
        _discard(sys.stdout)
        return CLOSED_PIPE
    except OSError as error:
        _discard(sys.stdout)
        return _refuse(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except SystemExit as end:  # typer and rich end a program with code 1 where the reader closed the pipe
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        _discard(sys.stdout)
        return CLOSED_PIPE
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
    from balbench.benchmarks.console import ClosedPipeError, say, standard_error
    from balbench.harness.errors import fitted

    with suppress(OSError, ClosedPipeError):  # the exit code remains
        say(standard_error(), f"balbench: {fitted(message)}", style="bold")
    return INVALID_INPUT


def _usage(error: Any) -> str:
    """Describe what is wrong with the arguments in one line, with the place and the remedy."""
    if not sys.argv[1:]:  # typer has printed the help
        return "no command; give one of the commands above"
    message = " ".join(error.format_message().split()).rstrip(".")
    for pattern, words in TYPER_WORDS:
        message = re.sub(pattern, words, message)
    command = error.ctx.command_path if error.ctx else "balbench"
    return f"{message[:1].lower()}{message[1:]} (see {command} --help)"


def _open_closed_streams() -> None:
    """Open the null device in place of closed standard streams: other files would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def _discard(stream: TextIO) -> None:
    """Discard the buffered output of a stream that cannot be written: Python would try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _terminate(number: int, frame: object) -> NoReturn:
    """Exit on SIGTERM. Nothing is imported here, because the signal may interrupt an import.

    `run_study` sets a handler of its own.
    """
    sys.exit(TERMINATED)
