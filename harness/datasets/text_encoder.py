"""A transformers model as a text encoder: cuts that spare the response, batches of fixed shapes, pooling."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from balbench.harness.errors import DataError

if TYPE_CHECKING:
    import torch

Array = np.ndarray
Pooling = Literal["mean", "last_token"]
Cut = Literal["end", "start"]
Part = Literal["prompt", "response", "frame"]  # the frame is what the template adds
PARTS: tuple[Part, ...] = ("prompt", "response", "frame")  # in the order in which they are cut
SPECIAL = len(PARTS)  # tokens that the tokenizer adds; never cut
WIDTH_STEP = 16
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 1024, 16384
TOKENIZER_TEXTS = 512


@dataclass(frozen=True)
class Piece:
    """A stretch of a text: the prompt, the response, or what the template puts around them."""

    part: Part
    text: str


@dataclass(frozen=True)
class Batch:
    """Texts that go through the model together, as an array of a fixed shape (rows, width).

    Attributes:
        members: indices of the texts, at most `rows`; the rows left over are filled up.
        width: tokens of a row, padding included.
    """

    members: list[int]
    rows: int
    width: int


def plan_batches(lengths: Sequence[int], keys: Sequence[bytes], limit: int, batch_tokens: int) -> list[Batch]:
    """Put texts of similar lengths together, the longest first.

    The plan depends on the set of texts only (their `lengths` and distinct `keys`), so that a run that was
    killed repeats its batches. And the shape of a text's batch depends on its own length only: with equal
    shapes a text gets the same bits from its row whatever stands in the others (measured with MiniLM on a
    CPU, one and two threads; elsewhere the last bit may differ). So batches that are not full are filled up,
    and no batch holds rows with and without padding: models skip the mask where nothing is padded.
    """
    groups: dict[tuple[int, bool], list[int]] = {}
    for index in sorted(range(len(keys)), key=keys.__getitem__):
        full = lengths[index] >= limit
        width = limit if full else min(limit, WIDTH_STEP * (lengths[index] // WIDTH_STEP + 1))
        groups.setdefault((width, full), []).append(index)
    batches = []
    for (width, _), members in sorted(groups.items(), reverse=True):
        rows = max(1, batch_tokens // width)
        batches += [Batch(members[at : at + rows], rows, width) for at in range(0, len(members), rows)]
    return batches


def cut_tokens(part_T: Array, limit: int, cut: Cut = "end") -> Array:
    """Return which of T tokens to keep, ascending, so that at most `limit` are left.

    The prompt is cut at its end (or start); where that is not enough the response at its end, then the template.

    Args:
        part_T: for each token its index in PARTS, or SPECIAL.
        limit: tokens to keep.
        cut: where the prompt is cut.
    """
    index_T = np.arange(len(part_T))
    from_start_T = (part_T == PARTS.index("prompt")) & (cut == "start")
    order = np.lexsort((np.where(from_start_T, index_T, -index_T), part_T))
    return np.sort(order[max(0, len(part_T) - limit) :])


def pool(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Return one feature vector a text, (B, D) float32, wherever the padding stands.

    Args:
        hidden_BTD: the last hidden states.
        mask_BT: 1 for tokens, 0 for padding.
        pooling: the mean over the tokens, or the last token's state.
    """
    import torch

    hidden_BTD = hidden_BTD.float()
    if pooling == "mean":
        weights_BT1 = mask_BT.unsqueeze(-1).float()
        return (hidden_BTD * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
    last_B = (mask_BT * torch.arange(1, mask_BT.shape[1] + 1, device=mask_BT.device)).argmax(dim=1)
    return hidden_BTD[torch.arange(len(hidden_BTD)), last_B]


class TextEncoder:
    """A model and its tokenizer.

    Attributes:
        limit: tokens of a text at most.
        batch_tokens: tokens of a batch, padding included.
    """

    setting: ClassVar[str] = "dataset.encoder"
    what: ClassVar[str] = "encoder"
    auto_class: ClassVar[str] = "AutoModel"
    share: ClassVar[float] = 1.0  # of the usual number of tokens of a batch

    def __init__(self, model: Any, tokenizer: Any, limit: int, batch_tokens: int | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.limit = limit
        usual = CPU_BATCH_TOKENS if model.device.type == "cpu" else GPU_BATCH_TOKENS
        self.batch_tokens = batch_tokens or int(self.share * usual)

    @classmethod
    def load(
        cls,
        name: str,
        revision: str | None,
        limit: int,
        dtype: str = "float32",
        device: str = "auto",
        batch_tokens: int | None = None,
    ) -> Self:
        """Load a local directory, or a model of the hub at a commit.

        Raises:
            DataError: the model cannot be loaded, lacks weights or a fast tokenizer, or takes fewer tokens.
        """
        import torch
        import transformers

        other = f"give another model with --set {cls.setting}=/path/to/model"
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            with quiet():
                tokenizer = transformers.AutoTokenizer.from_pretrained(name, revision=revision)
                # Safetensors only: the older weight files are pickles.
                model, report = getattr(transformers, cls.auto_class).from_pretrained(
                    name, revision=revision, use_safetensors=True, output_loading_info=True
                )
                if model.config.is_encoder_decoder:
                    model = model.get_encoder()
                model = model.to(device=device, dtype=getattr(torch, dtype)).eval()
        except Exception as error:  # transformers lets through whatever its parts raise
            raise loading_error(name, error, cls.setting) from error
        missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
        if missing:
            raise DataError(f"{cls.setting}: {name} lacks weights ({missing[0]}, ...); {other}")
        if not tokenizer.is_fast:
            raise DataError(f"{cls.setting}: {name} has no fast tokenizer; {other}")
        most = min(getattr(model.config, "max_position_embeddings", None) or limit, tokenizer.model_max_length)
        if limit > most:
            raise DataError(f"dataset.max_length: {name} takes {most} tokens; --set dataset.max_length={most}")
        return cls(model, tokenizer, limit, batch_tokens)

    def tokens(self, texts: Sequence[Sequence[Piece]], cut: Cut = "end") -> list[Array]:
        """Return the token ids of each text, special tokens included, cut to the limit (see `cut_tokens`).

        Raises:
            DataError: a text has no token.
        """
        return [ids_T for ids_T, _ in self._tokens(texts, cut)]

    def tokens_and_parts(self, texts: Sequence[Sequence[Piece]], cut: Cut = "end") -> tuple[list[Array], list[Array]]:
        """Return the same, and for each token its index in PARTS, or SPECIAL (errors as in `tokens`)."""
        found = list(self._tokens(texts, cut))
        return [ids_T for ids_T, _ in found], [part_T for _, part_T in found]

    def _tokens(self, texts: Sequence[Sequence[Piece]], cut: Cut) -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(texts), TOKENIZER_TEXTS):
            some = texts[start : start + TOKENIZER_TEXTS]
            encoded = self.tokenizer(
                ["".join(piece.text for piece in text) for text in some],
                padding=False,
                truncation=False,
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
                verbose=False,
            )
            for row, text in enumerate(some):
                yield self._cut(text, encoded, row, cut)

    def _cut(self, text: Sequence[Piece], encoded: Any, row: int, cut: Cut) -> tuple[Array, Array]:
        ids_T = np.array(encoded["input_ids"][row], dtype=np.int64)
        if not len(ids_T):
            start = "".join(piece.text for piece in text)[:40]
            raise DataError(f"the text {start!r} has no token for the {self.what}; leave its rows out")
        start_T, end_T = np.array(encoded["offset_mapping"][row]).T
        part_of_piece = np.array([PARTS.index(piece.part) for piece in text])
        # A token that reaches over a boundary belongs where it ends; one without characters to the frame.
        piece_T = np.searchsorted(np.cumsum([len(piece.text) for piece in text]), end_T - 1, side="right")
        piece_T = np.minimum(piece_T, len(text) - 1)
        part_T = np.where(end_T > start_T, part_of_piece[piece_T], PARTS.index("frame"))
        part_T[np.array(encoded["special_tokens_mask"][row], dtype=bool)] = SPECIAL
        if len(ids_T) <= self.limit:
            return ids_T, part_T.astype(np.int8)
        kept = cut_tokens(part_T, self.limit, cut)
        return ids_T[kept], part_T[kept].astype(np.int8)

    def features(self, tokens: Sequence[Array], batch: Batch, pooling: Pooling) -> Array:
        """Return the features of a batch's members, (B, D) float32.

        Args:
            tokens: the token ids of all texts.
            batch: which of them to encode, and in which shape.
            pooling: see `pool`.

        Raises:
            DataError: the accelerator's memory does not suffice.
        """
        with self.output(tokens, batch) as (output, mask_BT):
            return pool(output.last_hidden_state, mask_BT, pooling)[: len(batch.members)].cpu().numpy()

    @contextmanager
    def output(self, tokens: Sequence[Array], batch: Batch) -> Iterator[tuple[Any, torch.Tensor]]:
        """Give the model's output for a batch and its mask (B, T), padded on the right (errors as in `features`)."""
        import torch

        device = self.model.device
        ids_BT, mask_BT = (torch.from_numpy(array_BT).to(device) for array_BT in self._padded(tokens, batch))
        try:
            with torch.inference_mode():
                yield self.model(input_ids=ids_BT, attention_mask=mask_BT), mask_BT
        except torch.OutOfMemoryError as error:
            fewer = max(batch.width, self.batch_tokens // 4)
            raise DataError(
                f"the {self.what} ran out of memory; lower the batch: --set dataset.batch_tokens={fewer}"
            ) from error

    def _padded(self, tokens: Sequence[Array], batch: Batch) -> tuple[Array, Array]:
        """Token ids and mask in the shape of a batch; rows left over repeat its first text."""
        # Padded on the right whatever the tokenizer says: so positions count from 0 in every kind of model.
        ids_BT = np.full((batch.rows, batch.width), self.tokenizer.pad_token_id or 0)
        mask_BT = np.zeros((batch.rows, batch.width), dtype=np.int64)
        for row in range(batch.rows):
            ids_T = tokens[batch.members[row if row < len(batch.members) else 0]]
            ids_BT[row, : len(ids_T)] = ids_T
            mask_BT[row, : len(ids_T)] = 1
        return ids_BT, mask_BT


def loading_error(name: str, error: Exception, setting: str) -> DataError:
    """Return what to say where the model that a setting names cannot be loaded."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(
        f"{setting}: {name} cannot be loaded ({reason}); give a model's directory: --set {setting}=/path/to/model"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and the hub from printing progress bars and warnings; errors tell what matters."""
    from transformers.utils import logging as transformers_logging

    hub = logging.getLogger("huggingface_hub")
    level, hub_level = transformers_logging.get_verbosity(), hub.level
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
