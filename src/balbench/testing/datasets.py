"""The contract of data sets (see `balbench.harness.datasets.dataset.Dataset`), as a check of one data set."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from balbench.harness.datasets.dataset import Dataset
from balbench.harness.pool.contents import Contents, Sizes
from balbench.harness.pool.pairs import PreferenceData
from balbench.testing.contract import Subject, same

Array = np.ndarray
TOLERANCE = 0.25  # share by which approximate sizes may differ from the built data


def check_dataset(dataset: Dataset, *, other_seed: bool = True) -> None:
    """Check all promises of a data set. It is built three times: give a small one.

    The data are valid (see `PreferenceData.check`), the same in each build and in another process, and draw from no
    global random generator. No prompt of a held-out split is in the pool or in another split. `sizes` and `contents`
    agree with `build`, and `source_key` is the same in each call.

    Args:
        dataset: with the settings to check.
        other_seed: whether to build and check the data of another `data_seed` as well.

    Raises:
        ContractError: a promise is broken; the message says which, with which input, and the remedy.
    """
    checks = _DatasetChecks(dataset)
    checks.subject.require_class(Dataset)
    data = checks.build("the settings")
    checks.keeps_prompts_apart(data, "the settings")
    checks.knows_its_sizes(data)
    checks.knows_its_contents(data)
    checks.names_its_source()
    checks.repeats_itself(data)
    if other_seed:
        checks.takes_another_seed()


class _DatasetChecks:
    """The promises of one data set; each method checks one of them and raises ContractError."""

    def __init__(self, dataset: Dataset) -> None:
        self.subject, self.dataset = Subject(dataset), dataset

    def build(self, given: str) -> PreferenceData:
        """Build the data and check them."""
        data = self.subject.call(given, self.dataset.build, self._progress)
        self.subject.require(
            isinstance(data, PreferenceData),
            f"build returns {type(data).__name__}",
            given,
            "return PreferenceData",
        )
        self.subject.call(given, data.check)
        self.subject.require(
            {"test", "ood"} & set(data.splits),
            "has neither test nor ood",
            given,
            "add one of these splits",
        )
        return data

    def _progress(self, task: str, done: int, total: int) -> None:
        self.subject.require(
            isinstance(task, str) and 0 <= done <= total,
            f"progress is called with {task!r}, {done!r}, {total!r}",
            "a build",
            "call progress(task, done, total) with 0 <= done <= total",
        )

    def keeps_prompts_apart(self, data: PreferenceData, given: str) -> None:
        """Compare prompts by their features, and pairs by their identifiers."""
        seen: dict[bytes, str] = {}
        pairs: dict[str, str] = {}
        for name, split in data.splits.items():
            used = np.unique(split.pairs.prompt_of_pair_N)
            prompts = dict.fromkeys((row.tobytes() for row in split.pairs.prompt_features_PQ[used]), name)
            other_splits = [seen[prompt] for prompt in prompts if prompt in seen]
            self.subject.require(
                not other_splits,
                f"{len(other_splits)} prompts of {name} have the features of prompts of "
                f"{' and '.join(sorted(set(other_splits)))}",
                given,
                "put all pairs of a prompt into one split, so that held-out prompts have no acquired labels",
            )
            identifiers = dict.fromkeys(split.pairs.pair_id_N.tolist(), name)
            repeated = [pair for pair in identifiers if pair in pairs]
            self.subject.require(
                not repeated,
                f"pair {repeated[:1]} is in {name} and in another split",
                given,
                "put each pair into one split",
            )
            seen, pairs = seen | prompts, pairs | identifiers

    def knows_its_sizes(self, data: PreferenceData) -> None:
        sizes = self.subject.call("the settings", self.dataset.sizes)
        self.subject.require(
            isinstance(sizes, Sizes), f"sizes returns {type(sizes).__name__}", "the settings", "return Sizes"
        )
        for name, (built, exact) in _built_sizes(data).items():
            promised = getattr(sizes, name)
            if promised is None:  # unknown before the build
                continue
            self.subject.require(
                promised == built if exact else abs(promised - built) <= TOLERANCE * built,
                f"sizes says {promised} {name}, build gives {built}",
                "the settings",
                "count as build does" if exact else f"return a number within {TOLERANCE:.0%} of it",
            )

    def knows_its_contents(self, data: PreferenceData) -> None:
        contents, built = self.subject.call("the settings", self.dataset.contents), Contents.of(data)
        if contents is None:
            return
        self.subject.require(
            set(contents.splits) == set(built.splits) and contents.response_tables == built.response_tables,
            f"contents says {contents}, build gives {built}",
            "the settings",
            "describe what build returns, or return None",
        )

    def names_its_source(self) -> None:
        first, second = (self.subject.call("the settings", self.dataset.source_key) for _ in range(2))
        self.subject.require(
            isinstance(first, str) and first == second,
            f"source_key returns {first!r}, then {second!r}",
            "the settings",
            "return a hash of the files that contain the data",
        )

    def repeats_itself(self, data: PreferenceData) -> None:
        self._require_equal(data, self.build("a second build"), "a second build")
        remote = self.subject.call_in_another_process("the settings", _built)
        self._require_equal(data, remote, "a build in another process")

    def _require_equal(self, data: PreferenceData, other: PreferenceData, given: str) -> None:
        changed = [name for name, array in _arrays(data).items() if not _equal(array, _arrays(other).get(name))]
        self.subject.require(
            not changed and data.reference_lines == other.reference_lines,
            f"{', '.join(changed) or 'reference_lines'} differ from build to build",
            given,
            "draw all random numbers from stream(self.data_seed, ...), and sort collections without an order",
        )

    def takes_another_seed(self) -> None:
        dataset = self.dataset.model_copy(update={"data_seed": self.dataset.data_seed + 1})
        given = f"data_seed {dataset.data_seed}"
        other = _DatasetChecks(dataset)
        other.keeps_prompts_apart(other.build(given), given)


def _built(dataset: Dataset) -> PreferenceData:
    return dataset.build(lambda task, done, total: None)


def _built_sizes(data: PreferenceData) -> dict[str, tuple[int, bool]]:
    """Return the sizes of built data by the names of `Sizes`, each with whether `sizes` must be exact."""
    pool = data.splits["pool"].pairs
    held_out = [split.pairs for name, split in data.splits.items() if name != "pool"]
    return {
        "pairs": (len(pool), True),
        "eval_pairs": (len(data.splits["eval"].pairs), True),
        "dimension": (pool.response_features_RD.shape[1], True),
        "responses": (len(pool.response_features_RD), False),
        "prompts": (len(pool.prompt_features_PQ), False),
        "held_out_responses": (sum(len(pairs.response_features_RD) for pairs in held_out), False),
    }


def _arrays(data: PreferenceData) -> dict[str, Array | None]:
    return {
        f"{name}.{item.name}": getattr(part, item.name)
        for name, split in data.splits.items()
        for part in (split.pairs, split.records)
        for item in fields(part)
    }


def _equal(first: Array | None, second: Array | None) -> bool:
    return first is second if first is None or second is None else same(first, second)
