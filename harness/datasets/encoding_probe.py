"""Estimate the time that encoding takes, from a short probe on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from balbench.harness.datasets.batch_threads import batch_threads, compute_batches
from balbench.harness.datasets.features import EncoderSettings, Text, text_key
from balbench.harness.datasets.text_encoder import Batch, plan_batches
from balbench.harness.datasets.tokens import Tokens

PROBE_SECONDS = 3.0


def sample(count: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced integers below `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist() if count else []


def texts_to_encode(settings: EncoderSettings, texts: Sequence[Text]) -> list[int]:
    """Return the indices of the texts that are not in the cache, each distinct text once.

    Raises:
        DataError: the cache cannot be read, or the encoder's files are wrong.
    """
    cache = settings.feature_cache()
    first: dict[bytes, int] = {}
    for number, text in enumerate(texts):
        first.setdefault(text_key(text), number)
    return [number for key, number in first.items() if key not in cache]


def encoding_seconds(settings: EncoderSettings, tokens: Sequence[Tokens], count: int) -> float:
    """Estimate the seconds that `count` texts take on the device of the settings, from the tokens of a sample.

    The sample's batches, long and short alternately, are timed for about PROBE_SECONDS, at least one for each thread.

    Raises:
        DataError: the encoder cannot be loaded, or cannot encode texts.
    """
    encoder = settings.load_encoder()
    pooling, _ = settings.pooling_of(encoder.files)
    lengths = [len(text.ids_T) for text in tokens]
    keys = [number.to_bytes(8, "big") for number in range(len(tokens))]
    batches = plan_batches(lengths, keys, encoder.limit, encoder.batch_tokens)

    def seconds(batches: Sequence[Batch]) -> float:
        started = time.perf_counter()
        for _ in compute_batches(encoder, lambda model, batch: model.features(tokens, batch, pooling), batches):
            pass
        return time.perf_counter() - started

    rounds = max(1, int(PROBE_SECONDS / seconds(batches[-1:])))
    alternate = [batches[n // 2 if n % 2 == 0 else -(n // 2) - 1] for n in range(len(batches))]
    timed = alternate[: rounds * batch_threads(encoder)]
    seconds_a_token = seconds(timed) / sum(batch.rows * batch.width for batch in timed)
    padded = sum(len(batch.members) * batch.width for batch in batches)
    return seconds_a_token * padded / len(tokens) * count
