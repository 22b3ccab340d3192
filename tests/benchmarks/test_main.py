"""The program: streams that are not UTF-8, closed pipes, full disks, early signals, flags in messages."""

import json
import os
import signal
import subprocess
import sys

import pytest

import balbench
from balbench.benchmarks.main import with_flags
from balbench.harness.errors import StudyError
from support.command import run_here
from support.studies import write_study

LABEL = "Zufällig ✓ 随机 🎲"


PROGRAM = """
import json, sys
from balbench.benchmarks.main import main
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["balbench", *arguments]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
sys.stderr.write(f"codes {codes}")
"""


@pytest.fixture(autouse=True)
def _buffered_streams(monkeypatch):
    """Streams keep their buffers, which Python flushes when it exits."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture(scope="module")
def unicode_study(tmp_path_factory):
    """A study with a label that no old code page can encode."""
    directory = tmp_path_factory.mktemp("unicode")
    policies = ["random", {"name": "variance", "label": LABEL}]
    return write_study(directory, policies=policies, full_data=False, description="Wie viele Labels? ✓")


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=str,
)
def test_any_encoding_of_the_streams(unicode_study, environment):
    """All commands, one after the other in one process; the first environment runs the study."""
    study, run = str(unicode_study), str(unicode_study.parent / "run")
    commands = [
        ["check", study, "--seeds", "1", "--reference-seeds", "1", "--jobs", "1", "--device", "cpu"],
        ["run", study, "--out", run, "--seeds", "1", "--reference-seeds", "1"],
        ["status", run],
        ["list", "policies"],
        ["list", "studies", study],
        ["check", study, "--set", "reference=Zuf"],
        ["run", "--help"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        env=os.environ | environment,
        capture_output=True,
        timeout=300,
    )
    assert b"codes [0, 0, 0, 0, 0, 2, 0]" in done.stderr, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stdout + done.stderr


def test_a_closed_pipe_ends_quietly():
    command = [sys.executable, "-m", "balbench", "list", "policies"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("arguments", [["--help"], ["cache", "--remove", "none"]], ids=" ".join)
def test_a_closed_pipe_of_both_streams_ends_quietly(arguments):
    """The help is typer's, which ends with another code; an error message has no reader."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "balbench", *arguments], stdout=writer, stderr=writer)
    os.close(writer)
    assert done.returncode == (141 if arguments == ["--help"] else 2)


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes streams")
def test_closed_streams_are_no_error(tmp_path):
    """A command that runs without its standard streams writes its files, and no message into them."""
    rows = [{"prompt": f"prompt {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(20)]
    (tmp_path / "votes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    program = 'exec "$0" -m balbench init votes.jsonl --encoder none/none <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", program, sys.executable], cwd=tmp_path)
    assert done.returncode == 2
    program = 'exec "$0" -m balbench list policies <&- >&- 2>log'
    done = subprocess.run(["sh", "-c", program, sys.executable], cwd=tmp_path)
    assert (done.returncode, (tmp_path / "log").read_text()) == (0, "")


@pytest.mark.parametrize("command", [["status"], ["init"], ["list"], ["--set"], []], ids=str)
def test_messages_repeat_little_of_a_long_argument(command):
    arguments = [*command, "x" * 6_000]
    done = subprocess.run([sys.executable, "-m", "balbench", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("balbench: ")
    assert len(done.stderr) < 1_050


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "balbench", "--version"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"balbench: standard output: No space left on device\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_an_error_that_cannot_be_printed_keeps_its_exit_code():
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-m", "balbench", "status", "none"], stderr=full).returncode == 2


def test_the_version():
    done = subprocess.run([sys.executable, "-m", "balbench", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"balbench {balbench.__version__}\n")


SIGNAL_ON_IMPORT = """
import os, signal, sys
from balbench.benchmarks.main import main

_, number, module, *sys.argv[1:] = sys.argv
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes its background jobs ignore Ctrl-C

class Finder:
    def find_spec(name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, Finder)
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("module", ["balbench.benchmarks.cli", "typer", "torch", "balbench.harness.running.scheduler"])
def test_a_signal_while_modules_are_imported_is_no_traceback(tmp_path, module, number, code):
    command = [sys.executable, "-c", SIGNAL_ON_IMPORT, str(int(number)), module, "run", str(write_study(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize(
    ("message", "setting", "line"),
    [
        ("jobs 0: must be at least 1", "jobs", "--jobs 0: must be at least 1"),
        ("fleets_per_device 0: must be", "fleets_per_device", "--fleets-per-device 0: must be"),
        ("override x: must", "override", "--set x: must"),
        ("effect 0: must be above 0", "effect", "--effect 0: must be above 0"),
        ("run: give another `out`, not `name`", None, "run: give another --out, not `name`"),
        ("kind 'x': known", "kind", "kind 'x': known"),
        ("jobs are many", None, "jobs are many"),
    ],
)
def test_messages_have_flags_in_place_of_settings(message, setting, line):
    assert with_flags(StudyError(message, setting=setting)) == line


@pytest.mark.parametrize(
    "arguments", [["run", "quickstart"], ["report", "r"], ["transfer", "r", "--posterior", "laplace"], ["init", "f"]]
)
def test_an_empty_output_path_is_not_the_working_directory(monkeypatch, capsys, arguments):
    code, _, err = run_here(monkeypatch, capsys, *arguments, "--out", "")
    assert (code, err) == (2, "balbench: --out: is empty; give a path\n")


def test_only_the_program_changes_how_often_python_collects_garbage():
    code = "import gc, sys; sys.argv = ['balbench', '--version']; before = gc.get_threshold()[0]\n"
    code += "from balbench.benchmarks.main import main; import balbench; assert gc.get_threshold()[0] == before\n"
    code += "try:\n    main()\nexcept SystemExit:\n    print(gc.get_threshold()[0] > before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
