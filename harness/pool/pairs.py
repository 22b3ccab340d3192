"""The pool: a response table, a prompt table, and pairs that index into them.

A reward model scores responses, not pairs, so features are stored once for each response. Axes: N pairs,
R responses, P prompts, D response features, Q prompt features.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from balbench.harness.errors import DataError
from balbench.harness.pool.array_checks import check_arrays, check_finite, check_range
from balbench.harness.pool.blocks import array_blocks
from balbench.oracles.annotations import Choice, PairRecords

Array = np.ndarray
MEMORY_MAP_BYTES = 64 * 2**20  # larger arrays are mapped from disk, not read
POOL_TYPES = {
    "response_features_RD": "float16 or float32",
    "prompt_features_PQ": "float32",
    "prompt_of_response_R": "integers",
    "responses_of_pair_N2": "integers",
    "pair_id_N": "strings",
    "response_log_perplexity_R": "float32",
    "response_token_entropy_R": "float32",
}
RECORD_TYPES = {
    "pair_id_N": "strings",
    "vote_pair_V": "integers",
    "vote_choice_V": "integers",
    "vote_annotator_V": "strings",
    "probability_N": "floats",
    "response_length_N2": "integers",
    "vote_strength_V": "floats",
    "vote_seconds_V": "floats",
    "vote_price_V": "floats",
}


@dataclass(frozen=True, eq=False)
class PreferencePool:
    """Pairs (x, y1, y2) with the features of their prompts and responses, without labels.

    Attributes:
        response_features_RD: features phi(x, y), float32, or float16 to halve their size on disk (all arithmetic is
            float32). They may be larger than memory: see docs/large_features.md.
        prompt_features_PQ: float32 features phi(x).
        prompt_of_response_R: the prompt that each response answers.
        responses_of_pair_N2: the two responses of each pair, in the order shown (first, second).
        pair_id_N: identifiers, unique and stable across machines.
        response_log_perplexity_R: float32 mean negative log-likelihood (nats) of a response's tokens given its prompt,
            under a language model; None if there is no such model.
        response_token_entropy_R: float32 entropy (nats) of that model's next-token distribution, summed over all tokens
            of prompt and response; None if there is no such model.
    """

    response_features_RD: Array
    prompt_features_PQ: Array
    prompt_of_response_R: Array
    responses_of_pair_N2: Array
    pair_id_N: Array
    response_log_perplexity_R: Array | None = None
    response_token_entropy_R: Array | None = None

    def __len__(self) -> int:
        return len(self.pair_id_N)

    @cached_property
    def prompt_of_pair_N(self) -> Array:
        """The prompt of each pair."""
        return self.prompt_of_response_R[self.responses_of_pair_N2[:, 0]]

    def check(self, name: str) -> None:
        """Check types, shapes, indices, identifiers and features.

        Raises:
            DataError: an array is invalid; the message names the split, the array and the remedy.
        """
        if len(self) == 0:
            raise DataError(f"{name}: no pairs; give a file, or a share of the prompts, that leaves it some")
        check_arrays(self, name, POOL_TYPES)
        R, P = len(self.response_features_RD), len(self.prompt_features_PQ)
        check_range(self.prompt_of_response_R, P - 1, f"{name}: prompt_of_response_R")
        check_range(self.responses_of_pair_N2, R - 1, f"{name}: responses_of_pair_N2")
        for label, expected in POOL_TYPES.items():
            if "float" in expected and (table := getattr(self, label)) is not None:
                check_finite(table, f"{name}: {label}")
        prompts_N2 = self.prompt_of_response_R[self.responses_of_pair_N2]
        if np.any(prompts_N2[:, 0] != prompts_N2[:, 1]):
            row = int(np.argmax(prompts_N2[:, 0] != prompts_N2[:, 1]))
            raise DataError(f"{name}: the responses of pair {str(self.pair_id_N[row])!r} answer different prompts")
        ids, count = np.unique(self.pair_id_N, return_counts=True)
        if np.any(count > 1):
            raise DataError(
                f"{name}: pair id {str(ids[np.argmax(count)])!r} occurs {count.max()} times; make ids unique"
            )


@dataclass(frozen=True, eq=False)
class Split:
    """Pairs with their records. Policies see `pairs` only."""

    pairs: PreferencePool
    records: PairRecords

    def check(self, name: str) -> None:
        """Check the pairs (see `PreferencePool.check`), the votes, and that both have the same pairs in the same order.

        Raises:
            DataError: an array is invalid; the message names the split, the array and the remedy.
        """
        self.pairs.check(name)
        records, name = self.records, f"{name}: records"
        check_arrays(records, name, RECORD_TYPES)
        if not np.array_equal(records.pair_id_N, self.pairs.pair_id_N):
            raise DataError(f"{name}: pair_id_N is not that of the pairs; give the records of the same pairs in order")
        check_range(records.vote_pair_V, len(records) - 1, f"{name}: vote_pair_V")
        check_range(records.vote_choice_V, max(Choice), f"{name}: vote_choice_V")
        if records.probability_N is not None:
            check_range(records.probability_N, 1, f"{name}: probability_N")


@dataclass(frozen=True, eq=False)
class PreferenceData:
    """A data set: the split `pool` to acquire from, `eval` to select models on, `test` (and `ood`) to evaluate models.

    Attributes:
        splits: splits by name; `pool` and `eval` are required.
        reference_lines: values that are known without a study, as {line: {split: {metric: value}}}, for example the
            best possible log-likelihood of a simulated world, or a baseline that knows lengths only.
        facts: plain values for data.json, for example the numbers of rows and pairs.
        warnings: lines about the data, each with its remedy; a run prints them and stores them in data.json.
    """

    splits: dict[str, Split]
    reference_lines: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def check(self) -> None:
        """Check every split (see `Split.check`), that each split has votes, and that features have one length."""
        for required in ("pool", "eval"):
            if required not in self.splits:
                raise DataError(f"the data set has no split {required!r}; add it to PreferenceData.splits")
        for name, split in self.splits.items():
            split.check(name)
        D = self.splits["pool"].pairs.response_features_RD.shape[1]
        for name, split in self.splits.items():
            if name != "pool" and np.isnan(split.records.first_share_N).all():
                raise DataError(f"{name}: records: no pair has a vote; give votes to evaluate with")
            if (other := split.pairs.response_features_RD.shape[1]) != D:
                raise DataError(
                    f"{name}: response_features_RD: {other} features, but the pool has {D}; give the same number"
                )

    def save(self, directory: Path) -> None:
        """Write every array as a .npy file; `load` maps the large ones into memory."""
        for name, split in self.splits.items():
            for part in (split.pairs, split.records):
                for item in fields(part):
                    value = getattr(part, item.name)
                    if value is not None:
                        _save_array(directory / f"{name}.{item.name}.npy", value)

    @classmethod
    def load(cls, directory: Path, reference_lines: dict[str, Any]) -> PreferenceData:
        """Read what `save` wrote.

        Raises:
            DataError: a file is damaged.
        """
        names = sorted({path.name.split(".")[0] for path in directory.glob("*.npy")})
        return cls({name: _load_split(directory, name) for name in names}, reference_lines)


def _save_array(path: Path, value: Array) -> None:
    with path.open("wb") as file:
        if value.flags.c_contiguous or not value.size:
            np.save(file, value, allow_pickle=False)
        else:  # written by rows as well, without a copy of the whole array
            described = np.lib.format.header_data_from_array_1_0(value) | {"fortran_order": False}
            np.lib.format.write_array_header_1_0(file, described)
            for _, block in array_blocks(value):
                np.ascontiguousarray(block).tofile(file)
        file.flush()
        os.fsync(file.fileno())


def _load_split(directory: Path, name: str) -> Split:
    def load(part: type) -> Any:
        arrays = {}
        for item in fields(part):
            path = directory / f"{name}.{item.name}.npy"
            if path.exists():
                mapped: Literal["c"] | None = "c" if path.stat().st_size > MEMORY_MAP_BYTES else None
                try:
                    arrays[item.name] = np.load(path, mmap_mode=mapped, allow_pickle=False)
                except (ValueError, OSError, EOFError) as error:
                    raise DataError(f"{path}: is damaged ({error}); delete {path.parent} and run again") from None
        return part(**arrays)

    return Split(load(PreferencePool), load(PairRecords))
