"""The cache of features: keys, shards, kills and faults of the disk."""

import errno
import os

import numpy as np
import pytest

from balbench.harness.datasets import feature_cache
from balbench.harness.datasets.feature_cache import FeatureCache
from balbench.harness.datasets.features import EncoderSettings, text_key
from balbench.harness.datasets.text_encoder import TextEncoder
from balbench.harness.files import cache_directory
from support.encoders import TEXTS, settings, shards, silent
from support.faults import one_line
from support.tiny_models import POSITIONS, save_bert

pytestmark = pytest.mark.usefixtures("cache", "one_thread")


def count_batches(monkeypatch):
    calls = []
    forward = TextEncoder.features
    monkeypatch.setattr(
        TextEncoder,
        "features",
        lambda self, tokens, batch, pooling: calls.append(batch) or forward(self, tokens, batch, pooling),
    )
    return calls


def test_texts_are_encoded_once(bert, monkeypatch):
    calls = count_batches(monkeypatch)
    first = settings(bert).encode(TEXTS + TEXTS[:3], silent)
    assert np.array_equal(first[: len(TEXTS)], settings(bert).encode(TEXTS, silent))
    before = len(calls)
    more = settings(bert).encode([*TEXTS[5:9], ("new", "text")], silent)
    assert len(calls) == before + 1
    assert np.array_equal(more[:4], first[5:9])
    monkeypatch.setattr(TextEncoder, "load", None)
    assert np.array_equal(settings(bert).encode(TEXTS[::-1], silent), first[: len(TEXTS)][::-1])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 11, 30])
def test_a_resumed_run_gives_the_same_bytes(bert, monkeypatch, cache, tmp_path, after):
    undisturbed = settings(bert).encode(TEXTS, silent)
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(feature_cache, "SHARD_TEXTS", 4)

    def kill(what, done, of):
        if what == "encoding texts" and done >= after:
            raise Killed

    with pytest.raises(Killed):
        settings(bert).encode(TEXTS, kill)
    written = len(shards(tmp_path / "other" / "features"))
    assert written > 0
    calls = count_batches(monkeypatch)
    assert settings(bert).encode(TEXTS, silent).tobytes() == undisturbed.tobytes()
    everything = len(calls)
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "third"))
    settings(bert).encode(TEXTS, silent)
    assert everything < len(calls) - everything


@pytest.mark.parametrize("harm", ["cut", "empty", "flip", "rubbish"])
def test_a_broken_shard_is_dropped_and_made_again(bert, monkeypatch, cache, harm):
    monkeypatch.setattr(feature_cache, "SHARD_TEXTS", 4)
    first = settings(bert).encode(TEXTS, silent)
    names = shards(cache)
    data = bytearray(names[2].read_bytes())
    if harm == "cut":
        data = data[:-7]
    elif harm == "empty":
        data = bytearray()
    elif harm == "flip":
        data[-5] ^= 1
    names[2].write_bytes(data)
    if harm == "rubbish":
        (names[2].parent / "notes.safetensors").write_bytes(b"rubbish")
    assert settings(bert).encode(TEXTS, silent).tobytes() == first.tobytes()
    assert shards(cache) == names


def test_what_changes_the_features_changes_the_key(bert, cache, tmp_path):
    changes = [
        {},
        {"pooling": "last_token"},
        {"max_length": 32},
        {"cut": "start"},
        {"template": "{prompt} {response}"},
        {"prompt_template": "{prompt}\n"},
        {"dtype": "bfloat16"},
        {"encoder": str(save_bert(tmp_path / "longer", positions=POSITIONS + 1))},
    ]
    for count, change in enumerate(changes, start=1):
        settings(bert, **change).encode(TEXTS[:2], silent)
        assert len(list(cache.iterdir())) == count
    settings(bert, normalise=True).encode(TEXTS[:2], silent)  # scales the cached features
    settings(bert, batch_tokens=64, device="cpu").encode(TEXTS[:2], silent)
    assert len(list(cache.iterdir())) == len(changes)


def test_the_key_of_an_encoder_follows_the_bytes_of_its_files(bert, tmp_path):
    copy = save_bert(tmp_path / "copy")
    key = EncoderSettings(encoder=str(copy)).encoder_files().key
    assert key == EncoderSettings(encoder=str(bert)).encoder_files().key
    (copy / "README.md").write_text("about the model")
    assert key == EncoderSettings(encoder=str(copy)).encoder_files().key
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert key != EncoderSettings(encoder=str(copy)).encoder_files().key


def test_two_caches_share_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_TEXTS", 2)
    keys = [text_key((str(n), None)) for n in range(6)]
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    one, two = FeatureCache(tmp_path / "shared"), FeatureCache(tmp_path / "shared")
    one.add(keys[:4], values[:4])
    two.add(keys[:4], values[:4])
    two.add(keys[3:], values[3:])
    for each in (one, two, FeatureCache(tmp_path / "shared")):
        assert np.array_equal(each.read(keys[:4][::-1]), values[:4][::-1])
    assert np.array_equal(FeatureCache(tmp_path / "shared").read(keys), values)
    assert not list((tmp_path / "shared").glob(".*"))


def test_a_slow_encoder_writes_by_the_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_SECONDS", -1.0)
    cache = FeatureCache(tmp_path)
    cache.add([text_key(("a", None))], np.ones((1, 2), dtype=np.float32))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_and_a_wrong_directory_are_errors_of_one_line(bert, monkeypatch, tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        one_line(lambda: settings(bert).encode(TEXTS, silent), "No space left", "set BALBENCH_CACHE to another")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "file"))
    one_line(lambda: settings(bert).encode(TEXTS, silent), "cannot be written", "set BALBENCH_CACHE to another")


@pytest.mark.parametrize("work", ["encode", "judge"])
def test_a_cache_that_cannot_be_written_is_known_before_a_model_is_loaded(bert, monkeypatch, tmp_path, work):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(EncoderSettings, "_load", None)
    one_line(lambda: getattr(settings(bert, perplexity=str(bert)), work)(TEXTS, silent), "cannot be written")


def test_the_variable_sets_the_directory_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "here"))
    assert cache_directory() == tmp_path / "here"
    monkeypatch.delenv("BALBENCH_CACHE")
    assert "balbench" in str(cache_directory())


def test_progress_counts_texts(bert):
    calls = []
    settings(bert).encode(TEXTS, lambda *call: calls.append(call))
    for work in ("cutting texts into tokens", "encoding texts"):
        done = [done for what, done, of in calls if what == work and of == len(TEXTS)]
        assert done == sorted(done)
        assert done[-1] == len(TEXTS)
