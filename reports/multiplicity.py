"""Adjusted p-values: with thirty policies, some seem to save labels by luck."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that all claims at a level hold together (Holm 1979, Scandinavian Journal of Statistics 6).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]

    Args:
        p_values: p-values of several comparisons.

    Returns:
        The adjusted p-values in the same order. The chance of any false claim among those with an adjusted p-value
        below alpha is at most alpha, whatever the dependence of the tests.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted
