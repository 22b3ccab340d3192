"""The run directory of a study: its header, its lock, and the paths of its cells and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from balbench.harness.errors import RunDirectoryError, shortened
from balbench.harness.files import check_directory, disk_errors, read_json, write_json
from balbench.harness.machine import count, ranges
from balbench.harness.results.cell_log import CellLog
from balbench.harness.results.merging import cell_identity, check_same_study, merged
from balbench.harness.results.records import CellHeader, Lines, StudyHeader, lacks

STUDY_KEYS = {"name", "reference", "protocol", "seeds", "policies"}
OURS = {"cells", "data", "lock", "report"}


class RunDirectory:
    """A directory of results of one study."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def lock(self) -> FileLock:
        """Take the run's lock.

        Raises:
            RunDirectoryError: another run uses this directory, or the path is a file.
        """
        check_directory(self.path)
        lock = FileLock(self.path / "lock")
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunDirectoryError(
                    f"out {self.path}: another run uses this directory; wait for it or give another directory",
                    setting="out",
                ) from None
        return lock

    @property
    def header(self) -> StudyHeader | None:
        """The contents of study.json; None if the file does not exist.

        Raises:
            RunDirectoryError: the file is damaged.
        """
        path = self.path / "study.json"
        header = read_json(path)
        if header is not None and not _is_whole(header):
            raise RunDirectoryError(
                f"{path}: is damaged, or was written by another version of balbench; delete it and run the study again"
            )
        if header is not None and (reference := _unknown_reference(header)):
            fault = f"no cell has the policy {reference} that `reference` names"
            raise RunDirectoryError(f"{path}: is damaged ({fault}); delete it and run the study again")
        return header

    def adopt(self, requested: StudyHeader) -> list[str]:
        """Make this the directory of a study, or extend the study that the directory has.

        A run can add seeds, policies and rounds and change labels; any other difference is an error. The directory
        keeps all earlier results: a run of fewer seeds, policies or rounds removes nothing.

        Args:
            requested: header of the study to run.

        Returns:
            Lines for the user about earlier results that no longer count.

        Raises:
            RunDirectoryError: the directory has another study or other files.
        """
        header = self.header
        notes: list[str] = []
        if header is None:
            self._check_empty()
            new = requested
        elif any(self.path.glob("cells/*/rounds.jsonl")):
            check_same_study(self.path, header, requested)
            new, notes = merged(self.path, header, requested)
        else:  # no cell has rounds yet, so the study can be replaced
            new = {**requested, "lines": header["lines"]}
        if new != header:
            write_json(self.path / "study.json", new)
        return notes

    def _check_empty(self) -> None:
        others = sorted(p.name for p in self.path.iterdir() if p.name not in OURS and p.name[0] != ".")
        if others:
            raise RunDirectoryError(
                f"out {self.path}: is not a run directory (it holds {others[0]}); give an empty or new directory",
                setting="out",
            )

    def add_lines(self, setting: str, lines: Lines) -> None:
        """Store the reference lines of a setting's data set."""
        header = self.header
        if header is not None and header["lines"].get(setting) != lines:
            header["lines"][setting] = lines
            write_json(self.path / "study.json", header)

    def others(self, requested: StudyHeader) -> list[CellHeader]:
        """Return the cells of this directory that are not requested."""
        identities = set(map(cell_identity, requested["cells"]))
        return [cell for cell in (self.header or requested)["cells"] if cell_identity(cell) not in identities]

    def others_line(self, requested: StudyHeader) -> str:
        """Return a line about the cells of this directory that are not requested; "" if there are none."""
        others, cells = self.others(requested), requested["cells"]
        if not others:
            return ""
        policies = {cell["policy"] for cell in cells}
        known = {(cell["policy"], cell["seed"]) for cell in cells}
        # The reference can have more seeds than the policies, so a seed is new to a policy, not to the study.
        seeds = {c["seed"] for c in others if c["policy"] in policies and (c["policy"], c["seed"]) not in known}
        others_policies = sorted({cell["policy"] for cell in others} - policies)
        kinds = {"seeds": ranges(seeds), "policies": ", ".join(others_policies)}
        names = [f"{kind} {text}" for kind, text in kinds.items() if text]
        details = f" ({'; '.join(names)})" if names else ""
        cells_text = count(len(others), "cell")
        return (
            f"{self.path} also has {cells_text} of earlier runs{details}; a report of the whole directory includes them"
        )

    def cell(self, name: str) -> CellLog:
        """Return the log of a cell, by the name of its directory."""
        return CellLog(self.path / "cells" / name)

    def data(self, key: str) -> Path:
        """Return the directory with the run's facts about a data set."""
        return self.path / "data" / key[:16]


def _is_whole(header: Any) -> bool:
    if lacks(header, StudyHeader) or not (isinstance(header["study"], dict) and header["study"].keys() >= STUDY_KEYS):
        return False
    return not any(lacks(cell, CellHeader) for cell in header["cells"])


def _unknown_reference(header: StudyHeader) -> str:
    """Return the reference of a study, quoted, if no cell runs it; empty otherwise, or without cells."""
    reference, policies = header["study"]["reference"], {cell["policy"] for cell in header["cells"]}
    return shortened(repr(reference)) if policies and reference not in list(policies) else ""
