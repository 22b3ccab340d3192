"""Preferences from a local file or directory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np

from balbench.harness.datasets.baselines import length_only
from balbench.harness.datasets.containers import batches, data_parts
from balbench.harness.datasets.dataset import Dataset, Progress, Source
from balbench.harness.datasets.encoding_probe import encoding_seconds, sample, texts_to_encode
from balbench.harness.datasets.features import EncoderSettings, Text
from balbench.harness.datasets.fields import FieldMap
from balbench.harness.datasets.grouping import PromptGroups, group_prompts
from balbench.harness.datasets.model_files import file_digest
from balbench.harness.datasets.reading import UnusableRows, read_votes
from balbench.harness.datasets.splitting import SplitSettings, build_split
from balbench.harness.datasets.text_facts import RowCounts, pairs_of_prompts, text_lines
from balbench.harness.datasets.text_pairs import TextPairs, gather
from balbench.harness.datasets.token_loss import TokenLoss
from balbench.harness.errors import DataError
from balbench.harness.machine import duration, gib, usable_memory
from balbench.harness.pool.contents import Contents, Sizes
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.streams import stream

Array = np.ndarray
LENGTH_ONLY = "length only"
PERPLEXITY_TABLES = ("response_log_perplexity_R", "response_token_entropy_R")  # what `EncoderSettings.judge` returns
CHECKED_PAIRS = 1000  # size of the sample of pairs whose tokens `balbench check` counts


class PreferenceFile(SplitSettings, EncoderSettings, Dataset):
    """Preferences between texts in a file or directory (docs/data.md).

    JSON lines, a JSON array, CSV, TSV, parquet, Arrow, a directory that `save_to_disk` of Hugging Face `datasets`
    wrote, or a directory of such files, compressed with gz, bz2, xz or zst or not. Public schemas are recognised by
    their columns.
    """

    version: ClassVar[int] = 3
    # The contents of files and models enter the key by `sources`.
    outside_key: ClassVar[frozenset[str]] = frozenset({"path", "file", "encoder", "device", "perplexity"})

    path: str | None = None
    """The file or directory; it has precedence over `file`."""
    file: str | None = None
    """Name of a file in the directory that the environment variable BALBENCH_DATA names."""
    split: str | None = None
    """The split to read from a directory that has several; all for all of them."""
    test_split: str | None = None
    """Another split of the directory, whose prompts form the split test; by default a share of the prompts does."""
    fields: FieldMap | None = None
    """Columns by their part in a preference (prompt, response_a, response_b, label, or prompt, chosen, rejected; and
    annotator, prompt_id, id, strength, seconds, price, tie); by default those of the recognised schema."""
    unusable: UnusableRows = "refuse"
    """What to do about rows that cannot be used, such as empty or equal responses: skip leaves them out and counts
    them."""

    def build(self, progress: Progress) -> PreferenceData:
        """Read, split by prompt and encode (see `Dataset.build`)."""
        return self.from_pairs(self.read(), str(self.find()), progress)

    def read(self) -> TextPairs:
        """Read the file (errors as in `find`, `batches`, `read_votes` and `gather`)."""
        train, test = self.parts()
        rows = chain(batches(train), batches(test, is_test=True))
        votes = read_votes(rows, str(self.find()), self.fields, self.ood_rule(), self.group, self.unusable)
        return gather(votes, stream(self.data_seed, "order"))

    def parts(self) -> tuple[list[Path], list[Path]]:
        """Return the files of the pool and of the split test (errors as in `find` and `data_parts`)."""
        path = self.find()
        return data_parts(path, self.split), [] if self.test_split is None else data_parts(path, self.test_split)

    def from_pairs(self, pairs: TextPairs, source: str, progress: Progress) -> PreferenceData:
        """Split and encode texts; `source` names them in errors."""
        groups = group_prompts(pairs)
        prompts = self.split_prompts(pairs, stream(self.data_seed, "split"), source, groups)
        texts = _Texts(pairs)
        tokens = self.tokenise(texts, progress)
        loss = TokenLoss.of(tokens, pairs.responses_of_pair_N2)
        features = self.encode(texts, progress, tokens)
        del tokens
        responses = len(pairs.response_R)
        tables = self._perplexities(texts, responses, progress)
        splits = {
            name: build_split(pairs, features[:responses], features[responses:], rows, tables, self.storage)
            for name, rows in prompts.items()
        }
        held_out = {name: split for name, split in splits.items() if name != "pool"}
        lines = {LENGTH_ONLY: length_only(splits["pool"], held_out)}
        warnings = (*_skipped(pairs), *loss.warnings(self.max_length))
        data = PreferenceData(splits, lines, _facts(pairs, groups, loss), warnings)
        data.check()
        return data

    def _perplexities(self, texts: Sequence[Text], responses: int, progress: Progress) -> dict[str, Array]:
        """The language model's scores of the responses, by field of `PreferencePool`; empty without a model."""
        if self.perplexity is None:
            return {}
        return dict(zip(PERPLEXITY_TABLES, self.judge(texts[:responses], progress).T.copy(), strict=True))

    def read_splits(self) -> tuple[TextPairs, PromptGroups, dict[str, Array]]:
        """Read the file; return its tables, the groups of prompts, and the prompts of each split.

        Raises:
            DataError: the file is missing, a row is invalid, or there are too few prompts.
        """
        pairs = self.read()
        groups = group_prompts(pairs)
        return pairs, groups, self.split_prompts(pairs, stream(self.data_seed, "split"), str(self.find()), groups)

    def sizes(self) -> Sizes:
        """Count what the file holds (see `Dataset.sizes`)."""
        pairs, _, splits = self.read_splits()
        return self._sizes(pairs, splits)

    def _sizes(self, pairs: TextPairs, splits: dict[str, Array]) -> Sizes:
        in_pool_P = np.isin(np.arange(len(pairs.prompt_P)), splits["pool"])
        in_pool_R = in_pool_P[pairs.prompt_of_response_R]
        count_P = np.bincount(pairs_of_prompts(pairs), minlength=len(pairs.prompt_P))
        pairs_P = count_P[in_pool_P]
        return Sizes(
            pairs=int(pairs_P.sum()),
            responses=int(in_pool_R.sum()),
            prompts=len(pairs_P),
            held_out_responses=int((~in_pool_R).sum()),
            dimension=self.width(),
            most_pairs_a_prompt=int(pairs_P.max()),
            eval_pairs=int(count_P[splits["eval"]].sum()),
        )

    def examine(self) -> tuple[Sizes, list[str]]:
        """Describe rows, pairs, splits, losses and the time of the encoder (see `Dataset.examine`)."""
        pairs, groups, splits = self.read_splits()
        sizes = self._sizes(pairs, splits)
        return sizes, [*text_lines(pairs, groups, splits), *self._encoding_lines(pairs)]

    def _encoding_lines(self, pairs: TextPairs) -> list[str]:
        """Return lines about a sample of the pairs: warnings, and the time that the encoder takes."""
        texts, some = _Texts(pairs), sample(len(pairs.pair_id_N), CHECKED_PAIRS)
        rows, row_of = np.unique(pairs.responses_of_pair_N2[some], return_inverse=True)
        prompts = len(pairs.response_R) + np.unique(pairs.prompt_of_response_R[rows])
        tokens = self.tokenise([texts[row] for row in [*rows, *prompts]], lambda *_: None)
        warnings = TokenLoss.of(tokens, row_of.reshape(-1, 2)).warnings(self.max_length)
        new = texts_to_encode(self, texts)
        lines = [f"warning: {line}{'' if len(some) == len(pairs.pair_id_N) else ' (in a sample)'}" for line in warnings]
        if not new:
            return [*lines, f"encoding: all {len(texts):,} texts are in the cache"]
        if (needed := self.encoder_files().weight_bytes()) > usable_memory() // 2:
            return [*lines, f"encoding: time unknown, as a probe would load a model of {gib(needed)}"]
        seconds = duration(encoding_seconds(self, tokens, len(new)))
        return [
            *lines,
            f"encoding: about {seconds} for {len(new):,} of {len(texts):,} texts, by a probe of this machine",
        ]

    def contents(self) -> Contents:
        """Return the splits and tables that the settings give (see `Dataset.contents`)."""
        splits = ("pool", "eval", "test", *(["ood"] if self.ood_field is not None else []))
        return Contents(splits, frozenset(PERPLEXITY_TABLES if self.perplexity is not None else ()))

    def sources(self) -> tuple[Source, ...]:
        """Return the data file and the models (see `Dataset.sources`; errors as in `find` and `encoder_files`)."""
        path = self.find()
        models = [self.encoder_files(), *filter(None, [self.perplexity_files()])]
        return (
            Source("dataset.path", str(path), _digest(*self.parts())),
            *(Source(files.setting, files.name, files.key) for files in models),
        )

    def find(self) -> Path:
        """Return the file's path.

        Raises:
            DataError: no file is named, or it does not exist.
        """
        if self.path is not None:
            return _existing(Path(self.path).expanduser(), self.path, "correct the path")
        if self.file is None:
            raise DataError("dataset.path: no file is named; set dataset.path to a file of preferences")
        remedy = "set BALBENCH_DATA to its directory, or dataset.path to the file"
        directory = os.environ.get("BALBENCH_DATA")
        if not directory:
            raise DataError(f"dataset.path: {self.file} not found; {remedy}")
        return _existing(Path(directory).expanduser() / self.file, f"{self.file} in {directory}", remedy)


