"""The run directory of a study: its header, its lock, and the places of its cells and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import check_directory, disk_errors, read_json, write_json
from balbench.harness.results.cell_log import CellLog
from balbench.harness.results.merging import check_same_study, merged, place
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
            RunDirectoryError: another run works in this directory, or the path is a file.
        """
        check_directory(self.path)
        lock = FileLock(self.path / "lock")
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunDirectoryError(
                    f"out {self.path}: another run works here; wait for it or give another directory", setting="out"
                ) from None
        return lock

    @property
    def header(self) -> StudyHeader | None:
        """What study.json says; None where there is no such file.

        Raises:
            RunDirectoryError: the file is damaged.
        """
        path = self.path / "study.json"
        header = read_json(path)
        if header is not None and not _is_whole(header):
            raise RunDirectoryError(
                f"{path}: is damaged, or of another version of balbench; delete it and run the study again"
            )
        return header

    def adopt(self, asked: StudyHeader) -> list[str]:
        """Make this the directory of a study, or add to the study that it holds.

        Seeds, policies and rounds may be added, and labels changed; anything else is another study. The directory
        keeps all that was asked for: a run of fewer seeds, policies or rounds removes none.

        Args:
            asked: header of the study that is to run.

        Returns:
            Lines that say which earlier results no longer count, for the user.

        Raises:
            RunDirectoryError: the directory holds something else.
        """
        header = self.header
        notes: list[str] = []
        if header is None:
            self._check_empty()
            new = asked
        elif any(self.path.glob("cells/*/rounds.jsonl")):
            check_same_study(self.path, header, asked)
            new, notes = merged(self.path, header, asked)
        else:  # nothing was run yet, so the study may still be corrected
            new = {**asked, "lines": header["lines"]}
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
        """Record the reference lines of a setting's data set."""
        header = self.header
        if header is not None and header["lines"].get(setting) != lines:
            header["lines"][setting] = lines
            write_json(self.path / "study.json", header)

    def others(self, asked: StudyHeader) -> list[CellHeader]:
        """The cells of this directory that are not among those asked for."""
        mine = set(map(place, asked["cells"]))
        return [cell for cell in (self.header or asked)["cells"] if place(cell) not in mine]

    def others_line(self, asked: StudyHeader) -> str:
        """One line about the cells of this directory that were not asked for; "" where there are none."""
        others, mine = self.others(asked), asked["cells"]
        if not others:
            return ""
        seeds = sorted({cell["seed"] for cell in others} - {cell["seed"] for cell in mine})
        policies = sorted({cell["policy"] for cell in others} - {cell["policy"] for cell in mine})
        kinds: dict[str, list] = {"seeds": seeds, "policies": policies}
        names = [f"{kind} {', '.join(map(str, each))}" for kind, each in kinds.items() if each]
        cells = "1 cell" if len(others) == 1 else f"{len(others):,} cells"
        more = f" ({'; '.join(names)})" if names else ""
        return f"{self.path} also holds {cells} of earlier runs{more}; a report of the whole directory includes them"

    def cell(self, name: str) -> CellLog:
        """The log of a cell by the name of its directory."""
        return CellLog(self.path / "cells" / name)

    def data(self, key: str) -> Path:
        """The directory with what the run keeps of a data set."""
        return self.path / "data" / key[:16]


def _is_whole(header: Any) -> bool:
    if lacks(header, StudyHeader) or not (isinstance(header["study"], dict) and header["study"].keys() >= STUDY_KEYS):
        return False
    return not any(lacks(cell, CellHeader) for cell in header["cells"])
