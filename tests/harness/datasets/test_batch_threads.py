"""Batches on threads: order, number of threads, memory, errors and Ctrl-C."""

import os
import signal
import threading
from contextlib import closing

import numpy as np
import pytest
import torch

from balbench.harness.datasets.batch_threads import AHEAD, batch_threads, compute_batches
from balbench.harness.datasets.features import text_key
from balbench.harness.datasets.text_encoder import Batch, TextEncoder
from support.encoders import TEXTS, settings, silent

pytestmark = pytest.mark.usefixtures("cache")
THREADS = 3
BATCHES = [Batch([number], 1, 16) for number in range(20)]


@pytest.fixture(autouse=True)
def several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(bert) -> TextEncoder:
    return settings(bert, device="cpu").load_encoder()


def number_of(batch):
    return np.array(batch.members)


def test_results_have_the_order_of_the_batches(model):
    later_ones = threading.Event()

    def compute(_, batch):
        if batch is BATCHES[0]:
            assert later_ones.wait(10)
        if batch is BATCHES[2]:
            later_ones.set()
        return number_of(batch)

    results = [*compute_batches(model, compute, BATCHES)]
    assert [batch for batch, _ in results] == BATCHES
    assert np.concatenate([values for _, values in results]).tolist() == [*range(len(BATCHES))]
    assert [*compute_batches(model, compute, [])] == []


def test_each_batch_is_computed_by_one_thread_and_the_number_of_threads_is_restored(model):
    all_begun = threading.Barrier(THREADS)  # passed only when all threads compute at the same time

    def compute(_, batch):
        if batch.members[0] < THREADS:
            all_begun.wait(10)
        return np.array([torch.get_num_threads(), threading.get_ident()])

    threads, idents = np.array([values for _, values in compute_batches(model, compute, BATCHES)]).T
    assert {*threads} == {1}
    assert len({*idents}) == THREADS
    assert torch.get_num_threads() == THREADS


def test_few_batches_are_computed_in_advance(model):
    begun = []
    with closing(compute_batches(model, lambda _, batch: begun.append(batch) or number_of(batch), BATCHES)) as results:
        for taken, _ in enumerate(results, start=1):
            assert len(begun) < taken + AHEAD * THREADS


def test_threads_share_the_weights_and_have_buffers_of_their_own(model):
    replicas = {}

    def compute(replica, batch):
        replicas[id(replica)] = replica
        return number_of(batch)

    list(compute_batches(model, compute, BATCHES))
    for replica in replicas.values():
        assert [*map(id, replica.model.parameters())] == [*map(id, model.model.parameters())]
        assert not {*map(id, replica.model.buffers())} & {*map(id, model.model.buffers())}


def test_an_accelerator_computes_one_batch_after_another(model, monkeypatch):
    monkeypatch.setattr(TextEncoder, "device_type", "cuda")
    assert batch_threads(model) == 1
    calls = []
    results = compute_batches(model, lambda same, batch: calls.append(same) or number_of(batch), BATCHES)
    for taken, _ in enumerate(results, start=1):
        assert calls == [model] * taken


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_after_the_results_before_it_and_ends_the_work(model, error):
    begun = []

    def compute(_, batch):
        begun.append(batch)
        if batch is BATCHES[4]:
            raise error
        return number_of(batch)

    results, numbers = compute_batches(model, compute, BATCHES), []
    with pytest.raises(error):
        numbers.extend(values.item() for _, values in results)
    assert numbers == [0, 1, 2, 3]
    assert len(begun) <= 4 + AHEAD * THREADS
    assert torch.get_num_threads() == THREADS
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("balbench-batches")]


def test_texts_encoded_before_ctrl_c_are_kept(bert, monkeypatch):
    calls, encode = [], TextEncoder.features

    def interrupted(self, tokens, batch, pooling):
        calls.append(batch)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGINT)
        return encode(self, tokens, batch, pooling)

    done = []
    monkeypatch.setattr(TextEncoder, "features", interrupted)
    with pytest.raises(KeyboardInterrupt):
        settings(bert).encode(TEXTS, lambda work, number, _: done.append(number) if work == "encoding texts" else None)
    cache = settings(bert).feature_cache()
    assert 0 < done[-1] <= sum(text_key(text) in cache for text in TEXTS) < len(TEXTS)
    assert len(settings(bert).encode(TEXTS, silent)) == len(TEXTS)


def test_cached_texts_count_as_done_from_the_start(bert):
    settings(bert).encode(TEXTS, silent)
    calls = []
    settings(bert).encode([*TEXTS, ("new", None)], lambda *call: calls.append(call))
    encoding = [done for work, done, _ in calls if work == "encoding texts"]
    assert encoding[-1] == len(TEXTS) + 1
    assert encoding[0] >= len(TEXTS) // 2
