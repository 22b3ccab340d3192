"""A run reads as tidy frames, whatever state it is in."""

import json

import pytest

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results import RunDirectory, read_run

FACTS = {"key": "k", "sources": {}, "code": ""}
ROUND = {"labels": 5, "metrics": {"test": {"accuracy": 0.5}}, "acquired": [1, 2]}
STUDY = {"name": "a", "policies": [{"name": "random"}], "seeds": [0], "protocol": {"rounds": 3}, "reference": "random"}


def cell(seed, policy="random", full=False):
    return {
        "setting": "", "policy": policy, "seed": seed, "key": f"k{seed}", "directory": f"{policy}-{seed}", "rounds": 3,
        "full_data": full, "keys": {"dataset": "d", "setting": "s", "policy": policy}, "settings": {"beta": 1},
    }  # fmt: skip


@pytest.mark.parametrize("content", ["{}", "[]", '{"study": {}}', '{"study": {}, "cells": [], "lines": {}}'])
def test_a_damaged_study_file_is_named(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(
        RunDirectoryError, match=r"study.json: is damaged, or was written by another version .*; delete it"
    ):
        read_run(tmp_path)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "study.yaml").write_text("name: x")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        read_run(tmp_path / "study.yaml")


def test_reading_what_is_no_run(tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        read_run(tmp_path)


def test_a_run_reads_as_tidy_frames(tmp_path):
    directory = RunDirectory(tmp_path)
    cells = [cell(0), cell(1), cell(2), cell(3), cell(0, "full data", full=True)]
    directory.adopt({"study": STUDY, "cells": cells, "lines": {}})
    directory.add_lines("", {"best possible": {"test": {"accuracy": 0.8}}})
    for name, rounds in (("random-0", 3), ("random-1", 2), ("full data-0", 1)):
        log = directory.cell(name)
        log.open(FACTS, 4)
        for number in range(rounds):
            log.append([({"round": number, **ROUND}, {"round": number, "seconds": {"fit": 0.5}})])
    directory.cell("random-0").finish({"device": "x"})
    directory.cell("random-2").open(FACTS, 3)
    directory.cell("random-2").fail({"reason": "broke", "details": "trace"})
    run = read_run(tmp_path)
    assert run.cells["state"].tolist() == ["finished", "running", "failed", "waiting", "running"]
    assert run.cells["reason"].tolist() == ["", "", "broke", "", ""]
    assert run.curves[["seed", "round", "value"]].values.tolist() == [
        [0, 0, 0.5],
        [0, 1, 0.5],
        [0, 2, 0.5],
        [1, 0, 0.5],
        [1, 1, 0.5],
    ]
    assert run.full_data["value"].tolist() == [0.5]
    assert run.lines.values.tolist() == [["", "best possible", "test", "accuracy", 0.8]]
    assert run.timings["seconds"].sum() == 3.0
    assert run.policies == ["random"]
    assert json.loads(json.dumps(run.policy_settings)) == {"random": {"beta": 1}}
    before = run.fingerprint
    directory.cell("random-1").append([({"round": 2, **ROUND}, {"round": 2, "seconds": {}})])
    assert read_run(tmp_path).fingerprint != before


def test_a_run_is_read_by_text_too_and_for_a_part_of_its_cells_and_rounds(tmp_path):
    directory = RunDirectory(str(tmp_path))
    requested = {"study": STUDY, "cells": [cell(0) | {"rounds": 2}], "lines": {}}
    directory.adopt({"study": STUDY, "cells": [cell(0), cell(1)], "lines": {"": {"line": {"test": {"accuracy": 1.0}}}}})
    for seed in (0, 1):
        log = directory.cell(f"random-{seed}")
        log.open(FACTS, 3)
        log.append([({"round": number, **ROUND}, {"round": number, "seconds": {"fit": 0.5}}) for number in range(3)])
        log.finish({})
    assert len(read_run(str(tmp_path)).curves) == 6
    part = read_run(str(tmp_path), requested)
    assert part.curves[["seed", "round"]].values.tolist() == [[0, 0], [0, 1]]
    assert part.cells[["state", "rounds_done", "rounds"]].values.tolist() == [["finished", 2, 2]]
    assert part.timings["round"].tolist() == [0, 1]
    assert part.lines["value"].tolist() == [1.0]
