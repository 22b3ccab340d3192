"""Processes of this machine: one a slot, each with its device, replaced when it dies."""

import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from balbench.harness.results import RunDirectory
from balbench.harness.rounds.task import Past, Task
from balbench.harness.running.data_directory import prepare_data
from balbench.harness.running.engine import WorkerDied
from balbench.harness.running.local_engine import LocalEngine
from balbench.harness.running.progress import Display
from balbench.harness.study.study import check_study
from support.policies import Mortal
from support.studies import tiny


@pytest.fixture
def engine_on():
    engines = []

    def make(*devices):
        engines.append(LocalEngine(devices))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    cell = check_study(tiny(), "tiny").cells[0]
    directory = RunDirectory(tmp_path_factory.mktemp("run"))
    path = prepare_data(cell, directory, Display(Console(quiet=True))).path
    past = Past(0, np.empty(0, dtype=np.int64))
    return Task((cell,), (past,), cell.dataset_key, path, seconds=0.0)


@pytest.mark.parametrize(("outer", "expected"), [("", ["0", "2"]), ("5,GPU-ab,7", ["5", "7"])])
def test_a_process_sees_its_own_gpu_alone(engine_on, monkeypatch, outer, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outer)
    engine = engine_on("cuda:0", "cuda:2")
    assert engine.slots == 2
    assert engine.location == "cuda:0, cuda:2"
    assert [slot.device for slot in engine._all] == ["cuda:0", "cuda:0"]
    actual = [slot.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() for slot in engine._all]
    assert actual == expected


def test_a_process_has_one_thread(engine_on):
    engine = engine_on("cpu")
    assert engine.free_bytes() is None
    assert engine._all[0].submit(torch.get_num_threads).result() == 1
    assert engine._all[0].submit(os.getenv, "OMP_NUM_THREADS").result() == "1"


def test_a_task_returns_its_rounds(engine_on, task):
    report = engine_on("cpu").submit(task).result()
    assert [(key, done.record["round"]) for key, done in report.rounds] == [(task.cells[0].directory, 0)]
    assert report.device == "cpu"
    assert report.facts["torch"] == torch.__version__


def test_a_dead_worker_is_reported_and_replaced(engine_on, task, monkeypatch):
    monkeypatch.setenv("BALBENCH_TEST_DIE", "always")
    engine, (cell,) = engine_on("cpu"), task.cells
    with pytest.raises(WorkerDied):
        engine.submit(replace(task, cells=(replace(cell, policy=Mortal()),))).result()
    assert engine.submit(task).result().rounds


def test_a_worker_killed_while_it_waits_is_replaced(engine_on, task):
    engine = engine_on("cpu")
    pid = engine._all[0].submit(os.getpid).result()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while engine._all[0].executor._flags.broken is None:  # sooner, the task is lost as any other
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert engine.submit(task).result().rounds


def test_a_slot_that_has_the_data_is_preferred(engine_on, task):
    engine = engine_on("cpu", "cpu")
    engine.submit(task).result()
    engine.submit(task).result()
    assert sum(slot.executor is not None for slot in engine._all) == 1


def test_a_task_just_handed_over_can_be_ended(monkeypatch):
    """As on Ctrl-C: the threads of loky would not find a task again that they had not picked up yet."""
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    slot = LocalEngine(["cpu"])._all[0]
    for _ in range(3):
        assert slot.submit(os.getpid).result()
        future = slot.submit(time.sleep, 60)
        slot.end(wait=True)
        assert future.exception() is not None
    assert not errors
