"""Where features lie, and that a study does not feel it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from balbench.harness.pool import blocks, pairs
from balbench.harness.pool import feature_table as streamed
from balbench.harness.pool.feature_table import StreamedTable
from balbench.harness.pool.pairs import PreferenceData, Split
from balbench.harness.rounds import device_data
from balbench.harness.rounds.device_data import DeviceData, streamed_splits
from balbench.harness.rounds.fleet import advance
from balbench.harness.rounds.task import Past
from balbench.harness.study.study import check_study
from support.studies import tiny

CPU = torch.device("cpu")
STUDY = check_study(tiny(), "tiny")
DATA = STUDY.cells[0].dataset.build(lambda *_: None)


def stored_as(dtype: type) -> PreferenceData:
    """The tiny study's data with response features of a type."""

    def changed(split: Split) -> Split:
        features_RD = split.pairs.response_features_RD.astype(dtype)
        return replace(split, pairs=replace(split.pairs, response_features_RD=features_RD))

    return PreferenceData({name: changed(split) for name, split in DATA.splits.items()})


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Saves data and loads them again, mapped."""
    monkeypatch.setattr(pairs, "MEMORY_MAP_BYTES", 0)

    def save_and_load(data: PreferenceData) -> PreferenceData:
        data.save(tmp_path)
        return PreferenceData.load(tmp_path, {})

    return save_and_load


def streamed_names(data: DeviceData) -> set[str]:
    return {name for name, table in data.features.items() if isinstance(table, StreamedTable)}


def rounds_of(data: DeviceData) -> list:
    cells = [cell for cell in STUDY.cells if cell.label != "full data" and cell.seed == 0]
    report = advance(cells, [Past.of([]) for _ in cells], data, lambda: True)
    assert not report.failed
    assert len(report.rounds) == sum(cell.rounds for cell in cells)
    return [(key, done.record) for key, done in report.rounds]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_study_gives_the_same_streamed_and_resident(saved, dtype, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 50 * 4 * 8)
    monkeypatch.setattr(streamed, "LEAST_ROWS", 1)
    data = saved(stored_as(dtype))
    on_disk, on_device = (DeviceData(data, CPU, placement=placement) for placement in ("streamed", "resident"))
    assert streamed_names(on_disk) == set(DATA.splits)
    assert streamed_names(on_device) == set()
    assert rounds_of(on_disk) == rounds_of(on_device)


def test_half_precision_changes_little(saved):
    halves, full = (rounds_of(DeviceData(data, CPU)) for data in (saved(stored_as(np.float16)), DATA))
    for (_, half), (_, whole) in zip(halves, full, strict=True):
        if whole["round"] == 0:  # later rounds may have bought other pairs
            for name in ("log_likelihood", "accuracy"):
                assert half["metrics"]["test"][name] == pytest.approx(whole["metrics"]["test"][name], abs=0.02)


def test_arrays_that_are_not_on_disk_stay_resident():
    assert streamed_names(DeviceData(DATA, CPU, placement="streamed")) == set()


ARRAYS = {"pool": (100, 8), "eval": (10, 8), "test": (40, 8)}  # 3200, 320 and 1280 bytes as float32


@pytest.mark.parametrize(
    ("budget", "dtype", "processes", "expected"),
    [
        (4800, np.float16, 1, set()),
        (4799, np.float16, 1, {"pool"}),
        (1600, np.float16, 1, {"pool"}),
        (1599, np.float16, 1, {"pool", "test"}),
        (319, np.float16, 1, {"pool", "test", "eval"}),
        (4800, np.float16, 3, {"pool"}),  # a copy in each process
        (4800, np.float32, 3, set()),  # processes share what is mapped
        (4799, np.float32, 3, {"pool"}),
    ],
)
def test_the_largest_splits_are_streamed_until_the_rest_fits(tmp_path, monkeypatch, budget, dtype, processes, expected):
    arrays = {}
    for name, shape in ARRAYS.items():
        np.save(tmp_path / f"{name}.npy", np.ones(shape, dtype))
        arrays[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="c")
    monkeypatch.setattr(device_data, "device_budget", lambda device: budget)
    assert set(streamed_splits(arrays, "auto", CPU, processes)) == expected
    assert set(streamed_splits(arrays, "streamed", CPU, processes)) == set(ARRAYS)
    assert set(streamed_splits(arrays, "resident", CPU, processes)) == set()
