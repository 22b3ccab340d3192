"""BALD and its sisters against the authors' own functions."""

import numpy as np
import pytest
import torch

from balbench.harness.uncertainty import uncertainty

PARTS = {
    "epistemic": "epistemic_N",
    "predictive": "predictive_N",
    "aleatoric": "aleatoric_N",
    "variance": "variance_N",
}


@pytest.mark.parametrize("name", ["f32", "f32_tight", "f32_big", "f64", "two", "saturated"])
def test_uncertainties(golden, name):
    case = golden(f"unc_{name}")
    actual = uncertainty(torch.from_numpy(case["member_probs"][..., 0]))
    for part, attribute in PARTS.items():
        np.testing.assert_allclose(getattr(actual, attribute), case[f"out_{part}"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(actual.mean_N, case["out_mean_probs"][:, 0], rtol=0, atol=1e-6)
