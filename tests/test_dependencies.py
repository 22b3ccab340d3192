"""pyproject.toml declares the libraries that the code imports, and no others."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {"scikit-learn": "sklearn", "pyyaml": "yaml"}  # distributions whose module has another name
UNDECLARED = {"pydantic_core", "IPython"}  # a part of pydantic, and a library that is used only inside notebooks


def imported() -> set[str]:
    """Top-level names of all imports of the package that need a dependency."""
    names = set()
    for folder in ("oracles", "harness", "reports", "benchmarks", "src"):
        for path in (ROOT / folder).rglob("*.py"):
            if "speed" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"balbench"} - UNDECLARED


def test_declared_dependencies_are_the_imported_libraries():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    declared = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
    assert {MODULES.get(name, name) for name in declared} == imported()
