"""Preference data of the Hugging Face hub, by name."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import model_validator

from balbench.harness.datasets.containers import data_files
from balbench.harness.datasets.dataset import Progress, Source
from balbench.harness.datasets.preference_file import PreferenceFile
from balbench.harness.errors import DataError
from balbench.harness.files import cache_directory
from balbench.harness.pool.pairs import PreferenceData

PARQUET = "refs/convert/parquet"  # the hub's own conversion of data sets that are scripts


class Adapter(NamedTuple):
    """What a repository holds.

    Attributes:
        train: patterns of the files whose prompts form pool and eval (and test, without files of its own).
        test: patterns of the files whose prompts form the split test.
        revision: the pinned commit, or a branch where no commit is known.
        settings: further settings of the data set; those of a study have precedence.
        prompt: what identifies a prompt.
        licence: the licence that the repository states.
        rows: rows for training and test.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    revision: str
    settings: dict[str, Any]
    prompt: str
    licence: str
    rows: str


HH = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
ADAPTERS = {
    "openai/summarize_from_feedback": Adapter(
        ("comparisons/train/*.parquet", "comparisons/*-train*.parquet"),
        ("comparisons/validation/*.parquet", "comparisons/*-validation*.parquet"),
        PARQUET,
        {"ood_field": "info.article", "ood_pattern": "."},
        "the post; the articles of CNN/DM form ood",
        "CC BY 4.0",
        "92,858 + 86,086",
    ),
    "Anthropic/hh-rlhf": Adapter(
        tuple(f"{folder}/train.jsonl*" for folder in HH),
        tuple(f"{folder}/test.jsonl*" for folder in HH),
        "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
        {"unusable": "skip"},
        "the transcript up to the last turn",
        "MIT",
        "160,800 + 8,552",
    ),
    "HuggingFaceH4/ultrafeedback_binarized": Adapter(
        ("data/train_prefs-*.parquet",),
        ("data/test_prefs-*.parquet",),
        "3949bf5f8c17c394422ccfab0c31ea9c20bdeb85",
        {"unusable": "skip"},
        "the prompt",
        "MIT",
        "61,135 + 2,000",
    ),
    "tatsu-lab/alpaca_farm": Adapter(
        ("alpaca_human_preference.json",), (), "main", {}, "instruction and input", "CC BY-NC 4.0", "9,691"
    ),
    "stanfordnlp/SHP": Adapter(
        ("*/train.json",),
        ("*/test.json",),
        "e94b5f32602712d78ed494fe79105b1959396686",
        {},
        "the post",
        "terms of Reddit's API",
        "348,718 + 18,409",
    ),
    "nvidia/HelpSteer2": Adapter(
        ("preference/preference.jsonl*",),
        (),
        "990b2711a36180dd19d9c94b8627844866f8982a",
        {},
        "the prompt",
        "CC BY 4.0",
        "9,125",
    ),
    "openai/webgpt_comparisons": Adapter(
        ("default/train/*.parquet", "default/*-train*.parquet"),
        (),
        PARQUET,
        {"unusable": "skip"},
        "the question",
        "none stated",
        "19,578",
    ),
    "lmsys/chatbot_arena_conversations": Adapter(
        ("data/train-*.parquet",),
        (),
        "1b6335d42a1d2c7e34870c905d03ab964f7f2bd8",
        {"unusable": "skip"},
        "the conversation up to the last answer",
        "prompts CC BY 4.0, answers CC BY-NC 4.0; gated",
        "33,000",
    ),
}


