"""What is known of prepared data sets without loading them."""

import numpy as np
import pytest

from harness.data_directory import feature_bytes


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_features_take_the_room_of_float32_whatever_lies_on_disk(tmp_path, dtype):
    for split in ("pool", "eval"):
        np.save(tmp_path / f"{split}.response_features_RD.npy", np.zeros((10, 3), dtype))
    np.save(tmp_path / "pool.prompt_features_PQ.npy", np.zeros((10, 3), dtype))
    assert feature_bytes(tmp_path) == 2 * 10 * 3 * 4
