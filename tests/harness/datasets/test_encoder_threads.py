"""Encoders use all cores, so the bits of a text's features must not depend on the number of threads."""

import numpy as np
import pytest
import torch

from balbench.harness.datasets.features import EncoderSettings
from support.tiny_models import POSITIONS, save_bert, save_gpt

TEXTS = [(f"question {n}" * (n % 3 + 1), f"answer {n}" + "!" * n) for n in range(24)]


@pytest.mark.parametrize("save", [save_bert, save_gpt])
def test_features_have_the_same_bits_on_any_number_of_threads(save, tmp_path, monkeypatch):
    settings = EncoderSettings(encoder=str(save(tmp_path / "model")), max_length=POSITIONS, batch_tokens=256)
    features, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / f"cache{threads}"))
            torch.set_num_threads(threads)
            features.append(np.array(settings.encode(TEXTS, lambda *_: None)))
    finally:
        torch.set_num_threads(before)
    assert features[0].tobytes() == features[1].tobytes() == features[2].tobytes()
