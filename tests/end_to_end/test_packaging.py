"""The wheel holds a single package, so no other distribution can clash with it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("src", "oracles", "harness", "reports", "benchmarks", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """Names of the files in a wheel that is built from a copy of the source, which a build would write to."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / part, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = out.glob("balbench-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_the_wheel_has_one_top_level_name(wheel_names):
    """So a distribution with a folder such as reports/ or benchmarks/ can be installed beside balbench."""
    tops = {name.split("/")[0] for name in wheel_names if ".dist-info/" not in name}
    assert tops == {"balbench"}


@pytest.mark.slow
def test_the_wheel_has_all_modules_and_data_and_no_speed_benchmarks(wheel_names):
    data = ("py.typed", "benchmarks/claims.yaml", "benchmarks/studies/quickstart.yaml")
    expected = {f"balbench/{path}" for path in data}
    for package in ("oracles", "harness", "reports", "benchmarks"):
        modules = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")]
        expected |= {f"balbench/{path.as_posix()}" for path in modules if path.parts[1] != "speed"}
    for folder in ("templates", "fonts"):
        expected |= {f"balbench/reports/{folder}/{path.name}" for path in (ROOT / "reports" / folder).iterdir()}
    assert expected <= wheel_names
    assert not [name for name in wheel_names if "/speed/" in name]
