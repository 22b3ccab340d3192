"""The time of encoding by a short probe."""

import pytest

from balbench.harness.datasets import encoding_probe
from balbench.harness.datasets.encoding_probe import encoding_seconds, sample, texts_to_encode
from balbench.harness.datasets.features import EncoderSettings
from support.tiny_models import POSITIONS, save_bert


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    return EncoderSettings(encoder=str(save_bert(tmp_path / "bert")), max_length=POSITIONS)


def test_the_time_of_encoding_grows_with_the_number_of_texts(settings, monkeypatch):
    monkeypatch.setattr(encoding_probe, "PROBE_SECONDS", 0.0)
    tokens = settings.tokenise([("question", "answer" * (n % 5 + 1)) for n in range(50)], lambda *_: None)
    ticks = iter(float(n) for n in range(100))
    monkeypatch.setattr(encoding_probe.time, "perf_counter", lambda: next(ticks))
    few, many = (encoding_seconds(settings, tokens, count) for count in (50, 500))
    assert many == pytest.approx(10 * few)
    assert few > 0


def test_a_sample_is_spread_evenly():
    assert sample(0, 5) == []
    assert sample(4, 5) == [0, 1, 2, 3]
    assert sample(101, 5) == [0, 25, 50, 75, 100]


def test_texts_to_encode_are_distinct_and_not_in_the_cache(settings):
    texts = [("a", "b"), ("a", None), ("a", "b"), ("c", "d")]
    assert texts_to_encode(settings, texts) == [0, 1, 3]
    settings.encode(texts[:1], lambda *_: None)
    assert texts_to_encode(settings, texts) == [1, 3]
