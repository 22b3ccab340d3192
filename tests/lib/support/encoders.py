"""Texts and settings for tests of encoders and their cache."""

from balbench.harness.datasets.features import EncoderSettings
from support.tiny_models import POSITIONS

TEXTS = [(f"question {n}" * (n % 3 + 1), f"answer {n}" + "!" * n) for n in range(24)]
TEXTS += [(f"question {n}", None) for n in range(24)]


def silent(work, done, total):
    """A progress callback that does nothing."""


def settings(model, **other) -> EncoderSettings:
    return EncoderSettings(**{"encoder": str(model), "max_length": POSITIONS, "batch_tokens": 128, **other})


def shards(cache):
    return sorted(cache.glob("*/*.safetensors"))
