"""The run directory: one study, one run at a time, and all that was ever asked for."""

import pytest

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results import RunDirectory
from balbench.harness.results.records import FinishedRound
from balbench.harness.study.study import check_study
from support.studies import TINY, tiny


def header(**changes):
    return check_study(tiny(**{"policies": ["random", "bald"]} | changes), "t").header


def started(directory, name="random-seed0-0"):
    """Let a directory have a round, so that its study counts."""
    log = directory.cell(name)
    log.open({"key": "k", "sources": {}, "code": ""}, 3)
    record = {"round": 0, "labels": 5, "metrics": {"test": {"accuracy": 0.5}}, "acquired": [1, 2]}
    log.append([FinishedRound(record, {"round": 0, "seconds": {"fit": 0.1}})])


def adopted(path, *headers):
    """The directory after runs of several studies, and the lines of the last one."""
    directory = RunDirectory(path)
    for number, each in enumerate(headers):
        notes = directory.adopt(each)
        if number == 0:
            started(directory)
    return directory.header, notes


def places(header):
    return [(cell["policy"], cell["seed"], cell["rounds"]) for cell in header["cells"]]


def test_one_run_at_a_time(tmp_path):
    lock = RunDirectory(tmp_path).lock()
    with pytest.raises(RunDirectoryError, match="another run uses this directory"):
        RunDirectory(tmp_path).lock()
    lock.release()
    RunDirectory(tmp_path).lock().release()


def test_a_lost_study_file_can_be_written_again(tmp_path):
    started(RunDirectory(tmp_path))
    RunDirectory(tmp_path).adopt(header())
    assert RunDirectory(tmp_path).header["study"] == header()["study"]


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_is_no_place_for_a_run(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file, not a directory; give another directory"):
        RunDirectory(tmp_path / "file" / inside).lock()


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunDirectoryError, match=r"not a run directory .it holds thesis.tex"):
        RunDirectory(tmp_path).adopt(header())


def test_a_study_may_be_corrected_until_there_are_rounds(tmp_path):
    directory = RunDirectory(tmp_path)
    for each in (header(), header(posterior="laplace")):
        directory.adopt(each)
        assert directory.header == each
    started(directory)
    with pytest.raises(RunDirectoryError, match="has a study with another posterior; give another dir") as error:
        directory.adopt(header())
    assert error.value.setting == "out"


def test_a_key_that_an_earlier_version_lacks_is_no_difference_unless_it_has_a_value(tmp_path):
    before = header()
    del before["study"]["posteriors"]
    assert adopted(tmp_path, before, header())[0] == header()
    several = header(posterior=None, posteriors={"heads": TINY["posterior"]})
    with pytest.raises(RunDirectoryError, match="has a study with another posterior"):
        RunDirectory(tmp_path).adopt(several)


@pytest.mark.parametrize("key", ["initial", "batch"])
def test_another_protocol_is_another_study(tmp_path, key):
    with pytest.raises(RunDirectoryError, match=f"has a study with another protocol.{key}"):
        adopted(tmp_path, header(), header(protocol=TINY["protocol"] | {key: 7}))


def test_fewer_seeds_policies_or_rounds_remove_nothing(tmp_path):
    whole = header(seeds=3)
    fewer = header(seeds=2, policies=["random"], protocol=TINY["protocol"] | {"rounds": 2}, full_data=False)
    kept, notes = adopted(tmp_path, whole, fewer)
    assert sorted(places(kept)) == sorted(places(whole))
    assert kept["study"]["seeds"] == [0, 1, 2]
    assert [policy["name"] for policy in kept["study"]["policies"]] == ["random", "bald"]
    assert kept["study"]["protocol"]["rounds"] == 4
    assert kept["study"]["full_data"] is True
    assert notes == []
    others = RunDirectory(tmp_path).others(fewer)
    assert len(others) == len(whole["cells"]) - 2
    assert RunDirectory(tmp_path).others_line(fewer) == (
        f"{tmp_path} also has 7 cells of earlier runs (seeds 2; policies bald, full data); a report of the whole "
        "directory includes them"
    )
    assert RunDirectory(tmp_path).others_line(whole) == ""
    assert adopted(tmp_path, whole)[0] == whole


def test_more_seeds_policies_or_rounds_are_added(tmp_path):
    more = header(seeds=5, policies=["random", "bald", "epig"], protocol=TINY["protocol"] | {"rounds": 9})
    assert adopted(tmp_path, header(), more)[0] == more


def test_seeds_of_the_reference_are_added_to_an_earlier_directory_and_stay(tmp_path):
    before = header(seeds=2)
    del before["study"]["reference_seeds"]  # as in a directory of an earlier version
    more = header(seeds=2, reference_seeds=4)
    kept, notes = adopted(tmp_path, before, more)
    assert (kept, notes) == (more, [])
    few, directory = header(seeds=[0], policies=["random"]), RunDirectory(tmp_path)
    assert adopted(tmp_path, few)[0]["study"]["reference_seeds"] == [0, 1, 2, 3]
    assert directory.header["study"]["seeds"] == [0, 1]
    assert "6 cells of earlier runs (seeds 1 to 3; policies bald)" in directory.others_line(few)


def test_a_seed_that_only_the_reference_has_is_an_earlier_seed_of_a_policy(tmp_path):
    adopted(tmp_path, header(seeds=4))
    assert "(seeds 2, 3)" in RunDirectory(tmp_path).others_line(header(seeds=2, reference_seeds=4))


def test_a_new_label_is_the_label_of_all_cells_of_the_policy(tmp_path):
    renamed = header(seeds=1, policies=[{"name": "random", "label": "Uniform"}, "bald"], reference="random")
    kept, notes = adopted(tmp_path, header(seeds=3), renamed)
    assert {cell["policy"] for cell in kept["cells"]} == {"Uniform", "bald", "full data"}
    assert len(kept["cells"]) == 9
    assert kept["study"]["reference"] == "Uniform"
    assert notes == []


def test_a_label_that_names_another_policy_drops_the_earlier_cells(tmp_path):
    before, now = (header(policies=["random", {"name": "power_bald", "beta": beta}]) for beta in (1, 2))
    kept, notes = adopted(tmp_path, before, now)
    assert kept == now
    assert notes == [
        f"{tmp_path}: the policy power_bald changed (its settings or its version) since the last run; 2 earlier cells "
        "stay on disk and leave the reports"
    ]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("dataset", "the data changed (a data file, or the code of the data set)"),
        ("setting", "the code of the oracle, the posterior or the loop changed"),
    ],
)
def test_cells_of_other_data_or_code_never_meet_in_a_report(tmp_path, key, why):
    before, now = header(seeds=3), header(seeds=1, policies=["random"], full_data=False)
    for cell in before["cells"]:
        cell["keys"] = cell["keys"] | {key: "other"}
    kept, notes = adopted(tmp_path, before, now)
    assert kept["cells"] == now["cells"]
    assert notes == [f"{tmp_path}: {why} since the last run; 9 earlier cells stay on disk and leave the reports"]
    assert kept["study"]["policies"] == now["study"]["policies"]
