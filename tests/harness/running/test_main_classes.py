"""A policy of a script or a notebook runs on worker processes, and an edited one does not resume the cells before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.studies import TINY

POLICY = '''
from typing import ClassVar
import balbench
from balbench.harness.policies.policy import Selection

SHIFT = 0

class Mine(balbench.Policy):
    """The first pairs after a fixed position."""

    family: ClassVar[str] = "own_policy"
    source: ClassVar[str] = "-"
    needs_rewards: ClassVar[bool] = False

    def select(self, view, batch_size, stream):
        return Selection(view.unlabelled_U[SHIFT:][:batch_size], None)

balbench.register("policies", "own_policy", Mine)
'''
STUDY = TINY | {
    "policies": ["random", "own_policy"],
    "full_data": False,
    "seeds": 2,
    "protocol": {"initial": 10, "batch": 10, "rounds": 2},
}
RUN = f"""
study = {STUDY!r}
run = balbench.run_study(study, out, jobs=2, progress=False)
cells = run.cells[run.cells["policy"] == "own_policy"]
result = [cells["key"].tolist(), cells["state"].tolist(), run.curves["value"].sum()]
"""
NOTEBOOK = """
import json, linecache, sys
out, results = sys.argv[1], []
for number, cell in enumerate(json.loads(sys.argv[2])):
    file = f"<ipython-input-{number}>"
    linecache.cache[file] = (len(cell), None, cell.splitlines(keepends=True), file)
    exec(compile(cell, file, "exec"), globals())
    if "result" in globals():
        results.append(globals().pop("result"))
print(json.dumps(results))
"""


def output(path: Path, code: str, *arguments: str):
    path.write_text(code)
    environment = os.environ | {"BALBENCH_CACHE": str(path.parent / "cache")}
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_class_of_a_notebook(tmp_path):
    edited = POLICY.replace("SHIFT = 0", "SHIFT = 7")
    first, second = output(tmp_path / "a.py", NOTEBOOK, str(tmp_path / "run"), json.dumps([POLICY, RUN, edited, RUN]))
    assert first[1] == second[1] == ["finished", "finished"]
    assert not set(first[0]) & set(second[0])
    assert first[2] != second[2]


@pytest.mark.slow
def test_a_class_of_a_script_without_a_main_guard(tmp_path):
    script = POLICY + "import json, sys\nout = sys.argv[1]\n" + RUN + "print(json.dumps(result))"
    assert output(tmp_path / "a.py", script, str(tmp_path / "run"))[1] == ["finished", "finished"]
