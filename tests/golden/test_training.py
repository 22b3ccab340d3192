"""The training config against the authors' own trainer, fed the same minibatches."""

import numpy as np
import pytest
import torch

from balbench.harness.posteriors.ensemble import Ensemble
from balbench.harness.posteriors.heads import Heads
from balbench.harness.posteriors.posterior import LabelledPairs
from balbench.harness.posteriors.training import train
from balbench.harness.posteriors.training_config import rate_at


def pairs_of(table: np.ndarray) -> LabelledPairs:
    """Rows of (id, D chosen features, D rejected features)."""
    chosen, rejected = np.split(table[:, 1:].astype(np.float32), 2, axis=1)
    n = len(table)
    return LabelledPairs(
        torch.from_numpy(np.concatenate([chosen, rejected])),
        torch.stack([torch.arange(n), torch.arange(n) + n], dim=1),
        torch.ones(n),
    )


def heads_of(case: dict, prefix: str) -> Heads:
    layers = [f"{prefix}layers_{number}" for number in (0, 2, 4)]
    return Heads(
        [torch.from_numpy(case[f"{layer}_weight"].T[None].copy()) for layer in layers],
        [torch.from_numpy(case[f"{layer}_bias"][None, None].copy()) for layer in layers],
        "tanh",
    )


def order_of(case: dict, epochs: int) -> torch.Tensor:
    """The authors' minibatches as an order (K = 1, E, n) of rows."""
    row_of_id = {int(pair): row for row, pair in enumerate(case["train"][:, 0])}
    ids = case["step_ids"][case["step_ids"] >= 0]
    return torch.tensor([row_of_id[int(pair)] for pair in ids]).view(1, epochs, -1)


@pytest.mark.parametrize("name", ["320", "1600_step_evals", "3200_double_eval", "partial_batch"])
def test_recipe(golden, name):
    case = golden(f"train_{name}")
    config = Ensemble(preset="melo2024", learning_rate=float(case["lr"]), repeat_evaluations=True)
    heads = heads_of(case, "init_")
    order = order_of(case, config.epochs)
    log = train(heads, pairs_of(case["train"]), pairs_of(case["eval"]), order, config)

    steps = int(case["max_steps"])
    rates = [config.learning_rate * rate_at(step, steps, config.warmup) for step in range(steps)]
    np.testing.assert_allclose(rates, case["lr_at_step"], rtol=1e-6)
    np.testing.assert_allclose(torch.cat(log.step_losses), case["out_step_loss"], rtol=1e-5)
    assert [step for step, _ in log.evaluations] == case["out_eval_steps"].tolist()
    np.testing.assert_allclose([float(loss) for _, loss in log.evaluations], case["out_eval_losses"], rtol=1e-5)

    # The last bias cancels in all differences of rewards: its gradient is rounding noise, not compared.
    best = heads_of(case, "out_")
    for actual, theirs in zip(heads.parameters[:-1], best.parameters[:-1], strict=True):
        np.testing.assert_allclose(actual, theirs, rtol=0, atol=1e-5)
    test = pairs_of(case["test"])
    rewards = heads.rewards_KR(test.features_RD)[0]
    probability = torch.sigmoid(rewards[test.responses_n2[:, 0]] - rewards[test.responses_n2[:, 1]])
    np.testing.assert_allclose(probability, case["out_test_p"], rtol=0, atol=1e-5)


def test_forward_and_loss(golden):
    case = golden("mlp_forward")
    heads = heads_of(case, "")
    for side in ("chosen", "rejected"):
        rewards = heads.rewards_KR(torch.from_numpy(case[side]))[0]
        np.testing.assert_allclose(rewards, case[f"out_reward_{side}"][:, 0], rtol=0, atol=1e-6)
    n = len(case["chosen"])
    table = np.concatenate([np.zeros((n, 1)), case["chosen"], case["rejected"]], axis=1)
    np.testing.assert_allclose(heads.losses(pairs_of(table)), case["out_loss"], rtol=1e-6)
