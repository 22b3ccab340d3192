"""The run directory: append, resume, read as tidy frames.

    RUN/study.json                      the resolved study, its cells, known reference lines
    RUN/lock                            held while a run works here
    RUN/data/<key>/                     arrays of each data set, mapped by the workers
    RUN/cells/<policy>-seed<n>-<key>/   rounds.jsonl    one line a round: metrics, labels bought (deterministic)
                                        timings.jsonl   seconds of each stage (apart, so that the rest is
                                                        the same bytes on each run)
                                        manifest.json   written last: the cell is finished
                                        failed.json     why it failed (removed when it is tried again)

A cell is finished if its manifest says so. A torn last line is dropped and its round run again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from filelock import FileLock, Timeout

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import check_directory, disk_errors, not_finite, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

ROUND_KEYS = {"round", "labels", "metrics", "acquired"}
HEADER_KEYS = {"study", "cells", "lines"}
STUDY_KEYS = {"name", "reference", "protocol"}
OURS = {"cells", "data", "lock", "report"}
EXTENDABLE = {
    "description",
    "policies",
    "seeds",
    "reference",
    "full_data",
}  # may change within one run directory


class CellLog:
    """The append-only log of one cell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._rounds, self._timings = directory / "rounds.jsonl", directory / "timings.jsonl"

    def open(self) -> list[dict[str, Any]]:
        """Prepare for appending: drop a torn last line and return the rounds so far."""
        with disk_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / "failed.json").unlink(missing_ok=True)
            if not self.finished:
                (self.directory / "manifest.json").unlink(missing_ok=True)
        for path in (self._rounds, self._timings):
            if path.exists():
                whole = sum(len(line) for line in _whole_lines(path))
                with disk_errors(path):
                    os.truncate(path, whole)
        return self.rounds()

    def rounds(self) -> list[dict[str, Any]]:
        """The records of all whole rounds.

        Raises:
            RunDirectoryError: a line is damaged, missing or there twice.
        """
        records = list(_records(self._rounds))
        for number, record in enumerate(records):
            if record["round"] != number or not record.keys() >= ROUND_KEYS:
                raise _damaged(self._rounds, number + 1)
        return records

    def timings(self) -> list[dict[str, Any]]:
        """The timings of all whole rounds; of a round that was run twice, the last."""
        return list({record["round"]: record for record in _records(self._timings)}.values())

    def append(self, rounds: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Append records and timings of rounds and flush them to disk. A round counts once its own line is whole.

        Raises:
            RunDirectoryError: they cannot be written.
            TypeError, ValueError: they hold what JSON cannot; nothing is written.
        """
        records, timings = (b"".join(map(_line, part)) for part in zip(*rounds, strict=True))
        _append(self._timings, timings)
        _append(self._rounds, records)

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the manifest: the cell is finished."""
        manifest = {**facts, "rounds": len(self.rounds()), "sha256": self._digest()}
        write_json(self.directory / "manifest.json", manifest)

    def fail(self, reason: str, details: str) -> None:
        """Record why the cell failed."""
        write_json(self.directory / "failed.json", {"reason": reason, "details": details})

    @property
    def finished(self) -> bool:
        """Whether there is a manifest, and the rounds are those that it was written for."""
        manifest = read_json(self.directory / "manifest.json")
        return isinstance(manifest, dict) and manifest.get("sha256") == self._digest()

    def _digest(self) -> str:
        rounds = self._rounds.read_bytes() if self._rounds.exists() else b""
        return hashlib.sha256(rounds).hexdigest()

    @property
    def failure(self) -> dict[str, Any] | None:
        """Why the cell failed, if it did."""
        return read_json(self.directory / "failed.json")

    def count(self) -> int:
        """How many whole rounds there are, cheaply."""
        return self._rounds.read_bytes().count(b"\n") if self._rounds.exists() else 0


def _line(record: dict[str, Any]) -> bytes:
    try:
        return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except ValueError:
        if (where := not_finite(record)) is None:
            raise
        raise ValueError(f"{where} is not finite, which JSON cannot hold; look at the cell's settings") from None


def _append(path: Path, lines: bytes) -> None:
    with disk_errors(path), path.open("ab", buffering=0) as file:  # a buffer would write its rest after the cut
        before, left = file.tell(), memoryview(lines)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, before)
            raise


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            raise _damaged(path, number) from None
        if not isinstance(record, dict) or "round" not in record:
            raise _damaged(path, number)
        yield record


def _damaged(path: Path, line: int) -> RunDirectoryError:
    return RunDirectoryError(f"{path}: line {line} is damaged; delete {path.parent} and run the study again")


