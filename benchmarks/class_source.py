"""Facts about classes, read from their source, because an import of the classes would import torch for a mere table."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ClassSource:
    """The source of a class, and the module that defines the class.

    Attributes:
        module: name of the module; the names of base classes are looked up in this module.
        node: the syntax tree of the class.
    """

    module: str
    node: ast.ClassDef

    @property
    def docstring(self) -> str:
        """The class's own docstring without indentation; empty if there is none."""
        return ast.get_docstring(self.node) or ""

    def constant(self, name: str) -> str:
        """Return the text that the class or one of its base classes assigns to `name`; empty if there is none."""
        for statement in self.node.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=target), value=ast.Constant(value=value)) if target == name:
                    return str(value)
        return next((text for base in self._bases() if (text := base.constant(name))), "")

    def _bases(self) -> Iterator[ClassSource]:
        names = [base.id for base in self.node.bases if isinstance(base, ast.Name)]
        return (base for name in names if (base := class_source(self.module, name)) is not None)


def class_source(module: str, name: str) -> ClassSource | None:
    """Find a class that a module defines or imports from a module of balbench; None for other names."""
    definitions, imports = _names(module)
    if name in definitions:
        return ClassSource(module, definitions[name])
    return class_source(imports[name], name) if name in imports else None


@cache
def _names(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, str]]:
    """Return the classes of a module, and the modules of balbench that it imports names from."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return {}, {}
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    imports = {
        alias.name: node.module
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("balbench.")
        for alias in node.names
    }
    return classes, imports
