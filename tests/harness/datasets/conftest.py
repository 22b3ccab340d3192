"""Tiny models and a small simulated world, made once for all tests of data sets."""

import pytest
import torch

from balbench.harness.datasets.simulated import Simulated
from balbench.harness.pool.pairs import PreferenceData
from support.tiny_models import save_bert, save_gpt


@pytest.fixture(scope="package")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="package")
def gpt(tmp_path_factory):
    return save_gpt(tmp_path_factory.mktemp("gpt"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The directory of features in an empty cache."""
    monkeypatch.setenv("BALBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def one_thread():
    """One thread for torch, so that tiny models are fast on busy machines."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def small() -> PreferenceData:
    return Simulated(preset="small").build(lambda work, done, total: None)
