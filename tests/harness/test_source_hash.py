"""The hash of a class follows its source and what its methods use, and nothing else."""

import linecache
import sys
import textwrap
import types

import pytest

from balbench.harness.source_hash import source_hash

CELL = """
SCALE = 2
OTHER = 5

def helper(x):
    return inner(x) * SCALE

def inner(x):
    return x

class Base:
    def base(self):
        return 0

class Mine(Base):
    def select(self, x):
        return [helper(value) for value in x]

class Neighbour:
    def select(self, x):
        return x
"""


def notebook_class(text, name="Mine", cell=[0]):  # noqa: B006
    """A class as a notebook makes it: from a cell whose text only linecache knows, in a module without a file."""
    cell[0] += 1
    file = f"<ipython-input-{cell[0]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module = types.ModuleType("__main__")
    exec(compile(text, file, "exec"), module.__dict__)
    return getattr(module, name)


@pytest.fixture(autouse=True)
def no_file_of_main(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))


def test_the_same_cell_run_again_has_the_same_hash():
    first, second = notebook_class(CELL), notebook_class("\n\n" + CELL)
    assert source_hash(first) == source_hash(second) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("helper(value) for", "helper(value) + 1 for"),
        ("inner(x) * SCALE", "inner(x) + SCALE"),
        ("return x\n\nclass Base", "return -x\n\nclass Base"),
        ("SCALE = 2", "SCALE = 3"),
        ("return 0", "return 1"),
    ],
    ids=["the body", "a function that it calls", "a function that this one calls", "data", "a base class"],
)
def test_an_edit_changes_the_hash(old, new):
    assert old in CELL
    assert source_hash(notebook_class(CELL)) != source_hash(notebook_class(CELL.replace(old, new)))


@pytest.mark.parametrize(("old", "new"), [("OTHER = 5", "OTHER = 6"), ("        return x\n", "        return -x\n")])
def test_an_edit_elsewhere_does_not(old, new):
    assert CELL.endswith(old) or old in CELL
    head, _, tail = CELL.rpartition(old)
    assert source_hash(notebook_class(CELL)) == source_hash(notebook_class(head + new + tail))


def test_closures_and_defaults_count():
    def made(beta, gamma):
        class Mine:
            def select(self, x, power=gamma):
                return beta * x**power

        return source_hash(Mine)

    assert len({made(1, 1), made(2, 1), made(1, 2)}) == 3
    assert made(1, 1) == made(1, 1)


def test_properties_class_methods_and_wrapped_functions_are_followed():
    text = textwrap.dedent("""
        import functools
        LEVEL = 1
        def logged(function):
            @functools.wraps(function)
            def call(*arguments):
                return function(*arguments)
            return call
        class Mine:
            @KIND
            def value(self):
                return LEVEL
    """)
    for kind in ("property", "classmethod", "staticmethod", "logged", "functools.cached_property"):
        cells = [text.replace("KIND", kind).replace("LEVEL = 1", f"LEVEL = {level}") for level in (1, 2)]
        hashes = [source_hash(notebook_class(cell)) for cell in cells]
        assert None not in hashes
        assert hashes[0] != hashes[1], kind


def test_a_reloaded_module_is_read_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "policies_of_mine.py"
    path.write_text("class Mine:\n    def select(self):\n        return 1\n")
    import importlib

    module = importlib.import_module("policies_of_mine")
    before = source_hash(module.Mine)
    path.write_text("class Mine:\n    def select(self):\n        return 1000\n")
    importlib.invalidate_caches()
    assert source_hash(importlib.reload(module).Mine) != before


def test_a_class_without_a_source_has_no_hash():
    module = types.ModuleType("__main__")
    exec("class Mine:\n    def select(self):\n        return 1\n", module.__dict__)
    assert source_hash(module.Mine) is None
