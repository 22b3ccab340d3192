"""docs/plug-ins.md: its plug-ins work as a package with entry points, and its tables describe the classes."""

import os
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
import torch

from balbench.harness.policies.policy import Policy, view_names
from balbench.harness.pool.index import Responses
from balbench.harness.pool.pairs import PreferencePool
from balbench.harness.posteriors.posterior import FittedPosterior
from balbench.harness.streams import stream
from balbench.harness.uncertainty import Uncertainty
from balbench.testing.examples import LinearRewards, pool_of, view_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plug-ins.md").read_text(encoding="utf-8")
LOADED = """
from importlib.metadata import entry_points
from balbench.harness import registry

def test_registry_finds_them():
    for kind, name in {kinds}:
        assert registry.load(kind, name).__module__.startswith("my_package.")
        assert name in registry.names(kind)
"""
KINDS = {"policies": "margin", "posteriors": "one_step", "oracles": "contrarian", "datasets": "archive"}


def rows_of(title: str) -> list[list[str]]:
    """The rows of the table whose first column has this title."""
    table = PAGE[PAGE.index(f"| {title} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


VIEW_ROWS = [(row[0].strip("`"), row[2], row[3]) for row in rows_of("attribute of `view`")]


@pytest.fixture
def package(tmp_path) -> Path:
    """The plug-ins of the page, installed as an importer sees a distribution: modules beside a .dist-info directory."""
    for code in re.findall(r"```python\n(# \S+\.py\n.*?)```", PAGE, re.DOTALL):
        path = tmp_path / code.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
    information = tmp_path / "my_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    points = re.search(r'\[project.entry-points."balbench.policies"\]\n(\w+) = "(\S+)"', PAGE)
    assert points is not None
    classes = {"policies": points[2], "posteriors": "my_package.one_step:OneStep"}
    classes |= {"oracles": "my_package.contrarian:Contrarian", "datasets": "my_package.archive:Archive"}
    lines = [f"[balbench.{kind}]\n{KINDS[kind]} = {place}\n" for kind, place in classes.items()]
    (information / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "tests" / "test_loaded.py").write_text(LOADED.replace("{kinds}", str(list(KINDS.items()))))
    return tmp_path


@pytest.mark.slow
def test_the_plug_ins_of_the_page_pass_their_own_tests(package):
    path = os.pathsep.join(map(str, (package, ROOT / "src")))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=package, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_a_test_of_a_plug_in_is_three_lines():
    tests = re.findall(r"```python\n# tests/\S+\n(.*?)```", PAGE, re.DOTALL)
    assert len(tests) == 4
    for test in tests:
        body = [line for line in test.splitlines() if line and not line.startswith("def ")]
        assert len(body) == 3


@pytest.mark.parametrize(("expression", "shape", "kind"), VIEW_ROWS, ids=[row[0] for row in VIEW_ROWS])
def test_the_table_of_the_view_has_the_right_shapes_and_types(expression, shape, kind):
    view = view_of(pool_of(prompts=9, responses=3, dimension=4), acquired=5, members=2)
    names = {"pairs": view.acquired_n, "stream": stream(0, "noise")}
    value = eval(f"view.{expression}", names | {"view": view})
    lengths = {"N": 27, "U": 22, "n": 5, "R": 27, "P": 9, "D": 4, "Q": 4, "K": 2, "H": 4, "2": 2}
    if kind.endswith(("tensor", "array")):
        assert tuple(value.shape) == tuple(lengths[axis] for axis in shape.split(", "))
        dtype = np.dtype(str(value.dtype).removeprefix("torch.")) if isinstance(value, torch.Tensor) else value.dtype
        assert kind.startswith("str" if dtype.kind == "U" else dtype.name)
        assert kind.endswith("tensor") == isinstance(value, torch.Tensor)
    else:
        assert shape == ""
        assert kind in (type(value).__name__, "FittedPosterior")


def test_the_table_of_the_view_is_complete():
    listed = {re.split(r"[.(\[]", expression)[0] for expression, _, _ in VIEW_ROWS}
    assert listed == set(view_names())
    parts = {"pool": PreferencePool, 'splits["pool"]': Responses, "uncertainty_U": Uncertainty}
    for prefix, part in parts.items():
        listed = {name.removeprefix(f"{prefix}.") for name, _, _ in VIEW_ROWS if name.startswith(f"{prefix}.")}
        assert {item.name for item in fields(part) if item.default is MISSING or part is PreferencePool} <= listed, (
            prefix
        )


def test_the_example_model_has_what_a_fitted_posterior_promises():
    promised = {name for name in vars(FittedPosterior) if not name.startswith("_")}
    assert all(hasattr(LinearRewards(3), name) for name in promised)


def test_the_table_of_class_attributes_is_complete_and_has_the_right_defaults():
    rows = {row[0].strip("`"): row[2].strip("`") for row in rows_of("attribute")}
    own = [name for name in Policy.__annotations__ if not name.startswith("_")]
    assert set(own) <= set(rows)
    for name, default in rows.items():
        if default.startswith(('"', "T", "F", "1", "{")):
            assert eval(default) == getattr(Policy, name), name


def test_a_wrong_name_says_the_nearest_right_one():
    view = view_of(pool_of())
    for wrong, right in {
        "embeddings": "embedding_RH",
        "rewards": "rewards_KR",
        "unlabeled": "unlabelled_U",
        "unlabelled": "unlabelled_U",
        "labels": "label_n",
        "features": "splits['pool'].features_RD",
        "epistemic": "epistemic_U",
        "acquired": "acquired_n",
    }.items():
        with pytest.raises(AttributeError, match=f"PoolView has no attribute '{wrong}'; did you mean .*") as error:
            getattr(view, wrong)
        assert str(error.value).endswith(f"did you mean {right}?")
    with pytest.raises(AttributeError, match=f"it has {', '.join(view_names())}$"):
        view.zzz  # noqa: B018


def test_an_attribute_error_inside_the_view_is_not_mistaken_for_a_wrong_name():
    class Broken(LinearRewards):
        def rewards_KR(self, features_RD):
            return features_RD.no_such_method()

    with pytest.raises(AttributeError, match="no_such_method"):
        view_of(pool_of(), model=Broken(4)).rewards_KR  # noqa: B018