class RunDirectory:
    """A directory of results of one study."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lock(self) -> FileLock:
        """Take the run's lock.

        Raises:
            RunDirectoryError: another run works in this directory, or it is none.
        """
        check_directory(self.path)
        lock = FileLock(self.path / "lock")
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunDirectoryError(
                    f"{self.path}: another run works here; wait for it or give another --out"
                ) from None
        return lock

    @property
    def header(self) -> dict[str, Any] | None:
        """What study.json says.

        Raises:
            RunDirectoryError: it is damaged.
        """
        path = self.path / "study.json"
        header = read_json(path)
        whole = isinstance(header, dict) and header.keys() >= HEADER_KEYS and header["study"].keys() >= STUDY_KEYS
        if header is not None and not whole:
            raise RunDirectoryError(f"{path}: is damaged; delete it and run the study again")
        return header

    def adopt(self, study: dict[str, Any], cells: list[dict[str, Any]]) -> None:
        """Make this the directory of a study, or see that it is already.

        Seeds and policies may be added to a directory; anything else is another study.

        Raises:
            RunDirectoryError: the directory holds something else.
        """
        header = self.header
        if header is None:
            others = sorted(p.name for p in self.path.iterdir() if p.name not in OURS and p.name[0] != ".")
            if others:
                raise RunDirectoryError(
                    f"{self.path}: is not a run directory (it holds {others[0]}); give an empty or new --out"
                )
        elif any(self.path.glob("cells/*/rounds.jsonl")):  # until then, a study may still be mended
            for key, value in study.items():
                if key not in EXTENDABLE and header["study"].get(key) != value:
                    raise RunDirectoryError(
                        f"{self.path}: holds a study with another {key}; give another --out or delete the directory"
                    )
        lines = (header or {}).get("lines", {})
        new = {"study": study, "cells": cells, "lines": lines}
        if new != header:
            write_json(self.path / "study.json", new)

    def add_lines(self, setting: str, lines: dict[str, Any]) -> None:
        """Record the reference lines of a setting's data set."""
        header = self.header
        if header is not None and header["lines"].get(setting) != lines:
            header["lines"][setting] = lines
            write_json(self.path / "study.json", header)

    def cell(self, name: str) -> CellLog:
        """The log of a cell by the name of its directory."""
        return CellLog(self.path / "cells" / name)

    def data(self, key: str) -> Path:
        """Where the arrays of a data set lie."""
        return self.path / "data" / key[:16]


@dataclass(frozen=True)
class Run:
    """A run as tidy frames, finished or not.

    Attributes:
        name, path: of the study and of its directory.
        reference: label of the policy that savings are measured against.
        policies: labels in the order of the study, without those that buy the full data.
        policy_settings: all settings of each policy.
        protocol: initial, batch, rounds.
        study: the resolved study file.
        fingerprint: hash of all results.
        curves: setting, policy, seed, round, labels, split, metric, value.
        lines: setting, line, split, metric, value of horizontal reference lines.
        full_data: setting, seed, labels, split, metric, value of models trained on the whole pool.
        timings: setting, policy, seed, round, stage, seconds.
        cells: setting, policy, seed, key, state, rounds_done, rounds, reason.
    """

    name: str
    path: Path
    reference: str
    policies: list[str]
    policy_settings: dict[str, dict[str, Any]]
    protocol: dict[str, Any]
    study: dict[str, Any]
    fingerprint: str
    curves: pd.DataFrame
    lines: pd.DataFrame
    full_data: pd.DataFrame
    timings: pd.DataFrame
    cells: pd.DataFrame


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        RunDirectoryError: there is no run, or a file of it is damaged.
    """
    directory = RunDirectory(path)
    header = directory.header if path.is_dir() else None
    if header is None:
        what = "is a file and holds no run" if path.is_file() else "holds no run (no study.json)"
        raise RunDirectoryError(f"{path}: {what}; give the directory that `balbench run` made")
    study, frames = header["study"], _Frames()
    for cell in header["cells"]:
        frames.add(cell, directory.cell(cell["directory"]))
    settings = {cell["policy"]: cell["settings"] for cell in header["cells"] if not cell["full_data"]}
    return Run(
        name=study["name"],
        path=path,
        reference=study["reference"],
        policies=list(settings),
        policy_settings=settings,
        protocol=study["protocol"],
        study=study,
        fingerprint=frames.fingerprint(header),
        lines=_lines_frame(header["lines"]),
        **frames.tables(),
    )


class _Frames:
    """Gathers the rows of all cells."""

    COLUMNS: ClassVar[dict[str, list[str]]] = {
        "curves": ["setting", "policy", "seed", "round", "labels", "split", "metric", "value"],
        "full_data": ["setting", "seed", "labels", "split", "metric", "value"],
        "timings": ["setting", "policy", "seed", "round", "stage", "seconds"],
        "cells": ["setting", "policy", "seed", "key", "state", "rounds_done", "rounds", "reason"],
    }

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple]] = {name: [] for name in self.COLUMNS}
        self._hash = hashlib.sha256()

    def add(self, cell: dict[str, Any], log: CellLog) -> None:
        setting, policy, seed = cell["setting"], cell["policy"], cell["seed"]
        records = log.rounds()
        for record in records:
            for split, metrics in record["metrics"].items():
                for metric, value in metrics.items():
                    tail = (record["labels"], split, metric, value)
                    if cell["full_data"]:
                        self._rows["full_data"].append((setting, seed, *tail))
                    else:
                        self._rows["curves"].append((setting, policy, seed, record["round"], *tail))
        for record in log.timings():
            for stage, seconds in record["seconds"].items():
                self._rows["timings"].append((setting, policy, seed, record["round"], stage, seconds))
        finished, failure = log.finished, log.failure
        state = "finished" if finished else "failed" if failure else "running" if records else "waiting"
        reason = failure["reason"] if failure and not finished else ""
        self._rows["cells"].append((setting, policy, seed, cell["key"], state, len(records), cell["rounds"], reason))
        self._hash.update(json.dumps([cell, state, reason, records], sort_keys=True).encode())

    def tables(self) -> dict[str, pd.DataFrame]:
        import pandas as pd

        return {name: pd.DataFrame(self._rows[name], columns=columns) for name, columns in self.COLUMNS.items()}

    def fingerprint(self, header: dict[str, Any]) -> str:
        self._hash.update(json.dumps(header, sort_keys=True).encode())
        return self._hash.hexdigest()


def _lines_frame(lines: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (setting, line, split, metric, value)
        for setting, by_line in lines.items()
        for line, by_split in by_line.items()
        for split, metrics in by_split.items()
        for metric, value in metrics.items()
    ]
    return pd.DataFrame(rows, columns=["setting", "line", "split", "metric", "value"])
