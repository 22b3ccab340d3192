"""A plug-in package with a gate (docs/gate.md): a baseline, a worse policy that is refused, and the mended policy.

The steps of the workflow run as they are written, in a new environment. Only what the steps need from the network is
at hand before: balbench and its libraries, which the new environment finds in the current one, and no index for pip.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import textwrap
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from support.gates import quiet

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "docs" / "workflows" / "policy-gate.yml"
POLICY = '''
from balbench import Policy
from balbench.harness.policies.policy import take_highest


class Margin(Policy):
    """Pairs about whose label the samples disagree most."""

    family, source = "uncertainty", "-"

    def select(self, view, batch_size, stream):
        return take_highest(view, view.score_U("epistemic"), batch_size)
'''
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "my-margin"
version = "1.0"

[project.entry-points."balbench.policies"]
margin = "my_margin:Margin"

[tool.setuptools]
py-modules = ["my_margin"]
"""
TEST = """
from balbench.testing import assert_no_regression, assert_same_selection
from my_margin import Margin


def test_margin_is_as_good_as_its_baseline():
    assert_no_regression(Margin, "tests/baseline.json", jobs=1)
    assert_same_selection(Margin, "tests/baseline.json", seeds=1, jobs=1)
"""


class Package:
    """The package in a folder, with an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder / "package", folder / "env" / "bin" / "python"
        venv.create(folder / "env", with_pip=True)
        command = self.python.parent / "balbench"
        command.write_text(f"#!{self.python}\nfrom balbench.benchmarks.main import main\nmain()\n")
        command.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), sysconfig.get_path("purelib")]),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads 0 as: no isolation
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        }
        (self.folder / "tests").mkdir(parents=True)
        self.write("pyproject.toml", PYPROJECT)
        self.write("my_margin.py", POLICY)
        self.write("tests/test_margin.py", TEST)
        self.write("tests/study.yaml", yaml.safe_dump(quiet(policies=["random", "margin"])))

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")

    def shell(self, command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-e", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def workflow(self) -> dict[str, int]:
        """Run the workflow as in a new checkout; return the exit code of each step that ran."""
        self.shell("rm -rf runs build gate.xml gate.md")
        steps = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["gate"]["steps"]
        codes: dict[str, int] = {}
        for step in steps:
            if "run" in step and (not any(codes.values()) or step.get("if") == "always()"):
                self.last = self.shell(step["run"])
                codes[step["name"]] = self.last.returncode
        return codes


@pytest.mark.slow
def test_the_cycle_of_a_plug_in_package(tmp_path):
    if find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed, which builds the package without a network")
    package = Package(tmp_path)
    made = package.shell(
        "python -m pip install . && balbench run tests/study.yaml --out runs/base && "
        "balbench baseline runs/base --out tests/baseline.json"
    )
    assert made.returncode == 0, made.stdout + made.stderr

    assert package.workflow() == {"Install": 0, "Gate": 0, "Summary": 0}
    tested = package.shell("python -m pytest -q -p no:cacheprovider tests")
    assert tested.returncode == 0, tested.stdout

    package.write("my_margin.py", POLICY.replace('view.score_U("epistemic")', '-view.score_U("epistemic")'))
    assert package.workflow() == {"Install": 0, "Gate": 1, "Summary": 0}
    assert "margin | regressed" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "<failure" in (package.folder / "gate.xml").read_text(encoding="utf-8")
    tested = package.shell("python -m pytest -q -p no:cacheprovider tests")
    assert tested.returncode == 1
    assert "AssertionError: regressed" in tested.stdout

    package.write("my_margin.py", POLICY)
    assert package.workflow() == {"Install": 0, "Gate": 0, "Summary": 0}
    (package.folder / "tests" / "baseline.json").write_text("{")
    assert package.workflow() == {"Install": 0, "Gate": 2, "Summary": 0}
