"""What a run directory keeps when its study is run again with other seeds, policies, rounds or data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from balbench.harness.errors import RunDirectoryError
from balbench.harness.results.records import CellHeader, StudyHeader

EXTENDABLE = {"description", "policies", "seeds", "reference", "full_data", "protocol"}


def check_same_study(path: Path, header: StudyHeader, asked: StudyHeader) -> None:
    """Check that a directory's study differs from the one asked for only in what may change.

    Raises:
        RunDirectoryError: the studies differ in something else, which is named.
    """
    before, now = header["study"], asked["study"]
    changed = [key for key in now if key not in EXTENDABLE and before.get(key) != now[key]]
    changed += [f"protocol.{key}" for key in ("initial", "batch") if before["protocol"][key] != now["protocol"][key]]
    if changed:
        raise RunDirectoryError(
            f"out {path}: holds a study with another {changed[0]}; give another directory or delete this one",
            setting="out",
        )


def merged(path: Path, header: StudyHeader, asked: StudyHeader) -> tuple[StudyHeader, list[str]]:
    """Add the earlier cells of a directory to the cells that are asked for now.

    An earlier cell is kept unless what it was computed from has changed: its data set (a file, for example), the
    code of a component, or the policy that its label names. Cells that are kept get the labels of now.

    Args:
        path: the directory, for the lines that are returned.
        header: what the directory holds.
        asked: what is to run now.

    Returns:
        The header of both, and lines that say which earlier cells are dropped and why.
    """
    now = _Asked(asked["cells"])
    cells = {place(cell): cell for cell in asked["cells"]}
    dropped: Counter[str] = Counter()
    for old in header["cells"]:
        if why := now.why_dropped(old):
            dropped[why] += 1
        else:
            known = cells.get(place(old), old)
            rounds = max(known["rounds"], old["rounds"])
            cells[place(old)] = {**known, "policy": now.label(old), "rounds": rounds}
    ordered = _ordered(cells.values())
    study = _merged_study(header["study"], asked["study"], ordered)
    notes = [
        f"{path}: {why} since the last run; {number} earlier cells stay on disk and leave the reports"
        for why, number in dropped.items()
    ]
    return {"study": study, "cells": ordered, "lines": header["lines"]}, notes


class _Asked:
    """The cells that are asked for, to compare earlier cells with."""

    def __init__(self, cells: list[CellHeader]) -> None:
        self._keys = {cell["setting"]: cell["keys"] for cell in cells}
        self._labels = {(cell["setting"], cell["keys"]["policy"]): cell["policy"] for cell in cells}
        self._taken = {(cell["setting"], cell["policy"]) for cell in cells}

    def label(self, old: CellHeader) -> str:
        """The label that the policy of an earlier cell has now."""
        return self._labels.get((old["setting"], old["keys"]["policy"]), old["policy"])

    def why_dropped(self, old: CellHeader) -> str:
        """Why an earlier cell is no longer a part of the study; "" where it is."""
        keys = self._keys.get(old["setting"], old["keys"])
        if keys["dataset"] != old["keys"]["dataset"]:
            return "the data changed (a data file, or the code of the data set)"
        if keys["setting"] != old["keys"]["setting"]:
            return "the code of the oracle, the posterior or the loop changed"
        known = (old["setting"], old["keys"]["policy"]) in self._labels
        if (old["setting"], old["policy"]) in self._taken and not known:
            return f"the policy {old['policy']} changed (its settings or its version)"
        return ""


def place(cell: CellHeader) -> tuple[str, str, str]:
    """What tells the cells of a study apart (two policies of a setting may have cells with the same result)."""
    return cell["setting"], cell["keys"]["policy"], cell["directory"]


def _ordered(cells: Iterable[CellHeader]) -> list[CellHeader]:
    """Cells of one setting and policy beside each other, otherwise in their order."""
    groups: dict[tuple[str, str], list[CellHeader]] = {}
    for cell in cells:
        groups.setdefault((cell["setting"], cell["policy"]), []).append(cell)
    return [cell for group in groups.values() for cell in group]


def _merged_study(before: dict[str, Any], now: dict[str, Any], cells: list[CellHeader]) -> dict[str, Any]:
    """The study file of all cells: the one of now, with the earlier policies, seeds and rounds that are kept."""
    labels = {cell["policy"] for cell in cells}
    known = {_label(policy) for policy in now["policies"]}
    earlier = [policy for policy in before["policies"] if _label(policy) in labels - known]
    rounds = max(before["protocol"]["rounds"], now["protocol"]["rounds"])
    return {
        **now,
        "policies": [*now["policies"], *earlier],
        "seeds": list(dict.fromkeys([*now["seeds"], *sorted({cell["seed"] for cell in cells})])),
        "protocol": {**now["protocol"], "rounds": rounds},
        "full_data": now["full_data"] or (before["full_data"] and any(cell["full_data"] for cell in cells)),
    }


def _label(policy: dict[str, Any]) -> str:
    return policy.get("label", policy["name"])
