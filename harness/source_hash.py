"""Hashes of source code, so that an edited class or package does not continue results of earlier code."""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import inspect
import linecache
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

OURS = __name__.partition(".")[0]


def source_hash(cls: type) -> str | None:
    """Hash the source of a class together with what its methods use from modules that are not installed libraries.

    The hash covers the class body, base classes, functions, classes and data that methods name as globals or close
    over, and values of default arguments. Modules of the class's own package count as its source wherever they are
    installed. Comments count too: a changed comment is a changed source.

    Returns:
        64 hexadecimal digits, or None where the source of a part cannot be read.
    """
    collector = _Collector(cls)
    try:
        collector.add_class(cls)
    except (OSError, TypeError, SyntaxError):
        return None
    return hashlib.sha256("\0".join(collector.parts).encode()).hexdigest()


class _Collector:
    """Collects sources and data that a class depends on, each once, in the order of their first use."""

    def __init__(self, root: type) -> None:
        self.parts: list[str] = []
        self._package = root.__module__.partition(".")[0]
        self._seen: set[int] = set()

    def add_class(self, cls: type) -> None:
        """Add a class: its body, its base classes, and what its methods use.

        Raises:
            OSError, TypeError, SyntaxError: a source cannot be read.
        """
        if not self._is_new(cls, cls.__module__):
            return
        self.parts.append(_class_source(cls))
        for base in cls.__bases__:
            self.add_class(base)
        for function in _functions(cls):
            self._add_uses(function)
        for name in sorted(getattr(cls, "__class_vars__", ())):
            self._add(name, vars(cls).get(name))

    def _add_function(self, function: FunctionType) -> None:
        if self._is_new(function, function.__module__):
            self.parts.append(inspect.getsource(function))
            self._add_uses(function)

    def _add_uses(self, function: FunctionType) -> None:
        """Add the globals that a function names, the variables of its closure, and its default arguments."""
        for name in _global_names(function.__code__):
            if name in function.__globals__:
                self._add(name, function.__globals__[name])
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":
                self._add(name, cell.cell_contents)
        self._add("defaults", [function.__defaults__, function.__kwdefaults__])

    def _add(self, name: str, value: Any) -> None:
        value = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, type):
            self.add_class(value)
        elif isinstance(value, FunctionType):
            self._add_function(value)
        elif isinstance(value, ModuleType):
            if self._is_new(value, value.__name__):
                self.parts.append(inspect.getsource(value))
        else:
            self.parts.append(f"{name} = {_data_hash(value)}")

    def _is_new(self, value: Any, module: str) -> bool:
        """Return whether to add a class, a function or a module: it is new, and not part of a library."""
        own = module.partition(".")[0] == self._package and self._package != OURS
        if id(value) in self._seen or not (own or not _is_library(module)):
            return False
        self._seen.add(id(value))
        return True


def _class_source(cls: type) -> str:
    """Return the text of a class statement, located by the code of a method, which also works in notebooks."""
    for function in _functions(cls):
        code = function.__code__
        if not function.__qualname__.startswith(f"{cls.__qualname__}."):
            continue
        linecache.checkcache(code.co_filename)
        text = "".join(linecache.getlines(code.co_filename, function.__globals__))
        if (segment := _class_segment(text, cls.__name__, code.co_firstlineno)) is not None:
            return segment
    return inspect.getsource(cls)


def _class_segment(text: str, name: str, line: int) -> str | None:
    """Return the innermost class statement with a name that contains a line of a text."""
    statements = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and node.name == name and node.lineno <= line <= (node.end_lineno or 0)
    ]
    innermost = max(statements, key=lambda node: node.lineno, default=None)
    return ast.get_source_segment(text, innermost) if innermost is not None else None


def _functions(cls: type) -> Iterator[FunctionType]:
    """Yield the functions in the body of a class, unwrapped (property, classmethod, functools.wraps, ...)."""
    for member in list(vars(cls).values()):
        parts = [getattr(member, name, None) for name in ("__func__", "fget", "fset", "func")]
        for part in [member, *parts]:
            if callable(part) and isinstance(function := inspect.unwrap(part), FunctionType):
                yield function


def _global_names(code: CodeType) -> list[str]:
    """Return the sorted names that a code object and its inner code objects read from their module."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}}
    inner = (_global_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return sorted(names.union(*inner))


def _data_hash(value: Any) -> str:
    """Return the hash of a value, or the name of its type if the value cannot be hashed."""
    import joblib

    try:
        return joblib.hash(value)
    except Exception:
        return f"{type(value).__module__}.{type(value).__qualname__}"


@functools.cache
def code_digest() -> str:
    """Return the hash of all code of balbench that determines results: the packages harness and oracles."""
    digest, packages = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(path for package in ("harness", "oracles") for path in (packages / package).rglob("*.py")):
        digest.update(str(path.relative_to(packages)).encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def development_digest() -> str:
    """Return `code_digest` if balbench runs from its source tree, where code changes without a version; else ""."""
    folders = [Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())]
    return "" if any(Path(__file__).is_relative_to(folder) for folder in folders) else code_digest()


def _is_library(module: str) -> bool:
    """Return whether a module belongs to balbench, to Python, or to a folder of installed libraries."""
    if module.partition(".")[0] == OURS:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or file is None:
        return module in sys.builtin_module_names
    return any(Path(file).resolve().is_relative_to(folder) for folder in _library_folders())


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple(Path(path).resolve() for path in [*paths, *site.getsitepackages(), site.getusersitepackages()])
