"""The latent reward uncertainty against the authors' own function."""

import numpy as np
import torch

from balbench.harness.posteriors.latent_reward import RewardGaussian, tail_score


def test_tail_scores(golden):
    case = {name: torch.from_numpy(array) for name, array in golden("ddu_small").items()}
    preferred, other = (RewardGaussian.fitted(case[f"buffer_reward_{side}"]) for side in ("chosen", "rejected"))
    actual = tail_score(preferred, other, case["pool_reward_chosen"], case["pool_reward_rejected"])
    np.testing.assert_allclose(actual, case["out_epistemic"], rtol=0, atol=1e-6)
