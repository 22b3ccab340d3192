"""The pool: a response table, a prompt table, and pairs that index into them.

A reward model scores responses, not pairs, so features are held once for each response. Axes: N pairs,
R responses, P prompts, D response features, Q prompt features.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.errors import DataError
from oracles.annotations import PairRecords

Array = np.ndarray
MEMORY_MAP_BYTES = 64 * 2**20  # larger arrays are mapped from disk, not read
BLOCK_BYTES = 64 * 2**20  # of an array that are looked at or copied at a time


@dataclass(frozen=True, eq=False)
class PreferencePool:
    """Pairs (x, y1, y2) with the features of their prompts and responses. It holds no label.

    Attributes:
        response_features_RD: features phi(x, y), float32, or float16 to halve what they take on disk (all arithmetic is
            float32). They may be larger than memory: see docs/scaling_features.md.
        prompt_features_PQ: float32 features phi(x).
        prompt_of_response_R: the prompt that each response answers.
        responses_of_pair_N2: the two responses of each pair, in the order shown (first, second).
        pair_id_N: identifiers, unique and stable across machines.
        response_log_perplexity_R: float32 mean negative log-likelihood (nats) of a response's tokens given its prompt,
            under some language model; None where there is none.
        response_token_entropy_R: float32 entropy (nats) of that model's next-token distribution, summed over all tokens
            of prompt and response; None where there is none.
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
        """Check shapes, indices, identifiers and features.

        Raises:
            DataError: with the split's `name`, what is wrong and where.
        """
        if len(self) == 0:
            raise DataError(f"{name}: no pairs; give a file, or a share of the prompts, that leaves it some")
        if (dtype := self.response_features_RD.dtype) not in (np.float16, np.float32):
            raise DataError(f"{name}: response_features_RD: has the type {dtype}; give float32 or float16")
        for label in ("response_features_RD", "prompt_features_PQ"):
            _check_finite(getattr(self, label), f"{name}: {label}")
        for label in ("response_log_perplexity_R", "response_token_entropy_R"):
            if (table_R := getattr(self, label)) is not None:
                self._check_table(table_R, f"{name}: {label}")
        prompts_N2 = self.prompt_of_response_R[self.responses_of_pair_N2]
        if np.any(prompts_N2[:, 0] != prompts_N2[:, 1]):
            row = int(np.argmax(prompts_N2[:, 0] != prompts_N2[:, 1]))
            raise DataError(f"{name}: the responses of pair {str(self.pair_id_N[row])!r} answer different prompts")
        ids, count = np.unique(self.pair_id_N, return_counts=True)
        if np.any(count > 1):
            raise DataError(
                f"{name}: pair id {str(ids[np.argmax(count)])!r} stands {count.max()} times; make ids unique"
            )

    def _check_table(self, table_R: Array, name: str) -> None:
        if table_R.shape != (len(self.response_features_RD),):
            raise DataError(f"{name}: has the shape {table_R.shape}, not one number for each response")
        _check_finite(table_R[:, None], name)


def _check_finite(features: Array, name: str) -> None:
    for start, block in array_blocks(features):
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise DataError(f"{name}: row {row} holds NaN or infinity; look at the encoder or the feature file")


def array_blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """An array in blocks of rows, each with the number of its first row."""
    rows = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


@dataclass(frozen=True, eq=False)
class Split:
    """Pairs together with what is known about them. Policies see `pairs` only."""

    pairs: PreferencePool
    records: PairRecords


@dataclass(frozen=True, eq=False)
class PreferenceData:
    """A data set: the split `pool` to acquire from, `eval` to select models on, `test` (and `ood`) to judge by.

    Attributes:
        splits: by name; `pool` and `eval` are required.
        reference_lines: values that are known without any study, as {line: {split: {metric: value}}}, for
            example the best possible log-likelihood of a simulated world or a length-only baseline.
    """

    splits: dict[str, Split]
    reference_lines: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def check(self) -> None:
        """Check every split (see `PreferencePool.check`)."""
        for required in ("pool", "eval"):
            if required not in self.splits:
                raise DataError(f"the data set has no split {required!r}")
        for name, split in self.splits.items():
            split.pairs.check(name)

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
        else:  # row by row all the same, and without a copy of the whole
            described = np.lib.format.header_data_from_array_1_0(value) | {"fortran_order": False}
            np.lib.format.write_array_header_1_0(file, described)
            for _, block in array_blocks(value):
                np.ascontiguousarray(block).tofile(file)
        file.flush()
        os.fsync(file.fileno())


def _load_split(directory: Path, name: str) -> Split:
    def load(part: type) -> Any:
        found = {}
        for item in fields(part):
            path = directory / f"{name}.{item.name}.npy"
            if path.exists():
                mapped: Literal["c"] | None = "c" if path.stat().st_size > MEMORY_MAP_BYTES else None
                try:
                    found[item.name] = np.load(path, mmap_mode=mapped, allow_pickle=False)
                except (ValueError, OSError, EOFError) as error:
                    raise DataError(f"{path}: is damaged ({error}); delete {path.parent} and run again") from None
        return part(**found)

    return Split(load(PreferencePool), load(PairRecords))
