"""Metrics of a posterior on held-out pairs: agreement with recorded votes, calibration, quality of the uncertainty.

Axes: N pairs, V pairs with a vote, P prompts. `share_N` is the share of recorded votes for the first response (1 or 0
if there is one vote).
"""

from __future__ import annotations

import numpy as np

from balbench.harness.uncertainty import Uncertainty

Array = np.ndarray
BINS = 10
SMALLEST_PROBABILITY = 1e-12  # keeps the log-likelihood of a certain but wrong prediction finite
TEMPERATURES = (1e-3, 1e3)
TEMPERATURE_STEPS = 60  # upper bound; about six steps are needed
TEMPERATURE_TOLERANCE = 1e-6  # tolerance of log T


def held_out_metrics(probability_N: Array, share_N: Array, prompt_N: Array) -> dict[str, float]:
    """Compare P(first preferred) with recorded votes; pairs without a vote (NaN) are left out.

    Args:
        probability_N: predicted P(first preferred), in [0, 1].
        share_N: share of votes for the first response.
        prompt_N: the prompt of each pair, as an index from 0. Votes on pairs of one prompt are not independent, so
            standard errors are clustered by prompt.

    Returns:
        These metrics, where log-likelihoods are in nats per vote:

        - `log_likelihood`, `accuracy` (share of votes predicted, 0.5 at p = 0.5), `brier` (mean squared distance to the
          share of votes) and `ece` (expected calibration error over 10 bins of confidence);
        - `log_likelihood_se`, `accuracy_se`, `brier_se`: standard errors of these means (see `clustered_error`), absent
          if all pairs have the same prompt;
        - `brier_chance`: the Brier score of p = 1/2;
        - `temperature`, `temperature_gain`: see `best_temperature`.
    """
    voted_N = ~np.isnan(share_N)
    p_V, q_V = np.asarray(probability_N, dtype=np.float64)[voted_N], np.asarray(share_N, dtype=np.float64)[voted_N]
    agree_V = np.where(p_V > 0.5, q_V, np.where(p_V < 0.5, 1 - q_V, 0.5))
    clipped_V = clipped(p_V)
    values = {
        "log_likelihood": q_V * np.log(clipped_V) + (1 - q_V) * np.log1p(-clipped_V),
        "accuracy": agree_V,
        "brier": (p_V - q_V) ** 2,
    }
    metrics = {name: float(np.mean(value_V)) for name, value_V in values.items()}
    metrics |= _standard_errors(values, np.asarray(prompt_N)[voted_N])
    temperature, gain = best_temperature(clipped_V, q_V)
    return metrics | {
        "ece": calibration_error(np.maximum(p_V, 1 - p_V), agree_V),
        "brier_chance": float(np.mean((0.5 - q_V) ** 2)),
        "temperature": temperature,
        "temperature_gain": gain,
    }


def clipped(probability_N: Array) -> Array:
    """Return probabilities with finite logits and logarithms."""
    return np.clip(probability_N, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)


def logits(probability_N: Array) -> Array:
    """Return the logits of probabilities, after `clipped`."""
    p_N = clipped(np.asarray(probability_N, dtype=np.float64))
    return np.log(p_N) - np.log1p(-p_N)


def _standard_errors(values: dict[str, Array], prompt_V: Array) -> dict[str, float]:
    errors = {f"{name}_se": clustered_error(value_V, prompt_V) for name, value_V in values.items()}
    return {name: error for name, error in errors.items() if error is not None}


def clustered_error(value_V: Array, cluster_V: Array) -> float | None:
    """Return the standard error of the mean of values that are independent between clusters only.

    With G clusters and r_g the sum of a cluster's deviations from the mean, the error is
    sqrt(G / (G - 1) sum_g r_g^2) / V (Liang and Zeger 1986; Miller 2024, 2411.00640, section 2.2).

    Args:
        value_V: the values.
        cluster_V: the cluster of each value, as an index from 0.

    Returns:
        The error, or None for fewer than two clusters.
    """
    count_P = np.bincount(cluster_V)
    clusters = np.count_nonzero(count_P)
    if clusters < 2:
        return None
    deviation_P = np.bincount(cluster_V, weights=value_V - value_V.mean())
    return float(np.sqrt(clusters / (clusters - 1) * np.sum(deviation_P**2)) / len(value_V))


