"""Data sets are built once per machine, and runs do without them."""

import gzip
import io
import json
import os
import shutil
import threading
import time

import pytest
from filelock import FileLock
from rich.console import Console

from balbench.harness.datasets.simulated import Simulated
from balbench.harness.errors import DataError, RunDirectoryError
from balbench.harness.results import RunDirectory
from balbench.harness.running import data_cache
from balbench.harness.running.data_cache import cached_data, older_than, remove
from balbench.harness.running.data_directory import add_lines, prepare
from balbench.harness.running.known_runs import remember
from balbench.harness.running.progress import Display
from balbench.harness.study.study import check_study
from support.studies import TINY, tiny


@pytest.fixture(autouse=True)
def builds(tmp_path, monkeypatch):
    """An empty cache; the data sets that are built."""
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    build, built = Simulated.build, []

    def counted(self, progress):
        built.append(self)
        return build(self, progress)

    monkeypatch.setattr(Simulated, "build", counted)
    return built


def study_of(**changes):
    return check_study(tiny(**changes), "tiny")


def prepared(path, study=None):
    """Prepare the data of a study; return the directory of the arrays, and what was printed."""
    study, directory, printed = study or study_of(), RunDirectory(path), io.StringIO()
    path.mkdir(exist_ok=True)
    directory.adopt(study.header)
    with Display(Console(file=printed, width=200)) as display:
        (data,) = prepare(list(study.cells), directory, display).values()
    add_lines(list(study.cells), directory)
    return data.path, printed.getvalue()


def test_two_runs_use_one_data_set(tmp_path, builds):
    first, second = prepared(tmp_path / "a")[0], prepared(tmp_path / "b")[0]
    assert first == second
    assert len(builds) == 1
    other = prepared(tmp_path / "c", study_of(dataset=TINY["dataset"] | {"data_seed": 1}))[0]
    assert other != first
    assert {entry.path for entry in cached_data()} == {first, other}


def test_a_run_keeps_what_reports_need_without_the_arrays(tmp_path):
    arrays, _ = prepared(tmp_path / "run")
    shutil.rmtree(arrays)
    (kept,) = (tmp_path / "run" / "data").iterdir()
    facts = json.loads((kept / "data.json").read_text())
    assert facts["pairs"] == {"eval": 60, "ood": 120, "pool": 300, "test": 120}
    assert len(json.loads(gzip.decompress((kept / "pair_ids.json.gz").read_bytes()))) == 300
    assert RunDirectory(tmp_path / "run").header["lines"][""] == facts["lines"] != {}
    assert sum(path.stat().st_size for path in kept.iterdir()) < 20_000


def test_a_run_whose_data_are_gone_builds_them_again(tmp_path, builds):
    arrays, _ = prepared(tmp_path / "run")
    whole = {path.name: path.read_bytes() for path in arrays.glob("*.npy")}
    for gone in (arrays, arrays / "pool.response_features_RD.npy"):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        assert prepared(tmp_path / "run")[0] == arrays
        assert {path.name: path.read_bytes() for path in arrays.glob("*.npy")} == whole
    assert len(builds) == 3


def test_a_run_stays_with_the_data_that_it_was_begun_with(tmp_path, builds, monkeypatch):
    arrays, _ = prepared(tmp_path / "run")
    monkeypatch.setattr(data_cache.metadata, "version", lambda name: "99")
    assert prepared(tmp_path / "run")[0] == arrays
    assert prepared(tmp_path / "new")[0] != arrays
    shutil.rmtree(arrays)
    assert prepared(tmp_path / "run")[0] == prepared(tmp_path / "new")[0]
    assert len(builds) == 2


def test_data_that_are_built_again_with_other_pairs_are_refused(tmp_path, monkeypatch):
    arrays, _ = prepared(tmp_path / "run")
    shutil.rmtree(arrays)
    build = Simulated.build
    monkeypatch.setattr(
        Simulated, "build", lambda self, progress: build(self.model_copy(update={"pool_pairs": 299}), progress)
    )
    for _ in range(2):
        with pytest.raises(DataError, match=r"built again with other pairs .*; run the study again"):
            prepared(tmp_path / "run")


def test_one_of_several_processes_builds_and_the_others_wait(tmp_path, builds):
    arrays, _ = prepared(tmp_path / "run")
    shutil.rmtree(arrays)
    held, printed = FileLock(arrays.with_name(f"{arrays.name}.lock")), []
    with held.acquire():
        waiting = threading.Thread(target=lambda: printed.append(prepared(tmp_path / "run")[1]))
        waiting.start()
        time.sleep(0.5)
        assert len(builds) == 1
    waiting.join(timeout=60)
    assert len(builds) == 2
    assert "another run builds the same data set; waiting for it" in printed[0]


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def broken(self, directory):
        (directory / "pool.npy").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("balbench.harness.pool.pairs.PreferenceData.save", broken)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "run")
    assert [path.name for path in (tmp_path / "cache" / "data").iterdir() if path.is_dir()] == []


def test_old_data_sets_are_listed_and_removed(tmp_path):
    arrays, _ = prepared(tmp_path / "run")
    (entry,) = cached_data()
    assert (entry.key, entry.path, entry.facts["pairs"]["pool"]) == (arrays.name, arrays, 300)
    assert entry.size == sum(path.stat().st_size for path in arrays.rglob("*") if path.is_file())
    assert time.time() - entry.last_used < 60
    assert older_than(days=1) == []
    os.utime(arrays / "data.json", (time.time() - 3 * 86400,) * 2)
    (old,) = older_than(days=2)
    prepared(tmp_path / "run")
    assert older_than(days=2) == []  # it was used
    assert remove([old]) == [old]
    assert cached_data() == []


def test_data_of_a_running_study_are_not_removed(tmp_path):
    prepared(tmp_path / "run")
    remember(tmp_path / "run")
    with RunDirectory(tmp_path / "run").lock():
        assert remove(cached_data()) == []
    assert len(remove(cached_data())) == 1


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunDirectoryError, match=r"cannot be written .*set BALBENCH_CACHE to another directory"):
        prepared(tmp_path / "run")
