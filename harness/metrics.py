"""What a posterior is judged by: agreement with recorded preferences, calibration, and what its uncertainty knows.

Axes: N pairs. `share_N` is the share of recorded votes for the first response (1 or 0 where there is one vote).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from balbench.harness.uncertainty import Uncertainty

Array = np.ndarray
BINS = 10


def held_out_metrics(probability_N: Array, share_N: Array) -> dict[str, float]:
    """Judge P(first preferred) by recorded votes; pairs without a vote (NaN) are left out.

    Returns:
        log_likelihood (nats a vote), accuracy (share of votes predicted, 0.5 at p = 0.5), brier (mean squared
        distance to the share of votes) and ece (expected calibration error over 10 bins of confidence).
    """
    known = ~np.isnan(share_N)
    p, q = np.asarray(probability_N, dtype=np.float64)[known], np.asarray(share_N, dtype=np.float64)[known]
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    agree = np.where(p > 0.5, q, np.where(p < 0.5, 1 - q, 0.5))
    return {
        "log_likelihood": float(np.mean(q * np.log(clipped) + (1 - q) * np.log1p(-clipped))),
        "accuracy": float(agree.mean()),
        "brier": float(np.mean((p - q) ** 2)),
        "ece": calibration_error(np.maximum(p, 1 - p), agree),
    }


def calibration_error(confidence_N: Array, agree_N: Array) -> float:
    """Expected calibration error: mean |confidence - agreement| over equal bins of confidence in [0.5, 1]."""
    bin_N = np.minimum(((confidence_N - 0.5) * 2 * BINS).astype(np.int64), BINS - 1)
    gap_bins = np.bincount(bin_N, weights=confidence_N - agree_N, minlength=BINS)
    return float(np.abs(gap_bins).sum() / len(confidence_N))


def uncertainty_metrics(found: Uncertainty) -> dict[str, float]:
    """Mean of each uncertainty over pairs, in nats (variance: of probabilities)."""
    return {
        "epistemic": float(found.epistemic_N.mean()),
        "predictive": float(found.predictive_N.mean()),
        "aleatoric": float(found.aleatoric_N.mean()),
        "variance": float(found.variance_N.mean()),
    }


def error_correlations(found: Uncertainty, share_N: Array) -> dict[str, float]:
    """Spearman correlation of each uncertainty with the squared error; left out where either is constant."""
    known = ~np.isnan(share_N)
    error = ((found.mean_N.cpu().numpy() - share_N) ** 2)[known]
    kinds = {"epistemic": found.epistemic_N, "predictive": found.predictive_N, "variance": found.variance_N}
    correlations = {f"{kind}_brier_spearman": spearman(u.cpu().numpy()[known], error) for kind, u in kinds.items()}
    return {name: value for name, value in correlations.items() if value is not None}


def spearman(a_N: Array, b_N: Array) -> float | None:
    """Spearman's rank correlation, or None where one side is constant."""
    if len(a_N) < 2 or np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return None
    return float(np.corrcoef(rankdata(a_N), rankdata(b_N))[0, 1])
