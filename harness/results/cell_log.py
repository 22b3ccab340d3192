"""The append-only log of a cell."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from balbench.harness.errors import RunDirectoryError
from balbench.harness.files import disk_errors, not_finite, read_json, write_json
from balbench.harness.results import predictions
from balbench.harness.results.records import (
    CellFacts,
    CellFailure,
    FinishedRound,
    Manifest,
    RoundRecord,
    RoundTimings,
    lacks,
    up_to,
)
from balbench.harness.results.round_checks import round_fault, timings_fault


class CellLog:
    """The append-only log of one cell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._rounds, self._timings = directory / "rounds.jsonl", directory / "timings.jsonl"
        self._predictions = directory / predictions.FILE

    def open(self, facts: CellFacts, rounds: int) -> list[RoundRecord]:
        """Prepare for appending, and return the rounds so far, at most `rounds`.

        A torn last line is dropped. If the cell was finished with fewer rounds, its last round is dropped too and runs
        again, because it bought no labels. A round without its whole row of predictions runs again with all later
        rounds.

        Args:
            facts: facts about the cell; the stored facts are replaced only if the log has no rounds.
            rounds: total number of rounds to run.

        Raises:
            RunDirectoryError: the log is damaged, or cannot be written.
        """
        with disk_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / "failed.json").unlink(missing_ok=True)
            if not self.is_finished(rounds):
                (self.directory / "manifest.json").unlink(missing_ok=True)
        for path in (self._rounds, self._timings):
            if path.exists():
                _truncate(path, sum(map(len, _whole_lines(path))))
        records = self.rounds()
        if records and len(records) < rounds and not records[-1]["acquired"]:
            records.pop()
        records = records[: predictions.whole_rows(self._predictions, records)]
        self._cut(records)
        if not records or self.facts is None:
            write_json(self.directory / "cell.json", facts)
        return up_to(records, rounds)

    def _cut(self, records: Sequence[RoundRecord]) -> None:
        """Cut the files of rounds and predictions after the last of these rounds."""
        if self._rounds.exists():
            _truncate(self._rounds, sum(map(len, _whole_lines(self._rounds)[: len(records)])))
        predictions.cut(self._predictions, sum(predictions.row_sizes(records)))

    @property
    def facts(self) -> CellFacts | None:
        """The facts with which the cell was started; None before the start."""
        facts = read_json(self.directory / "cell.json")
        if facts is not None and lacks(facts, CellFacts):
            raise RunDirectoryError(f"{self.directory}: cell.json is damaged; delete the directory and run again")
        return facts

    def rounds(self) -> list[RoundRecord]:
        """The records of all complete rounds.

        Raises:
            RunDirectoryError: a line is damaged, missing or repeated, or has a value that no run writes.
        """
        records: list[RoundRecord] = []
        for number, line in enumerate(_whole_lines(self._rounds)):
            record = _parsed(line)
            fault = "it is no JSON object" if record is None else round_fault(record)
            if fault := fault or _order_fault(record, records):
                raise _damaged(self._rounds, number + 1, fault)
            records.append(record)
        return records

    def timings(self) -> list[RoundTimings]:
        """The timings of complete rounds; for a round that ran twice, the last timings.

        Damaged lines are left out: timings are no results, and a run must not fail for them.
        """
        lines = map(_parsed, _whole_lines(self._timings))
        return list({timing["round"]: timing for timing in lines if not timings_fault(timing)}.values())

    def append(self, rounds: Sequence[FinishedRound]) -> None:
        """Append rounds and flush them to disk. A round counts once its line is complete.

        Raises:
            RunDirectoryError: the log cannot be written.
            TypeError, ValueError: a record has a value that JSON does not support; nothing is written.
        """
        rows = [predictions.row_bytes(done.logits) for done in rounds]
        lines = [predictions.described(done.record, done.logits, row) for done, row in zip(rounds, rows, strict=True)]
        records = b"".join(map(_line, lines))
        _append(self._timings, b"".join(_line(done.timings) for done in rounds))
        with ExitStack() as undo:
            if content := b"".join(rows):
                size = self._predictions.stat().st_size if self._predictions.exists() else 0
                undo.callback(predictions.cut, self._predictions, size)
                _append(self._predictions, content)
            _append(self._rounds, records)
            undo.pop_all()

    def finish(self, machine: dict[str, Any]) -> None:
        """Write the manifest, which marks all rounds of the log as finished."""
        manifest: Manifest = {"rounds": len(self.rounds()), "sha256": self._digest(), "machine": machine}
        write_json(self.directory / "manifest.json", manifest)

    def fail(self, failure: CellFailure) -> None:
        """Write the reason why the cell failed."""
        write_json(self.directory / "failed.json", failure)

    @property
    def manifest(self) -> Manifest | None:
        """The manifest; None if there is none, or if the rounds have changed since the manifest was written."""
        manifest = read_json(self.directory / "manifest.json")
        whole = not lacks(manifest, Manifest) and manifest["sha256"] == self._digest()
        return manifest if whole else None

    def is_finished(self, rounds: int) -> bool:
        """Return whether the manifest says that at least `rounds` rounds are finished."""
        return (manifest := self.manifest) is not None and manifest["rounds"] >= rounds

    def _digest(self) -> str:
        return hashlib.sha256(_content(self._rounds)).hexdigest()

    def has_predictions(self) -> bool:
        """Return whether the rows of all rounds that have predictions are complete."""
        records = self.rounds()
        return predictions.whole_rows(self._predictions, records) == len(records)

    @property
    def failure(self) -> CellFailure | None:
        """The reason why the cell failed; None if the cell has not failed.

        Raises:
            RunDirectoryError: failed.json is damaged.
        """
        failure = read_json(path := self.directory / "failed.json")
        if failure is not None and lacks(failure, CellFailure):
            raise RunDirectoryError(f"{path}: is damaged; delete it and run the study again")
        return failure

    def count(self) -> int:
        """Count complete rounds without parsing their records."""
        return _content(self._rounds).count(b"\n")


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except ValueError:
        if (field := not_finite(record)) is None:
            raise
        raise ValueError(f"{field} is not finite, which JSON does not support; check the cell's settings") from None


def _append(path: Path, lines: bytes) -> None:
    """Append all bytes or none. The file is unbuffered, because a buffer would be flushed after the truncation."""
    with disk_errors(path), path.open("ab", buffering=0) as file:
        before, left = file.tell(), memoryview(lines)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, before)
            raise


def _truncate(path: Path, size: int) -> None:
    with disk_errors(path):
        os.truncate(path, size)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        fault = f"cannot be read ({error.strerror or error})"
        raise RunDirectoryError(f"{path}: {fault}; delete it and run the study again") from None


def _whole_lines(path: Path) -> list[bytes]:
    return [line + b"\n" for line in _content(path).split(b"\n")[:-1]]


def _parsed(line: bytes) -> Any:
    """Return the value of a line; None if it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _order_fault(record: RoundRecord, before: Sequence[RoundRecord]) -> str:
    if record["round"] != len(before):
        return f"it has round {record['round']}, not {len(before)}"
    fewest = before[-1]["labels"] if before else 0
    return f"labels is {record['labels']} after {fewest}" if record["labels"] < fewest else ""


def _damaged(path: Path, line: int, fault: str) -> RunDirectoryError:
    remedy = "remove this line and all after it, and run the study again, which keeps the rounds before"
    return RunDirectoryError(f"{path}: line {line} is damaged ({fault}); {remedy}")
