"""The structure of the code, beyond the contracts of import-linter in pyproject.toml."""

import graphlib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("oracles", "harness", "reports", "benchmarks", "src/balbench", "tests")


def test_no_modules_import_each_other():
    """Imports inside functions and for type checkers count as well."""
    graph = grimp.build_graph("balbench", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", PACKAGES)
def test_files_are_short(package):
    too_long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in (ROOT / package).rglob("*.py")
        if (lines := path.read_text(encoding="utf-8").count("\n")) > 400
    }
    assert not too_long
