"""Preferences from a local file of JSON lines."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from balbench.harness.datasets.baselines import length_only
from balbench.harness.datasets.dataset import Dataset, Progress
from balbench.harness.datasets.features import EncoderSettings, Text
from balbench.harness.datasets.model_files import file_digest
from balbench.harness.datasets.reading import Layout
from balbench.harness.datasets.splitting import SplitSettings, build_split
from balbench.harness.datasets.text_pairs import TextPairs, read_pairs
from balbench.harness.errors import DataError
from balbench.harness.pool.contents import Contents, Sizes
from balbench.harness.pool.pairs import PreferenceData
from balbench.harness.streams import stream

Array = np.ndarray
LENGTH_ONLY = "length only"
JUDGED = ("response_log_perplexity_R", "response_token_entropy_R")  # what `EncoderSettings.judge` tells


class JsonLines(SplitSettings, EncoderSettings, Dataset):
    """A .jsonl or .jsonl.gz file of preferences between texts (layouts: see harness/datasets/reading.py)."""

    version: ClassVar[int] = 1
    outside_key: ClassVar[frozenset[str]] = frozenset(
        {"path", "file", "encoder", "device", "perplexity"}
    )  # see source_key

    path: str | None = Field(None, description="the file; it wins over `file`")
    file: str | None = Field(None, description="its name in the directory that the variable BALBENCH_DATA names")
    layout: Layout = Field("auto", description="label or chosen; auto: as the first row says")

    def build(self, progress: Progress) -> PreferenceData:
        """Read, split by prompt and encode (see `Dataset.build`)."""
        return self.from_pairs(self.read(), str(self.find()), progress)

    def read(self) -> TextPairs:
        """Read the file (errors as in `find` and `read_pairs`)."""
        return read_pairs(self.find(), self.layout, stream(self.data_seed, "order"), self.ood_rule(), self.group)

    def from_pairs(self, pairs: TextPairs, source: str, progress: Progress) -> PreferenceData:
        """Split and encode texts; `source` names them in errors."""
        prompts = self.split_prompts(pairs, stream(self.data_seed, "split"), source)
        texts: list[Text] = [
            (pairs.prompt_P[prompt], response)
            for prompt, response in zip(pairs.prompt_of_response_R, pairs.response_R, strict=True)
        ]
        features = self.encode([*texts, *((prompt, None) for prompt in pairs.prompt_P)], progress)
        responses_RD, prompts_PD = features[: len(texts)], features[len(texts) :]
        tables = self._perplexities(texts, progress)
        splits = {
            name: build_split(pairs, responses_RD, prompts_PD, rows, tables, self.storage)
            for name, rows in prompts.items()
        }
        held_out = {name: split for name, split in splits.items() if name != "pool"}
        data = PreferenceData(splits, {LENGTH_ONLY: length_only(splits["pool"], held_out)})
        data.check()
        return data

    def _perplexities(self, texts: list[Text], progress: Progress) -> dict[str, Array]:
        """What the language model makes of all responses, by its name in `PreferencePool` (nothing without a model)."""
        if self.perplexity is None:
            return {}
        return dict(zip(JUDGED, self.judge(texts, progress).T.copy(), strict=True))

    def sizes(self) -> Sizes:
        """Count what the file holds (see `Dataset.sizes`)."""
        pairs = self.read()
        pool = self.split_prompts(pairs, stream(self.data_seed, "split"), str(self.find()))["pool"]
        in_pool_R = np.isin(pairs.prompt_of_response_R, pool)
        return Sizes(
            pairs=int(in_pool_R[pairs.responses_of_pair_N2[:, 0]].sum()),
            responses=int(in_pool_R.sum()),
            prompts=len(pool),
            held_out_responses=int((~in_pool_R).sum()),
            dimension=self.width(),
        )

    def contents(self) -> Contents:
        """Say what the data will hold (see `Dataset.contents`)."""
        splits = ("pool", "eval", "test", *(["ood"] if self.ood_field is not None else []))
        return Contents(splits, frozenset(JUDGED if self.perplexity is not None else ()))

    def source_key(self) -> str:
        """Return a hash of the data file and the models' files (errors as in `find` and `encode`)."""
        models = [self.encoder_files(), *filter(None, [self.perplexity_files()])]
        found = [file_digest(self.find()), *(files.key for files in models)]
        return hashlib.sha256(":".join(found).encode()).hexdigest()

    def find(self) -> Path:
        """Return the file's path.

        Raises:
            DataError: no file is named, or it is not there.
        """
        if self.path is not None:
            return _existing(Path(self.path).expanduser(), self.path, "give --set dataset.path=FILE")
        if self.file is None:
            raise DataError("dataset.path: no file is named; give --set dataset.path=FILE.jsonl")
        remedy = "set BALBENCH_DATA to its directory or give --set dataset.path=FILE"
        directory = os.environ.get("BALBENCH_DATA")
        if not directory:
            raise DataError(f"dataset.path: {self.file} not found; {remedy}")
        return _existing(Path(directory).expanduser() / self.file, f"{self.file} in {directory}", remedy)


def _existing(path: Path, name: str, remedy: str) -> Path:
    if not path.is_file():
        raise DataError(f"dataset.path: {name} not found; {remedy}")
    return path
