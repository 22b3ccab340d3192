"""Texts are encoded on all cores, and the bits of a text's features do not depend on the number of threads."""

from functools import partial

import numpy as np
import pytest
import torch

from balbench.harness.datasets.features import EncoderSettings
from support.encoders import TEXTS, silent
from support.tiny_models import POSITIONS, save_bert, save_gpt

WORKS = {
    "bert": ("encoder", save_bert, EncoderSettings.encode),
    "gpt": ("encoder", save_gpt, EncoderSettings.encode),
    "language model": ("perplexity", partial(save_gpt, head=True), EncoderSettings.judge),
}


@pytest.mark.parametrize("name", WORKS)
def test_features_have_the_same_bits_on_any_number_of_threads(name, tmp_path, monkeypatch):
    setting, save, work = WORKS[name]
    model = {setting: str(save(tmp_path / "model"))}
    settings = EncoderSettings(**model, max_length=POSITIONS, batch_tokens=256, template="{prompt}{response}.")
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / f"cache{threads}"))
            torch.set_num_threads(threads)
            results.append(np.array(work(settings, TEXTS[:24], silent)))
    finally:
        torch.set_num_threads(before)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
