"""What is known of prepared data sets without loading them."""

import copy
import io
from dataclasses import fields, replace

import numpy as np
import pytest
from rich.console import Console

from balbench.harness.datasets.simulated import Simulated
from balbench.harness.errors import DataError
from balbench.harness.results import RunDirectory
from balbench.harness.running.data_directory import feature_bytes, prepare
from balbench.harness.running.progress import Display
from balbench.harness.study.study import check_study
from support.studies import TINY


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_take_the_room_of_float32_whatever_lies_on_disk(tmp_path, dtype):
    for split in ("pool", "eval"):
        np.save(tmp_path / f"{split}.response_features_RD.npy", np.zeros((10, 3), dtype))
    np.save(tmp_path / "pool.prompt_features_PQ.npy", np.zeros((10, 3), dtype))
    assert feature_bytes(tmp_path) == 2 * 10 * 3 * 4


class Odd(Simulated):
    """A data set whose author made a mistake."""

    fault: str

    def sizes(self):
        return super().sizes() if self.fault != "sizes" else (400, 800)

    def build(self, progress):
        data = super().build(progress)
        if self.fault == "raises":
            raise OSError("the archive is gone")
        if self.fault == "nothing":
            return None
        pool = data.splits["pool"]
        if self.fault == "silent":
            votes = {
                item.name: getattr(pool.records, item.name)[:-1]
                for item in fields(pool.records)
                if item.name.endswith("_V")
            }
            pool = replace(pool, records=replace(pool.records, **votes))
        return replace(data, splits=data.splits | {"pool": pool})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", r"Odd.build: OSError: the archive is gone \(test_data_directory.py, line \d+\); fix it"),
        ("nothing", "Odd.build: returned NoneType; return PreferenceData"),
        ("sizes", "Odd.sizes: returned tuple; return Sizes"),
        ("silent", "oracle: pool: pair 'pool-000299' has no recorded vote to replay; leave such pairs out"),
    ],
)
def test_a_faulty_data_set_is_told_in_one_line(fault, message, tmp_path):
    cell = check_study(copy.deepcopy(TINY), "tiny").cells[0]
    settings = {key: value for key, value in TINY["dataset"].items() if key != "name"}
    cell = replace(cell, dataset=Odd.model_validate(settings | {"fault": fault}))
    with Display(Console(file=io.StringIO())) as display, pytest.raises(DataError, match=message):
        prepare([cell], RunDirectory(tmp_path), display)