class HubData(PreferenceFile):
    """Preferences of a repository of the Hugging Face hub (docs/data.md has the known repositories).

    Known repositories have pinned revisions, files of their own for the split test, and further settings. Any other
    repository is read as a directory: name its files, its splits or its columns where they are not clear.
    """

    outside_key: ClassVar[frozenset[str]] = PreferenceFile.outside_key | {"repo", "revision"}

    repo: str
    """The repository, owner/name."""
    revision: str | None = None
    """The commit, branch or tag; by default the pinned one of a known repository, and main of others."""
    path: str | None = None
    """A local copy of the repository, which is read instead of the hub."""
    files: list[str] | None = None
    """Patterns of the files of pool and eval, such as data/train-*.parquet."""
    test_files: list[str] | None = None
    """Patterns of the files whose prompts form the split test; an empty list draws the split."""

    @model_validator(mode="before")
    @classmethod
    def _adapt(cls, settings: Any) -> Any:
        adapter = ADAPTERS.get(str(settings.get("repo"))) if isinstance(settings, dict) else None
        if adapter is None or settings.get("files") is not None:
            return settings
        files = {"files": list(adapter.train), "test_files": list(adapter.test), "revision": adapter.revision}
        return {**files, **adapter.settings, **settings}

    def parts(self) -> tuple[list[Path], list[Path]]:
        """Return the files of the pool and of the split test (errors as in `find` and `data_files`)."""
        if self.files is None:
            return super().parts()
        path = self.find()
        return data_files(path, self.files), data_files(path, self.test_files) if self.test_files else []

    def sources(self) -> tuple[Source, ...]:
        """Return the repository and the models (see `Dataset.sources`)."""
        data, *models = super().sources()
        return (data._replace(setting="dataset.repo") if self.path is None else data, *models)

    def find(self) -> Path:
        """Return the directory of the repository's files.

        Raises:
            DataError: the local copy does not exist, or the hub does not give the files.
        """
        return self._fetched() if self.path is None else super().find()

    def build(self, progress: Progress) -> PreferenceData:
        """Read, split by prompt and encode (see `Dataset.build`); the facts say which commit was read."""
        data = super().build(progress)
        commit = self.find().name if self.path is None else None
        return replace(data, facts=data.facts | {"hub": {"repo": self.repo, "commit": commit}})

    def _fetched(self) -> Path:
        """Return the stored copy of the repository if it is complete, or fetch it."""
        import huggingface_hub as hub

        patterns = None if self.files is None else [*self.files, *(self.test_files or [])]
        wanted: dict[str, Any] = {"repo_type": "dataset", "cache_dir": cache_directory() / "hub"}
        wanted["allow_patterns"] = patterns
        complete = f".complete-{hashlib.sha256(json.dumps(patterns).encode()).hexdigest()[:16]}"
        with _quiet():
            with suppress(OSError, ValueError):  # not stored, or no name of a repository
                stored = Path(hub.snapshot_download(self.repo, revision=self.revision, local_files_only=True, **wanted))
                if (stored / complete).exists():
                    return stored
            with _fetch_errors(self.repo):
                # Without this request, the library would return an incomplete copy where there is no network.
                info = hub.HfApi().dataset_info(self.repo, revision=self.revision)
                stored = Path(hub.snapshot_download(self.repo, revision=info.sha, **wanted))
        names = hub.utils.filter_repo_objects([file.rfilename for file in info.siblings], allow_patterns=patterns)
        if missing := [name for name in names if not (stored / name).is_file()]:
            raise _error(self.repo, f"was fetched without {missing[0]}; try again")
        (stored / complete).touch()
        return stored


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _fetch_errors(repo: str) -> Iterator[None]:
    """Turn errors of the hub's library into a DataError of one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise _error(repo, "is gated; accept its terms on the hub and run huggingface-cli login") from None
    except errors.RevisionNotFoundError:
        raise _error(repo, "has no such revision; correct dataset.revision") from None
    except errors.RepositoryNotFoundError:
        raise _error(repo, "is not on the hub, or private; correct dataset.repo") from None
    except errors.HFValidationError:
        raise _error(repo, "is no name of a repository; give owner/name") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        remedy = "run once with a network, or set dataset.path to a local copy"
        where = f"is not completely in the cache ({cache_directory() / 'hub'})"
        raise _error(repo, f"{where}, and there is no network; {remedy}") from None
    except OSError as error:  # errors of HTTP are OSErrors too
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise _error(repo, f"cannot be fetched ({reason}); try again, or set dataset.path to a local copy") from None


def _error(repo: str, problem: str) -> DataError:
    return DataError(f"dataset.repo: {repo} {problem}")
