"""Reference lines: the metrics of simple rules, drawn with every learning curve."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from balbench.harness.machine import one_thread
from balbench.harness.pool.pairs import Split

Array = np.ndarray
RIDGE = 1e-4  # keeps weights finite if length decides every pair; negligible otherwise


@one_thread()
def length_only(pool: Split, splits: dict[str, Split]) -> dict[str, dict[str, float]]:
    """Return {split: {metric: value}} of a rule that knows only the lengths of the two responses.

    P(first preferred) = sigmoid(w . z), where z are the difference in characters and the difference in log
    characters, each divided by its root mean square in the pool. There is no intercept, so the order shown does
    not matter. The weights are fitted to the shares of votes of all pairs of the pool: this is the best rule that uses
    lengths only when all labels are bought.

    Args:
        pool: the pairs to fit on, with `response_length_N2`.
        splits: the pairs to evaluate on, with `response_length_N2`; for the metrics see
            `balbench.harness.metrics.held_out_metrics`.
    """
    from balbench.harness.metrics import held_out_metrics

    scale = np.sqrt((_lengths(pool) ** 2).mean(axis=0))
    scale[scale == 0] = 1
    weights = _fit(_lengths(pool) / scale, pool.records.first_share_N)
    return {
        name: held_out_metrics(
            expit(_lengths(split) / scale @ weights), split.records.first_share_N, split.pairs.prompt_of_pair_N
        )
        for name, split in splits.items()
    }


def _lengths(split: Split) -> Array:
    length_N2 = split.records.response_length_N2
    if length_N2 is None:
        raise ValueError("length_only needs response_length_N2")
    first_N, second_N = length_N2.astype(np.float64).T
    return np.stack([first_N - second_N, np.log(first_N / second_N)], axis=1)


def _fit(z_NF: Array, share_N: Array) -> Array:
    """Return the weights with the lowest mean cross-entropy; pairs without a vote are left out."""
    voted_N = ~np.isnan(share_N)
    z_NF, share_N = z_NF[voted_N], share_N[voted_N]

    def loss(weights_F: Array) -> tuple[float, Array]:
        logit_N = z_NF @ weights_F
        value = np.mean(np.logaddexp(0, logit_N) - share_N * logit_N) + RIDGE / 2 * weights_F @ weights_F
        return value, z_NF.T @ (expit(logit_N) - share_N) / len(share_N) + RIDGE * weights_F

    return minimize(loss, np.zeros(z_NF.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-8}).x
