"""The Dask cluster: the same bytes as here, whatever dies."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from rich.console import Console

from balbench.harness import registry
from balbench.harness.errors import StudyError
from balbench.harness.results import RunDirectory
from balbench.harness.running import dask_data, dask_engine
from balbench.harness.running.dask_engine import cluster_engine
from balbench.harness.running.local_engine import LocalEngine
from balbench.harness.running.placement import Placement
from balbench.harness.running.progress import Display
from balbench.harness.running.scheduler import Scheduler
from balbench.harness.study.study import check_study
from support.cluster import ROOT, DaskCluster, kill, kill_tree, wait_for
from support.command import run_here, start
from support.policies import Leaving, Mortal
from support.studies import bytes_of, tiny, write_study

STUDY = {"protocol": {"initial": 10, "batch": 10, "rounds": 12}, "policies": ["random", "bal_pm"]}
RESULTS = ("rounds.jsonl", "predictions.f16", "manifest.json")


class Watch(Display):
    """A display that acts once, when the first rounds have come back."""

    def __init__(self, printed, action):
        super().__init__(Console(file=printed, width=200))
        self._action = action

    def cells(self, states, slots):
        states = list(states)
        super().cells(states, slots)
        if self._action and any(state.rounds_done for state in states):
            assert any(state.rounds_done < state.rounds for state in states), "too late to disturb anything"
            action, self._action = self._action, None
            action()


def schedule(path, make_engine, action=None, **changes):
    """Run the study; return the bytes of its results, its outcome and what was printed."""
    study = check_study(tiny(**STUDY | changes), "tiny")
    directory, printed = RunDirectory(path), io.StringIO()
    path.mkdir(exist_ok=True)
    directory.adopt(study.header)
    with Watch(printed, action) as display:
        outcome = Scheduler(study, directory, Placement(), lambda: make_engine(path, display.say), display).run()
        assert display._action is None, "nothing was disturbed"
    return bytes_of(path, *RESULTS), outcome, printed.getvalue()


def on(address, **options):
    """Make an engine on a cluster."""

    def make(path, say):
        engine = cluster_engine(address, "cpu", path, say)
        for name, value in options.items():
            setattr(engine, name, value)
        return engine

    return make


def heed_interrupts():
    """Where tests run in the background, a shell has made its children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with DaskCluster(tmp_path_factory.mktemp("dask"), workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The results of a run on this machine."""
    results, outcome, _ = schedule(tmp_path_factory.mktemp("quiet") / "run", lambda *_: LocalEngine(["cpu"]))
    assert not outcome.failed
    return results


@pytest.mark.parametrize(
    "address",
    ["local", "local:0", "local:x", "tcp://host", "tcp://host:0", "tcp://:8786", "http://host:80", "host:8786"],
)
def test_addresses_of_no_known_form(tmp_path, address):
    with pytest.raises(StudyError, match=f"cluster {address}: must be tcp://host:port, tls://host:port or local:N"):
        cluster_engine(address, "cpu", tmp_path)


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(dask_engine, "CONNECT_SECONDS", 1)
    with pytest.raises(StudyError, match=r"cluster tcp://127.0.0.1:1: no scheduler answers .*start `dask scheduler`"):
        cluster_engine("tcp://127.0.0.1:1", "cpu", tmp_path)


@pytest.mark.parametrize("words", [b"", b"HTTP/1.0 400 Bad request\r\n\r\n"])
def test_another_service_answers(tmp_path, monkeypatch, words):
    """One that says nothing, and one that says what Dask cannot read."""
    monkeypatch.setattr(dask_engine, "CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    connections[-1].sendall(words)

        connections = []
        threading.Thread(target=serve, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(StudyError, match=f"cluster {address}: no scheduler answers there"):
            cluster_engine(address, "cpu", tmp_path)
    for connection in connections:
        connection.close()


def test_tls_without_certificates(tmp_path):
    with pytest.raises(StudyError, match=r"cluster tls://127.0.0.1:1: needs certificates"):
        cluster_engine("tls://127.0.0.1:1", "cpu", tmp_path)


@pytest.mark.slow
def test_a_worker_answers(cluster, tmp_path):
    (worker, *_) = cluster.pids()
    with pytest.raises(StudyError, match=f"cluster {worker}: a Dask worker answers there; give the scheduler's"):
        cluster_engine(worker, "cpu", tmp_path)


def test_the_extra_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(StudyError, match=r"pip install 'balbench\[cluster\]'"):
        cluster_engine("local:1", "cpu", tmp_path)


@pytest.mark.slow
def test_a_cluster_of_this_machine_gives_the_same_bytes_and_leaves_no_process(quiet, tmp_path):
    import psutil

    before = set(psutil.Process().children(recursive=True))
    results, outcome, printed = schedule(tmp_path / "run", on("local:2"))
    assert (results, outcome.failed) == (quiet, {})
    assert "on 2 processes (local:2)" in printed
    left = [child for child in set(psutil.Process().children(recursive=True)) - before if "python" in child.name()]
    assert not [child for child in left if "resource_tracker" not in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_local_cluster(quiet, tmp_path, number):
    """As Ctrl-C in a terminal, or a batch system, sends it."""
    process = start(
        "run",
        write_study(tmp_path, **STUDY, seeds=6),
        "--out",
        tmp_path / "run",
        "--cluster",
        "local:2",
        preexec_fn=heed_interrupts,
    )
    wait_for(lambda: list(tmp_path.glob("run/cells/*/rounds.jsonl")))
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "of 150 rounds are kept in" in err
    assert "Traceback" not in err
    assert "died" not in err


@pytest.mark.slow
def test_a_worker_killed_under_its_nanny(cluster, quiet, tmp_path):
    def kill_one():
        kill(next(iter(cluster.pids().values())))

    results, outcome, _ = schedule(tmp_path / "run", on(cluster.address), kill_one)
    assert (results, outcome.failed) == (quiet, {})


@pytest.mark.slow
def test_a_worker_killed_with_its_nanny_and_another_that_joins(cluster, quiet, tmp_path):
    engines = []

    def make(path, say):
        engines.append(on(cluster.address)(path, say))
        return engines[0]

    def kill_one():
        slots.append(engines[0].slots)
        kill_tree(cluster.workers.pop())
        wait_for(lambda: len(cluster.pids()) == 1)
        wait_for(lambda: engines[0].slots == 1)
        cluster.workers.append(cluster.add_worker())
        wait_for(lambda: engines[0].slots == 2)

    wait_for(lambda: len(cluster.pids()) == 2)
    slots = []
    results, outcome, _ = schedule(tmp_path / "run", make, kill_one)
    assert (results, outcome.failed, slots) == (quiet, {}, [2])


def hidden(folder: Path) -> tuple[object, ...]:
    """Return the start of a command without access to the files of a folder."""
    new = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    prefix = (*new, "sh", "-c", f'mount -t tmpfs none "{folder}" && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("cannot hide a directory from a process here")
    return prefix


@pytest.mark.slow
def test_data_are_sent_to_workers_that_cannot_see_them(quiet, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_data, "CHUNK_BYTES", 1000)
    run, own_cache, cache = tmp_path / "run", tmp_path / "hidden" / "cache", tmp_path / "cache"
    own_cache.mkdir(parents=True)
    monkeypatch.setenv("BALBENCH_CACHE", str(own_cache))
    with DaskCluster(tmp_path / "dask") as cluster:
        for _ in range(2):
            worker = cluster.add_worker(prefix=hidden(own_cache.parent), environment={"BALBENCH_CACHE": str(cache)})
            cluster.workers.append(worker)
        results, outcome, printed = schedule(run, on(cluster.address))
        assert (results, outcome.failed) == (quiet, {})
        assert printed.count("sending the data set") == 1  # the workers share a disk
        (kept,), (original,) = (
            (cache / "data").iterdir(),
            (path for path in (own_cache / "data").iterdir() if path.is_dir()),
        )
        assert all(
            (kept / path.name).read_bytes() == path.read_bytes() for path in original.iterdir() if path.is_file()
        )
        shutil.rmtree(run / "cells")
        results, _, printed = schedule(run, on(cluster.address))
        assert results == quiet
        assert "sending" not in printed


@pytest.mark.slow
def test_data_that_are_sent_to_each_worker(cluster, quiet, tmp_path):
    """As the test before, on machines that cannot hide a directory."""
    with DaskCluster(tmp_path / "dask") as cluster:
        for number in (1, 2):
            environment = {"BALBENCH_CACHE": str(tmp_path / f"cache{number}")}
            cluster.workers.append(cluster.add_worker(environment=environment))
        results, outcome, printed = schedule(tmp_path / "run", on(cluster.address, _trust_paths=False))
    assert (results, outcome.failed) == (quiet, {})
    assert printed.count("sending the data set") == 2


def test_a_worker_with_other_code_is_refused(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "code")  # follows the links to the four folders
    with (tmp_path / "code" / "balbench" / "oracles" / "clock.py").open("a") as file:
        file.write("# changed\n")
    with DaskCluster(tmp_path / "dask") as cluster:
        cluster.workers.append(cluster.add_worker(environment={"PYTHONPATH": str(tmp_path / "code")}))
        with pytest.raises(StudyError, match=r"the worker at tcp://.* has other code of balbench than this machine"):
            schedule(tmp_path / "run", on(cluster.address))


def test_a_scheduler_without_balbench_is_refused(tmp_path):
    """Its Python finds a package of the same name that is not ours."""
    (tmp_path / "code" / "balbench").mkdir(parents=True)
    (tmp_path / "code" / "balbench" / "__init__.py").write_text("raise ImportError('another package')\n")
    with DaskCluster(tmp_path / "dask", environment={"PYTHONPATH": str(tmp_path / "code")}) as cluster:
        cluster.workers.append(cluster.add_worker(environment={"PYTHONPATH": str(tmp_path / "code")}))
        with pytest.raises(StudyError, match="has other code of balbench than this machine"):
            schedule(tmp_path / "run", on(cluster.address))


def test_other_libraries_are_named_once(cluster, tmp_path):
    versions = dask_engine.versions() | {"torch": "2.0.0"}
    _, outcome, printed = schedule(tmp_path / "run", on(cluster.address, _versions=versions), policies=["random"])
    assert not outcome.failed
    assert printed.count("warning:") == 1
    assert f"has torch {torch.__version__.partition('+')[0]}, this machine torch 2.0.0" in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_workers_with_and_without_a_gpu(cluster, tmp_path):
    engine = cluster_engine(cluster.address, "cpu", tmp_path)
    assert (engine.slots, engine.free_bytes()) == (2, None)
    engine.close()
    with DaskCluster(tmp_path / "dask", workers=1) as other:
        other.workers.append(other.add_worker("--resources", "GPU=2"))
        engine = cluster_engine(other.address, "cuda", tmp_path)
        assert engine.slots == 2
        with pytest.raises(StudyError, match="a worker with GPU=1 cannot use a GPU"):
            engine.free_bytes()
        engine.close()


def test_a_cluster_that_has_no_worker_yet(tmp_path, monkeypatch):
    printed = []

    def say(line):
        printed.append(line)
        cluster.workers.append(cluster.add_worker())

    with DaskCluster(tmp_path / "dask") as cluster:
        engine = cluster_engine(cluster.address, "cpu", tmp_path, say)
        assert engine.slots == 1
        engine.close()
    assert printed == [f"the cluster at {cluster.address} has no worker yet; waiting for one"]


@pytest.mark.slow
def test_a_cell_that_kills_its_workers_fails_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._registered, "policies", {"test_mortal": Mortal})
    environment = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with DaskCluster(tmp_path / "dask", environment=environment) as cluster:
        cluster.workers.append(cluster.add_worker(environment={"BALBENCH_TEST_DIE": "always"}))
        policies = ["random", {"name": "test_mortal"}]
        _, outcome, printed = schedule(tmp_path / "run", on(cluster.address), policies=policies, seeds=[3])
    assert list(outcome.failed) == ["test_mortal, seed 3"]
    assert "its worker died 3 times" in outcome.failed["test_mortal, seed 3"]
    assert "the worker of test_mortal, seed 3 died; continuing from round 0" in printed


@pytest.mark.slow
def test_check_asks_the_cluster(cluster, tmp_path, monkeypatch, capsys):
    def checked(*flags):
        return run_here(monkeypatch, capsys, "check", write_study(tmp_path), "--cluster", *flags)

    _, out, _ = checked(cluster.address)
    assert f"on 2 processes ({cluster.address})\n" in out
    assert "GiB of features on each machine, and 0.4 GiB a worker" in out
    _, out, _ = checked(cluster.address, "--device", "cuda")
    assert f"on 1 process ({cluster.address}); it has no worker yet" in out
    assert ("time: unknown" in out) == (not torch.cuda.is_available())
    _, out, _ = checked("local:3")
    assert "on 3 processes (local:3)\n" in out
    monkeypatch.setattr(dask_engine, "CONNECT_SECONDS", 1)
    code, _, err = checked("tcp://127.0.0.1:1")
    assert (code, err.count("\n")) == (2, 1)
    assert "no scheduler answers there" in err


@pytest.mark.slow
def test_a_cell_that_ends_python_fails_alone_and_no_worker_with_it(cluster, tmp_path, monkeypatch):
    monkeypatch.setitem(registry._registered, "policies", {"test_leaving": Leaving})
    policies = ["random", {"name": "test_leaving"}]
    _, outcome, printed = schedule(tmp_path / "run", on(cluster.address), policies=policies, seeds=[3])
    assert outcome.failed == {"test_leaving, seed 3": "SystemExit: 3"}
    assert "died" not in printed


@pytest.mark.slow
def test_the_scheduler_is_killed(quiet, tmp_path):
    study = write_study(tmp_path, **STUDY)
    with DaskCluster(tmp_path / "first", workers=2) as cluster:
        process = start("run", study, "--out", tmp_path / "run", "--cluster", cluster.address)
        wait_for(lambda: list(tmp_path.glob("run/cells/*/rounds.jsonl")))
        kill(cluster.scheduler.pid)
        _, err = process.communicate(timeout=60)
    last = err.splitlines()[-1]
    assert process.returncode == 2, err
    assert last.startswith(f"balbench: the cluster at {cluster.address} is gone; ")
    assert last.endswith(f" of 50 rounds are kept in {tmp_path / 'run'}; run the same command to resume")
    assert not [word for word in ("Traceback", "Error", "distributed", "tornado") if word in err], err
    with DaskCluster(tmp_path / "second", workers=2) as cluster:
        results, outcome, _ = schedule(tmp_path / "run", on(cluster.address))
    assert (results, outcome.failed) == (quiet, {})


@pytest.mark.slow
def test_the_coordinator_is_killed_and_the_cluster_lives_on(cluster, quiet, tmp_path):
    study = write_study(tmp_path, **STUDY)
    process = start("run", study, "--out", tmp_path / "run", "--cluster", cluster.address)
    wait_for(lambda: list(tmp_path.glob("run/cells/*/rounds.jsonl")))
    kill(process.pid)
    process.communicate()
    assert len(list(tmp_path.glob("run/cells/*/manifest.json"))) < 6
    results, outcome, _ = schedule(tmp_path / "run", on(cluster.address))
    assert (results, outcome.failed) == (quiet, {})