class _Texts(Sequence[Text]):
    """The texts to encode: all responses with their prompts, then all prompts."""

    def __init__(self, pairs: TextPairs) -> None:
        self._pairs, self._responses = pairs, len(pairs.response_R)

    def __len__(self) -> int:
        return self._responses + len(self._pairs.prompt_P)

    @overload
    def __getitem__(self, row: int) -> Text: ...
    @overload
    def __getitem__(self, row: slice) -> list[Text]: ...
    def __getitem__(self, row: int | slice) -> Text | list[Text]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row = int(row) % len(self)
        if row >= self._responses:
            return self._pairs.prompt_P[row - self._responses], None
        return self._pairs.prompt_P[self._pairs.prompt_of_response_R[row]], self._pairs.response_R[row]

    def __iter__(self) -> Iterator[Text]:
        pairs = self._pairs
        yield from zip(pairs.prompt_P.take(pairs.prompt_of_response_R), pairs.response_R, strict=True)
        yield from ((prompt, None) for prompt in pairs.prompt_P)


def _skipped(pairs: TextPairs) -> list[str]:
    return [f"{pairs.facts.unusable_line()}; the study skips them"] if pairs.facts.unusable else []


def _digest(train: Sequence[Path], test: Sequence[Path]) -> str:
    """Return a hash of the names and contents of files, and of the files in directories."""
    if not test and len(train) == 1 and train[0].is_file():
        return file_digest(train[0])  # the name of a single file does not matter
    roles = (("train", train), ("test", test))
    named = [f"{role}:{file.name}:{file_digest(file)};" for role, parts in roles for file in _files(parts)]
    return hashlib.sha256("".join(named).encode()).hexdigest()


def _files(parts: Sequence[Path]) -> Iterator[Path]:
    for part in parts:
        yield from [part] if not part.is_dir() else sorted(file for file in part.iterdir() if file.is_file())


def _facts(pairs: TextPairs, groups: PromptGroups, loss: TokenLoss) -> dict[str, Any]:
    return {
        "reading": asdict(pairs.facts),
        "rows": asdict(RowCounts.of(pairs)),
        "groups": {"equal": groups.equal, "continued": groups.continued, "largest": int(groups.size_G.max())},
        "tokens": asdict(loss),
    }


def _existing(path: Path, name: str, remedy: str) -> Path:
    if not path.exists():
        raise DataError(f"dataset.path: {name} not found; {remedy}")
    return path