def best_temperature(probability_V: Array, share_V: Array) -> tuple[float, float]:
    """Return the T at which sigmoid(logit(p) / T) is most likely, and the gain in log-likelihood (Guo et al. 2017).

    Args:
        probability_V: P(first preferred), strictly between 0 and 1.
        share_V: share of votes for the first response.

    Returns:
        T in [1e-3, 1e3] (1 if all p are 1/2), and the gain over T = 1 in nats per vote, at least 0.
    """
    logit_V = np.log(probability_V) - np.log1p(-probability_V)
    if not np.any(logit_V):
        return 1.0, 0.0
    temperature = float(np.exp(-_best_log_scale(logit_V, share_V)))
    gain = _mean_log_likelihood(logit_V / temperature, share_V) - _mean_log_likelihood(logit_V, share_V)
    return temperature, max(0.0, gain)


def _best_log_scale(logit_V: Array, share_V: Array) -> float:
    """Return s = -log T of the best temperature, by Newton steps inside a bracket.

    The log-likelihood is concave in exp(s), so its slope changes sign once.
    """
    low, high = -np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])
    for end, sign in ((low, -1), (high, 1)):
        if sign * _slopes(logit_V, share_V, end)[0] >= 0:
            return float(end)
    s = 0.0
    for _ in range(TEMPERATURE_STEPS):
        slope, curvature = _slopes(logit_V, share_V, s)
        low, high = (s, high) if slope > 0 else (low, s)
        newton = s - slope / curvature if curvature < 0 else high
        after = newton if low < newton < high else (low + high) / 2
        if abs(after - s) <= TEMPERATURE_TOLERANCE:
            return float(after)
        s = after
    return float(s)


def _slopes(logit_V: Array, share_V: Array, s: float) -> tuple[float, float]:
    """Return the first and second derivative by s of the mean log-likelihood at the logits exp(s) logit."""
    scaled_V = np.exp(s) * logit_V
    half_tanh_V = np.tanh(scaled_V / 2) / 2  # sigmoid - 1/2
    slope = float(np.mean(scaled_V * (share_V - 0.5 - half_tanh_V)))
    return slope, slope - float(np.mean(scaled_V**2 * (0.25 - half_tanh_V**2)))


def _mean_log_likelihood(logit_V: Array, share_V: Array) -> float:
    return float(np.mean(share_V * logit_V - np.logaddexp(0, logit_V)))


def calibration_error(confidence_N: Array, agree_N: Array) -> float:
    """Return the expected calibration error: mean |confidence - agreement| over equal bins of [0.5, 1]."""
    bin_N = np.minimum(((confidence_N - 0.5) * 2 * BINS).astype(np.int64), BINS - 1)
    gap_bins = np.bincount(bin_N, weights=confidence_N - agree_N, minlength=BINS)
    return float(np.abs(gap_bins).sum() / len(confidence_N))


def uncertainty_metrics(uncertainties: Uncertainty) -> dict[str, float]:
    """Return the mean of each uncertainty over pairs: entropies in nats, and the variance of probabilities."""
    return {
        "epistemic": float(uncertainties.epistemic_N.mean()),
        "predictive": float(uncertainties.predictive_N.mean()),
        "aleatoric": float(uncertainties.aleatoric_N.mean()),
        "variance": float(uncertainties.variance_N.mean()),
    }


def error_correlations(uncertainties: Uncertainty, share_N: Array) -> dict[str, float]:
    """Return Spearman correlations of uncertainties with the squared error; absent if one of the two is constant."""
    voted_N = ~np.isnan(share_N)
    error_V = ((uncertainties.mean_N.cpu().numpy() - share_N) ** 2)[voted_N]
    if len(error_V) < 2 or np.ptp(error_V) == 0:
        return {}
    error_rank_V, correlations = average_ranks(error_V), {}
    for kind in ("epistemic", "predictive", "variance"):
        uncertainty_V = getattr(uncertainties, f"{kind}_N").cpu().numpy()[voted_N]
        if np.ptp(uncertainty_V) > 0:
            correlations[f"{kind}_brier_spearman"] = _correlation(average_ranks(uncertainty_V), error_rank_V)
    return correlations


def average_ranks(value_N: Array) -> Array:
    """Rank values from 1; equal values share their mean rank (like `scipy.stats.rankdata`, which is slow to import)."""
    order = np.argsort(value_N)
    sorted_N = value_N[order]
    starts_run_N = np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]])
    edges = np.append(np.flatnonzero(starts_run_N), len(value_N))
    rank_N = np.empty(len(value_N))
    rank_N[order] = ((edges[:-1] + edges[1:] + 1) / 2)[np.cumsum(starts_run_N) - 1]
    return rank_N


def _correlation(a_N: Array, b_N: Array) -> float:
    return float(np.corrcoef(a_N, b_N)[0, 1])
