"""The code of docs/python.md runs, and its tables name existing arguments and attributes."""

import inspect
import re
from pathlib import Path

import matplotlib as mpl

import balbench
from support.studies import tiny

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def test_every_block_of_code_runs(tmp_path, monkeypatch, capsys):
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    small = tiny(policies=["random", "variance"], full_data=False)
    names = {"SMALL": small}
    for block in blocks:
        exec(block.replace('"quickstart"', "SMALL"), names)
    assert "outcome" in capsys.readouterr().out
    assert len(blocks) == 3


def test_the_table_of_arguments_is_complete():
    rows = PAGE.partition("| argument |")[2].partition("\n\n")[0].splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(inspect.signature(balbench.run_study).parameters) - {"study"}


def test_the_attributes_of_a_run_exist():
    table = PAGE.partition("| attribute |")[2].partition("\n\n")[0]
    attributes = set(re.findall(r"`run\.(\w+)", table))
    assert len(attributes) > 10
    assert attributes <= set(dir(balbench.Run)) | set(balbench.Run.__dataclass_fields__)
