"""A run reads as tidy frames, whatever state it is in."""

import json

import numpy as np
import pytest

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results import HeldOut, RunDirectory, read_run
from balbench.harness.results.held_out import HELD_OUT, read_held_out, write_held_out
from balbench.harness.results.records import FinishedRound

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


def test_a_reference_without_cells_is_named(tmp_path):
    header = {"study": STUDY | {"reference": "rnadom"}, "cells": [cell(0)], "lines": {}}
    (tmp_path / "study.json").write_text(json.dumps(header))
    with pytest.raises(
        RunDirectoryError, match=r"study.json: is damaged \(no cell has the policy 'rnadom' that `reference`.*delete it"
    ):
        read_run(tmp_path)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "study.yaml").write_text("name: x")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        read_run(tmp_path / "study.yaml")


def finished(number, logits=None):
    return FinishedRound({"round": number, **ROUND}, {"round": number, "seconds": {"fit": 0.5}}, logits)


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
            log.append([finished(number)])
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
    directory.cell("random-1").append([finished(2)])
    assert read_run(tmp_path).fingerprint != before


def test_a_run_is_read_by_text_too_and_for_a_part_of_its_cells_and_rounds(tmp_path):
    directory = RunDirectory(str(tmp_path))
    requested = {"study": STUDY, "cells": [cell(0) | {"rounds": 2}], "lines": {}}
    directory.adopt({"study": STUDY, "cells": [cell(0), cell(1)], "lines": {"": {"line": {"test": {"accuracy": 1.0}}}}})
    for seed in (0, 1):
        log = directory.cell(f"random-{seed}")
        log.open(FACTS, 3)
        log.append([finished(number, logits={"test": np.full(2, number, np.float16)}) for number in range(3)])
        log.finish({})
    assert len(read_run(str(tmp_path)).curves) == 6
    part = read_run(str(tmp_path), requested)
    assert part.curves[["seed", "round"]].values.tolist() == [[0, 0], [0, 1]]
    assert part.cells[["state", "rounds_done", "rounds"]].values.tolist() == [["finished", 2, 2]]
    assert part.timings["round"].tolist() == [0, 1]
    assert part.lines["value"].tolist() == [1.0]
    assert part.predictions("", "random", 0)["test"].tolist() == [[0, 0], [1, 1]]


def test_predictions_and_held_out_pairs_are_read_from_the_run_directory(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.adopt({"study": STUDY, "cells": [cell(0), cell(1), cell(2)], "lines": {}})
    for seed in (0, 1):
        directory.cell(f"random-{seed}").open(FACTS, 3)
    directory.cell("random-0").append(
        [finished(n, logits={"ood": np.array([n], "<f2"), "test": np.array([1, n], "<f2")}) for n in range(2)]
    )
    held_out = {
        split: HeldOut(np.array([1.0, np.nan][:pairs]), np.arange(pairs, dtype=np.int32), np.ones(pairs, np.float32))
        for split, pairs in (("ood", 1), ("test", 2))
    }
    directory.data("d").mkdir(parents=True)
    write_held_out(directory.data("d"), held_out)
    (tmp_path / "run").rename(tmp_path / "moved")
    run = read_run(tmp_path / "moved")
    stored = run.predictions("", "random", 0)
    assert {split: logit_TN.tolist() for split, logit_TN in stored.items()} == {
        "ood": [[0], [1]],
        "test": [[1, 0], [1, 1]],
    }
    assert run.predictions("", "random", 1) is None
    assert run.predictions("", "random", 2) is None
    for split, pairs in run.held_out().items():
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(pairs, held_out[split], strict=True))


def test_a_run_of_an_older_version_has_no_held_out_pairs(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.adopt({"study": STUDY, "cells": [cell(0)], "lines": {}})
    directory.cell("random-0").open(FACTS, 3)
    directory.cell("random-0").append([finished(0)])
    run = read_run(tmp_path)
    assert run.held_out() is None
    assert run.predictions("", "random", 0) is None


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08" + bytes(7) + b'{"a":1} '])
def test_a_damaged_file_of_held_out_pairs_is_named(tmp_path, content):
    (tmp_path / HELD_OUT).write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"held_out.safetensors: cannot be read .*; delete it and run"):
        read_held_out(tmp_path)
