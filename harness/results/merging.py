"""Merge the study of a run directory with a study that runs there with other seeds, policies, rounds or data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results.records import CellHeader, StudyHeader

EXTENDABLE = {"description", "policies", "seeds", "reference", "reference_seeds", "full_data", "protocol"}


def check_same_study(path: Path, header: StudyHeader, requested: StudyHeader) -> None:
    """Check that a directory's study differs from the requested study only in keys that a run can change.

    Raises:
        RunDirectoryError: the studies differ in another key, which the message names.
    """
    before, now = header["study"], requested["study"]
    # A key that an earlier version did not have is absent, which equals an empty value.
    changed = [key for key in now if key not in EXTENDABLE and (before.get(key) or None) != (now[key] or None)]
    changed += [f"protocol.{key}" for key in ("initial", "batch") if before["protocol"][key] != now["protocol"][key]]
    if changed:
        raise RunDirectoryError(
            f"out {path}: has a study with another {changed[0]}; give another directory or delete this one",
            setting="out",
        )


def merged(path: Path, header: StudyHeader, requested: StudyHeader) -> tuple[StudyHeader, list[str]]:
    """Add the earlier cells of a directory to the requested cells.

    An earlier cell is kept unless its data set (a file, for example), the code of a component, or the policy with its
    label has changed. Earlier cells get the labels of the requested study.

    Args:
        path: the directory, for the returned lines.
        header: the header of the directory.
        requested: the header of the study to run.

    Returns:
        The merged header, and lines about dropped cells with the reasons.
    """
    current = _RequestedCells(requested["cells"])
    cells = {cell_identity(cell): cell for cell in requested["cells"]}
    dropped: Counter[str] = Counter()
    for old in header["cells"]:
        if reason := current.drop_reason(old):
            dropped[reason] += 1
        else:
            known = cells.get(cell_identity(old), old)
            rounds = max(known["rounds"], old["rounds"])
            cells[cell_identity(old)] = {**known, "policy": current.label(old), "rounds": rounds}
    ordered = _ordered(cells.values())
    study = _merged_study(header["study"], requested["study"], ordered)
    notes = [
        f"{path}: {reason} since the last run; {number} earlier cells stay on disk and leave the reports"
        for reason, number in dropped.items()
    ]
    return {"study": study, "cells": ordered, "lines": header["lines"]}, notes


class _RequestedCells:
    """The cells to run, with which earlier cells are compared."""

    def __init__(self, cells: list[CellHeader]) -> None:
        self._keys = {cell["setting"]: cell["keys"] for cell in cells}
        self._labels = {(cell["setting"], cell["keys"]["policy"]): cell["policy"] for cell in cells}
        self._taken = {(cell["setting"], cell["policy"]) for cell in cells}

    def label(self, old: CellHeader) -> str:
        """Return the current label of the policy of an earlier cell."""
        return self._labels.get((old["setting"], old["keys"]["policy"]), old["policy"])

    def drop_reason(self, old: CellHeader) -> str:
        """Return why an earlier cell is not part of the study any more; "" if it is."""
        keys = self._keys.get(old["setting"], old["keys"])
        if keys["dataset"] != old["keys"]["dataset"]:
            return "the data changed (a data file, or the code of the data set)"
        if keys["setting"] != old["keys"]["setting"]:
            return "the code of the oracle, the posterior or the loop changed"
        known = (old["setting"], old["keys"]["policy"]) in self._labels
        if (old["setting"], old["policy"]) in self._taken and not known:
            return f"the policy {old['policy']} changed (its settings or its version)"
        return ""


def cell_identity(cell: CellHeader) -> tuple[str, str, str]:
    """Return a key that is unique in a study (two policies of a setting can have cells with the same result)."""
    return cell["setting"], cell["keys"]["policy"], cell["directory"]


def _ordered(cells: Iterable[CellHeader]) -> list[CellHeader]:
    """Return cells grouped by setting and policy, otherwise in their order."""
    groups: dict[tuple[str, str], list[CellHeader]] = {}
    for cell in cells:
        groups.setdefault((cell["setting"], cell["policy"]), []).append(cell)
    return [cell for group in groups.values() for cell in group]


def _merged_study(before: dict[str, Any], now: dict[str, Any], cells: list[CellHeader]) -> dict[str, Any]:
    """Return the study file of all cells: the requested file plus the kept policies, seeds and rounds."""
    labels = {cell["policy"] for cell in cells}
    known = {_label(policy) for policy in now["policies"]}
    earlier = [policy for policy in before["policies"] if _label(policy) in labels - known]
    rounds = max(before["protocol"]["rounds"], now["protocol"]["rounds"])
    reference = {cell["seed"] for cell in cells if cell["policy"] == now["reference"]}
    others = {cell["seed"] for cell in cells if cell["policy"] != now["reference"]}
    return {
        **now,
        "policies": [*now["policies"], *earlier],
        "seeds": _union(now["seeds"], others & set(before["seeds"])),
        "reference_seeds": _union(now["reference_seeds"], reference),
        "protocol": {**now["protocol"], "rounds": rounds},
        "full_data": now["full_data"] or (before["full_data"] and any(cell["full_data"] for cell in cells)),
    }


def _union(seeds: list[int], more: set[int]) -> list[int]:
    return [*seeds, *sorted(more - set(seeds))]


def _label(policy: dict[str, Any]) -> str:
    return policy.get("label", policy["name"])
