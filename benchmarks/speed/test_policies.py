"""Time and memory of one batch of every policy at the paper's scale, each in a process of its own.

Run: tox -e speed -- benchmarks/speed/test_policies.py (about 15 minutes and 8 GiB, mostly for the data). The table is
also written to the file that BALBENCH_SPEED_TABLE names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import paper_scale
from balbench.harness import registry

GIB = 3.0  # limit of the memory above the features
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "bal_pm": [{"variant": "as_coded"}, {"estimator": "kl"}],
    "adpo": [{"features": "frozen"}],
}
POLICIES = [
    pytest.param(name, settings, id=" ".join([name, *map(str, settings.values())]))
    for name in registry.names("policies")
    if name != "full_data"
    for settings in [{}, *VARIANTS.get(name, [])]
]
Measured = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paper-scale")
    paper_scale.prepare(path)
    return path


@pytest.fixture(scope="module")
def table() -> Iterator[Measured]:
    """Measurements of each policy, printed at the end."""
    policies: Measured = {}
    yield policies
    lines = ["| policy | family | cost class | seconds | GiB above the features |", "|---|---|---|---|---|"]
    for name, measured in policies.items():
        policy = registry.load("policies", name.split()[0])
        lines.append(
            f"| {name} | {policy.family} | {policy.cost} | {measured['seconds']:.2f} | {measured['GiB']:.2f} |"
        )
    text = "\n".join(lines)
    print(f"\n\n{text}")
    if path := os.environ.get("BALBENCH_SPEED_TABLE"):
        Path(path).write_text(text + "\n", encoding="utf-8")


@pytest.mark.parametrize(("name", "settings"), POLICIES)
def test_one_batch(
    benchmark: Any, directory: Path, table: Measured, name: str, settings: dict[str, Any], request: Any
) -> None:
    command = [sys.executable, paper_scale.__file__, str(directory), name, json.dumps(settings)]
    done = benchmark.pedantic(subprocess.run, args=(command,), kwargs={"capture_output": True, "text": True})
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    benchmark.extra_info |= measured
    table[request.node.callspec.id] = measured
    assert measured["GiB"] < GIB
