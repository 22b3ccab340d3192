"""The command line, in this process or in its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from balbench.benchmarks.main import main


def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: object
) -> tuple[int, str, str]:
    """Run `balbench ...`; return the exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["balbench", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main()
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def start(*arguments: object, environment: dict[str, str] | None = None, **options: object) -> subprocess.Popen:
    """Start `balbench ...` in a process group of its own."""
    command = [sys.executable, "-m", "balbench", *map(str, arguments)]
    source = Path(__file__).parents[3] / "src"
    environment = os.environ | {"PYTHONPATH": str(source)} | (environment or {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, start_new_session=True, env=environment, **pipes, **options)
