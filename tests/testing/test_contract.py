"""Code that all checks share."""

import subprocess
import sys

import numpy as np
import torch

from balbench.testing.contract import same


def test_the_checks_need_no_test_framework():
    code = "import sys, balbench.testing; assert not {'pytest', '_pytest', 'hypothesis'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_sameness_is_of_type_shape_and_bits():
    a = np.array([1.0, np.nan])
    assert same(a, a.copy())
    assert same(torch.from_numpy(a), a)
    assert not same(a, a.astype(np.float32))
    assert not same(a, a[:, None])
    assert not same(np.array([0.0]), np.array([-0.0]))
