"""The contract of oracles (see `balbench.oracles.oracle.Oracle`), as a check of one oracle."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from balbench.harness.streams import Stream, stream
from balbench.oracles.annotations import Annotations, Choice, PairRecords
from balbench.oracles.oracle import Oracle
from balbench.testing.contract import ContractError, Subject, fingerprint, same
from balbench.testing.examples import records_of

Array = np.ndarray
STREAM = stream(4, "oracle")
KINDS = {"choice_B": ("iu", "integers"), "annotator_B": ("U", "strings")}  # all other fields have numbers
NUMBERS = ("fiu", "numbers")


def check_oracle(oracle: Oracle, *, records: PairRecords | None = None) -> None:
    """Check all promises of an oracle.

    An answer is a function of pair and stream: it does not depend on the order of the queries, on the other queries, on
    earlier calls or on the process. `annotate` changes neither the records nor a global random generator. It answers
    all records that `check_records` accepts.

    Args:
        oracle: with the settings to check.
        records: pairs to ask about; by default 30 pairs with votes, true probabilities and lengths (`records_of`).

    Raises:
        ContractError: a promise is broken; the message says which, with which input, and the remedy.
    """
    checks = _OracleChecks(oracle, records_of() if records is None else records)
    checks.subject.require_class(Oracle)
    checks.answers_each_query()
    checks.repeats_itself()
    checks.ignores_other_queries()
    checks.answers_accepted_records()
    checks.works_in_another_process()


class _OracleChecks:
    """The promises of one oracle; each method checks one of them and raises ContractError."""

    def __init__(self, oracle: Oracle, records: PairRecords) -> None:
        self.subject, self.oracle, self.records = Subject(oracle), oracle, records

    def ask(self, given: str, records: PairRecords, stream: Stream = STREAM) -> Annotations:
        """Ask about all pairs of `records`, and check that the records did not change."""
        before = fingerprint(vars(records))
        answers = self.subject.call(given, self.oracle.annotate, records, stream)
        changed = [name for name, value in fingerprint(vars(records)).items() if before[name] != value]
        self.subject.require(
            not changed, f"annotate changes {', '.join(changed)} of the records", given, "work on a copy of the array"
        )
        self._require_valid(answers, len(records), given)
        return answers

    def _require_valid(self, answers: Annotations, queries: int, given: str) -> None:
        require = self.subject.require
        require(
            isinstance(answers, Annotations),
            f"annotate returns {type(answers).__name__}",
            given,
            "return Annotations",
        )
        for name, array in _arrays(answers).items():
            kinds, words = KINDS.get(name, NUMBERS)
            require(
                isinstance(array, np.ndarray) and array.dtype.kind in kinds,
                f"{name} is not an array of {words}",
                given,
                f"return a numpy array of {words}",
            )
            require(array.shape == (queries,), f"{name} has the shape {array.shape}", given, "give one entry per query")
            require(
                name in KINDS or (np.isfinite(array) & (array >= 0)).all(),
                f"{name} has values that are negative or not finite",
                given,
                "give finite numbers from 0",
            )
        require(
            np.isin(answers.choice_B, list(Choice)).all(), "choice_B has unknown values", given, "use values of Choice"
        )

    def answers_each_query(self) -> None:
        self.ask("all pairs", self.records)
        self.ask("no pairs", self.records.take(np.array([], dtype=np.int64)))

    def repeats_itself(self) -> None:
        given = "all pairs twice, with other queries and another seed between the calls"
        first = self.ask(given, self.records)
        self.ask(given, self.records.take(np.arange(min(3, len(self.records)))), stream(5, "oracle"))
        self._require_equal(first, self.ask(given, self.records), given)

    def ignores_other_queries(self) -> None:
        together, N = self.ask("all pairs", self.records), len(self.records)
        order = np.random.default_rng(1).permutation(N)
        queries = {
            "all pairs in another order": order,
            "some of the pairs": order[: max(1, N // 2)],
            "a pair twice in one call": np.array([order[0], order[-1], order[0]]),
            "one pair alone": order[:1],
        }
        for given, rows in queries.items():
            expected = Annotations(**{name: array[rows] for name, array in _arrays(together).items()})
            self._require_equal(expected, self.ask(given, self.records.take(rows)), given)

    def _require_equal(self, first: Annotations, second: Annotations, given: str) -> None:
        for name, array in _arrays(first).items():
            other = getattr(second, name)
            equal = np.array_equal(array, other) if name in KINDS else same(array, other)
            self.subject.require(
                equal,
                f"{name} of a pair depends on more than the pair and the seed",
                given,
                "draw only from stream.uniform(..., pair_id), and keep nothing between calls",
            )

    def answers_accepted_records(self) -> None:
        """Remove one table or all votes: `check_records` raises ValueError, or `annotate` works without them."""
        for given, records in _incomplete(self.records).items():
            try:
                self.subject.call(given, self.oracle.check_records, records)
            except ContractError as error:
                if isinstance(error.__cause__, ValueError):
                    continue
                raise
            self.ask(f"{given}, which check_records accepts", records)

    def works_in_another_process(self) -> None:
        given = "all pairs"
        remote = self.subject.call_in_another_process(given, _answered, self.records, STREAM)
        self._require_equal(self.ask(given, self.records), remote, f"{given}, in another process")


def _arrays(answers: Annotations) -> dict[str, Any]:
    return {item.name: getattr(answers, item.name) for item in fields(answers)}


def _incomplete(records: PairRecords) -> dict[str, PairRecords]:
    empty = {name: getattr(records, name)[:0] for name in ("vote_pair_V", "vote_choice_V", "vote_annotator_V")}
    return {
        "all pairs with all records": records,
        "pairs without true probabilities": replace(records, probability_N=None),
        "pairs without lengths": replace(records, response_length_N2=None),
        "pairs without votes": replace(records, **empty),
    }


def _answered(oracle: Oracle, records: PairRecords, stream: Stream) -> Annotations:
    return oracle.annotate(records, stream)
