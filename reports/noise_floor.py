"""The noise floor: the savings of a policy that has exactly the reference's mean curve."""

from __future__ import annotations

import numpy as np

from balbench.reports.curves import Curve
from balbench.reports.inversion import Inversion, invert, savings_path
from balbench.reports.learning import direction
from balbench.reports.pair_scores import PairScores, pair_variance
from balbench.reports.savings import compare, level_budget


def noise_floor(reference: Curve, metric: str, scores: PairScores | None = None) -> tuple[Inversion, Inversion | None]:
    """Compare the reference with a policy that has its mean curve and no noise, as with infinitely many seeds.

    The interval holds all savings that cannot be told from zero, however many seeds the policies have. The reference
    compared with its own seeds would say too little: what a seed adds to all rounds would cancel.

    Args:
        reference: the reference's curve.
        metric: name of the metric, which gives the direction.
        scores: the reference's scores of single held-out pairs, for the second interval.

    Returns:
        Savings with the interval over seeds, and with that over seeds and held-out pairs (None without scores).
    """
    unused = int(reference.seeds_S.max()) + 1
    ideal = Curve(reference.labels_T, np.tile(reference.mean_T, (2, 1)), seeds=[unused, unused + 1])
    path = savings_path(reference.labels_T, reference.labels_T, level_budget(reference, metric).labels)
    compared = compare(ideal, reference, path.policy_H, path.reference_H, direction(metric))
    new_pairs = None
    if scores is not None:
        variance_H, clusters = pair_variance(path, reference, reference, scores, scores)
        new_pairs = invert(path, compared.widened(variance_H, clusters - 1))
    return invert(path, compared), new_pairs
