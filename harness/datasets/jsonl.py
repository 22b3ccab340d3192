"""Preferences from a local file of JSON lines."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from balbench.harness.datasets.baselines import length_only
from balbench.harness.datasets.dataset import Dataset, Progress, Source
from balbench.harness.datasets.encoding_probe import encoding_seconds, sample, texts_to_encode
from balbench.harness.datasets.features import EncoderSettings, Text
from balbench.harness.datasets.grouping import PromptGroups, group_prompts
from balbench.harness.datasets.model_files import file_digest
from balbench.harness.datasets.reading import Layout
from balbench.harness.datasets.splitting import SplitSettings, build_split
from balbench.harness.datasets.text_facts import RowCounts, pairs_of_prompts, text_lines
from balbench.harness.datasets.text_pairs import TextPairs, read_pairs
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


class JsonLines(SplitSettings, EncoderSettings, Dataset):
    """A .jsonl or .jsonl.gz file of preferences between texts (layouts: see `balbench.harness.datasets.reading`)."""

    version: ClassVar[int] = 2
    # The contents of files and models enter the key by `sources`.
    outside_key: ClassVar[frozenset[str]] = frozenset({"path", "file", "encoder", "device", "perplexity"})

    path: str | None = None
    """The file; it has precedence over `file`."""
    file: str | None = None
    """Name of a file in the directory that the environment variable BALBENCH_DATA names."""
    layout: Layout = "auto"
    """Keys of the rows, label or chosen; auto: as in the first row."""

    def build(self, progress: Progress) -> PreferenceData:
        """Read, split by prompt and encode (see `Dataset.build`)."""
        return self.from_pairs(self.read(), str(self.find()), progress)

    def read(self) -> TextPairs:
        """Read the file (errors as in `find` and `read_pairs`)."""
        return read_pairs(self.find(), self.layout, stream(self.data_seed, "order"), self.ood_rule(), self.group)

    def from_pairs(self, pairs: TextPairs, source: str, progress: Progress) -> PreferenceData:
        """Split and encode texts; `source` names them in errors."""
        groups = group_prompts(pairs)
        prompts = self.split_prompts(pairs, stream(self.data_seed, "split"), source, groups)
        texts = _texts(pairs)
        tokens = self.tokenise(texts, progress)
        loss = TokenLoss.of(tokens, pairs.responses_of_pair_N2)
        features = self.encode(texts, progress, tokens)
        del tokens
        responses = len(pairs.response_R)
        tables = self._perplexities(texts[:responses], progress)
        splits = {
            name: build_split(pairs, features[:responses], features[responses:], rows, tables, self.storage)
            for name, rows in prompts.items()
        }
        held_out = {name: split for name, split in splits.items() if name != "pool"}
        lines = {LENGTH_ONLY: length_only(splits["pool"], held_out)}
        data = PreferenceData(splits, lines, _facts(pairs, groups, loss), tuple(loss.warnings(self.max_length)))
        data.check()
        return data

    def _perplexities(self, responses: list[Text], progress: Progress) -> dict[str, Array]:
        """The language model's scores of all responses, by field of `PreferencePool`; empty without a model."""
        if self.perplexity is None:
            return {}
        return dict(zip(PERPLEXITY_TABLES, self.judge(responses, progress).T.copy(), strict=True))

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
        texts, some = _texts(pairs), sample(len(pairs.pair_id_N), CHECKED_PAIRS)
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
            Source("dataset.path", str(path), file_digest(path)),
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
            raise DataError("dataset.path: no file is named; set dataset.path to a .jsonl file")
        remedy = "set BALBENCH_DATA to its directory, or dataset.path to the file"
        directory = os.environ.get("BALBENCH_DATA")
        if not directory:
            raise DataError(f"dataset.path: {self.file} not found; {remedy}")
        return _existing(Path(directory).expanduser() / self.file, f"{self.file} in {directory}", remedy)


def _texts(pairs: TextPairs) -> list[Text]:
    """Return the texts to encode: all responses with their prompts, then all prompts."""
    responses: list[Text] = [
        (pairs.prompt_P[prompt], response)
        for prompt, response in zip(pairs.prompt_of_response_R, pairs.response_R, strict=True)
    ]
    return [*responses, *((prompt, None) for prompt in pairs.prompt_P)]


def _facts(pairs: TextPairs, groups: PromptGroups, loss: TokenLoss) -> dict[str, Any]:
    return {
        "rows": asdict(RowCounts.of(pairs)),
        "groups": {"equal": groups.equal, "continued": groups.continued, "largest": int(groups.size_G.max())},
        "tokens": asdict(loss),
    }


def _existing(path: Path, name: str, remedy: str) -> Path:
    if not path.is_file():
        raise DataError(f"dataset.path: {name} not found; {remedy}")
    return path
