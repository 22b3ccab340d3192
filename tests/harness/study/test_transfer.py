"""A transfer has a cell for each finished cell of its source, with the recorded batches and another posterior."""

import json
import shutil

import numpy as np
import pytest

import balbench
from balbench.harness.errors import RunDirectoryError, StudyError
from balbench.harness.results import RunDirectory
from balbench.harness.results.records import StudyHeader
from balbench.harness.running import engines
from balbench.harness.study.transfer import load_transfer
from support.engines import InProcess
from support.studies import tiny

STUDY = tiny(policies=["random", "bald", {"name": "variance", "posterior": "laplace"}])


@pytest.fixture(autouse=True, scope="module")
def engine():
    """An engine that starts no processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "make_engine", lambda *arguments: InProcess())
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run of three policies, one of them with its own posterior, and of the full data."""
    path = tmp_path_factory.mktemp("transfer") / "run"
    balbench.run_study(STUDY, path, progress=False)
    return RunDirectory(path)


@pytest.fixture
def own(source, tmp_path):
    """A copy of the run that a test may damage."""

    shutil.copytree(source.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def rounds_of(directory, policy, seed):
    cell = next(each for each in directory.header["cells"] if (each["policy"], each["seed"]) == (policy, seed))
    return directory.cell(cell["directory"]).rounds()


def test_cells_repeat_the_recorded_batches_with_another_posterior(source):
    study = load_transfer(source, ["bayesian_linear"])
    assert [cell.title for cell in study.cells] == [
        f"{policy}, seed {seed}" for policy in ("random", "bald", "variance", "full data") for seed in (0, 1)
    ]
    for cell in study.cells:
        assert type(cell.posterior).__name__ == "BayesianLinear"
        if cell.label != "full data":
            acquired = [tuple(record["acquired"]) for record in rounds_of(source, cell.label, cell.seed)]
            assert list(cell.policy.batches) == acquired
    assert study.bought_with == ("ensemble", "laplace")
    assert study.notes == ()


def test_the_title_and_the_settings_say_who_bought_and_who_learns(source):
    header: StudyHeader = load_transfer(source, ["bayesian_linear"]).header
    assert header["study"]["name"] == "tiny: labels bought with ensemble, laplace, learnt by bayesian_linear"
    assert header["study"]["posterior"] == {"name": "bayesian_linear"}
    settings = {cell["policy"]: cell["settings"] for cell in header["cells"]}
    assert settings["bald"] == {"name": "bald", "bought_with": "ensemble"}
    assert settings["variance"] == {"name": "variance", "bought_with": "laplace"}
    assert json.loads(json.dumps(header)) == header


def test_several_successors_are_settings(source):
    settings = {cell.setting for cell in load_transfer(source, ["laplace", {"name": "bayesian_linear"}]).cells}
    assert settings == {"learnt_by=laplace", "learnt_by=bayesian_linear"}
    ensembles = [{"name": "ensemble", "members": members} for members in (2, 3)]
    settings = {cell.setting for cell in load_transfer(source, ensembles).cells}
    assert settings == {"learnt_by=ensemble (members 2)", "learnt_by=ensemble (members 3)"}


def test_settings_that_name_a_posterior_name_the_buyer(tmp_path):
    posteriors = {"ensemble": STUDY["posterior"], "linear": "bayesian_linear"}
    study = {key: value for key, value in STUDY.items() if key != "posterior"} | {"policies": ["random", "bald"]}
    balbench.run_study(study | {"posteriors": posteriors, "full_data": False}, tmp_path, seeds=1, progress=False)
    transfer = load_transfer(RunDirectory(tmp_path), ["laplace"])
    assert {cell.setting for cell in transfer.cells} == {"bought_with=ensemble", "bought_with=linear"}
    buyers = {cell.setting: cell.policy.buyer["bought_with"] for cell in transfer.cells}
    assert buyers == {"bought_with=ensemble": "ensemble", "bought_with=linear": "bayesian_linear"}
    assert transfer.header["study"]["posterior"] == {"name": "laplace"}


def test_the_posterior_of_a_setting_is_not_that_of_a_policy(tmp_path):
    policies = ["random", {"name": "variance", "posterior": "laplace"}]
    balbench.run_study(STUDY | {"policies": policies, "full_data": False}, tmp_path, seeds=1, progress=False)
    transfer = load_transfer(RunDirectory(tmp_path), ["bayesian_linear"])
    assert {cell.label: cell.policy.buyer["bought_with"] for cell in transfer.cells} == {
        "random": "ensemble",
        "variance": "laplace",
    }


def test_keys_depend_on_recording_posterior_and_seed_only(source, own):
    keys = [cell.key for cell in load_transfer(source, ["laplace"]).cells]
    assert len(set(keys)) == len(keys)
    assert [cell.key for cell in load_transfer(own, ["laplace"]).cells] == keys  # the same run in another place
    assert not set(keys) & {cell.key for cell in load_transfer(source, ["bayesian_linear"]).cells}
    first = own.header["cells"][0]
    log = own.cell(first["directory"])
    path = log.directory / "rounds.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[0])
    record["acquired"] = record["acquired"][::-1]
    path.write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
    log.finish({})
    changed = [cell.key for cell in load_transfer(own, ["laplace"]).cells]
    assert changed[0] != keys[0]
    assert changed[1:] == keys[1:]


def test_unfinished_cells_are_left_out_with_a_line_each(own):
    cells = own.header["cells"]
    (own.path / "cells" / cells[0]["directory"] / "manifest.json").unlink()
    for path in (own.path / "cells" / cells[3]["directory"]).iterdir():
        path.unlink()
    study = load_transfer(own, ["laplace"])
    assert study.notes == (
        "left out: random, seed 0: not finished (4 of 4 rounds)",
        "left out: bald, seed 1: not finished (0 of 4 rounds)",
    )
    assert len(study.cells) == len(cells) - 2
    for cell in cells:
        (own.path / "cells" / cell["directory"] / "manifest.json").unlink(missing_ok=True)
    with pytest.raises(RunDirectoryError, match="no cell of a policy is finished; finish the run first"):
        load_transfer(own, ["laplace"])


def test_directories_without_labels_are_refused(source, tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run"):
        load_transfer(RunDirectory(tmp_path / "none"), ["laplace"])
    done = balbench.transfer(source.path, "laplace", tmp_path / "done", progress=False)
    with pytest.raises(RunDirectoryError, match="is a transfer itself"):
        load_transfer(RunDirectory(done.path), ["laplace"])


@pytest.mark.parametrize(
    ("posteriors", "message"),
    [
        (["laplac"], "^posterior: no 'laplac'; did you mean 'laplace'"),
        ([{"name": "ensemble", "memers": 3}], r"^posterior\.memers: unknown key; did you mean 'members'"),
        (["laplace", "laplace"], "^posterior: one occurs twice"),
        ([], "^posterior: none is given"),
        ([3], "^posterior: must be a name, or a mapping"),
    ],
)
def test_wrong_posteriors_are_named(source, posteriors, message):
    with pytest.raises(StudyError, match=message) as error:
        load_transfer(source, posteriors)
    assert error.value.setting == "posterior"


def test_recorded_batches_have_no_scores(source):
    cell = load_transfer(source, ["laplace"]).cells[0]

    class View:
        round = 1

    selection = cell.policy.select(View(), 10, None)
    assert selection.pairs_B.tolist() == rounds_of(source, "random", 0)[1]["acquired"]
    assert np.isnan(selection.scores_B).all()


def test_labels_are_bought_with_the_posterior_of_their_setting(tmp_path):
    posteriors = {"heads": STUDY["posterior"], "linear": "bayesian_linear"}
    changes = {"policies": ["random"], "full_data": False, "seeds": 1}
    study = balbench.load_study(tiny(posterior=None, posteriors=posteriors, **changes))
    balbench.run_study(study, tmp_path / "run", progress=False)
    transfer = load_transfer(RunDirectory(tmp_path / "run"), ["laplace"])
    assert transfer.bought_with == ("ensemble", "bayesian_linear")
    assert [cell.policy.buyer["bought_with"] for cell in transfer.cells] == ["ensemble", "bayesian_linear"]
    assert {type(cell.posterior).__name__ for cell in transfer.cells} == {"Laplace"}
