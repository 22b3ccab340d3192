"""A transformers model as a text encoder: batches of fixed shapes, pooling of token states."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from balbench.harness.datasets.model_files import ENCODER, ModelFiles, Pooling, another_model, text_config
from balbench.harness.datasets.tokens import Piece, Tokenizer, Tokens
from balbench.harness.errors import DataError

if TYPE_CHECKING:
    import torch

Array = np.ndarray
WIDTH_STEP = 16
CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 1024, 16384
TRIAL_TEXT = "This text tries out the model."
PADDING_EFFECT = 0.1  # relative change of token states by padding, larger than rounding can cause


@dataclass(frozen=True)
class Batch:
    """Texts that go through the model together, as an array of a fixed shape (rows, width).

    Attributes:
        members: indices of the texts, at most `rows`; remaining rows repeat the first text.
        rows: rows of the array.
        width: tokens of a row, padding included.
    """

    members: list[int]
    rows: int
    width: int


def plan_batches(lengths: Sequence[int], keys: Sequence[bytes], limit: int, batch_tokens: int) -> list[Batch]:
    """Put texts of similar lengths into batches, the longest first.

    The plan depends on the set of texts only (their `lengths` and distinct `keys`), so that a resumed run
    repeats its batches. The shape of a text's batch depends on the text's own length only: with equal
    shapes a text gets the same bits from its row for all contents of the other rows (measured with MiniLM on a
    CPU; elsewhere the last bit may differ). Incomplete batches are therefore filled up,
    and no batch mixes rows with and without padding, because models skip the mask if nothing is padded.
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


def pool(hidden_BTD: torch.Tensor, mask_BT: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Return one feature vector for each text, (B, D) float32, for padding on either side.

    Args:
        hidden_BTD: the last hidden states.
        mask_BT: 1 for tokens, 0 for padding.
        pooling: the mean or the maximum over the tokens, or the state of the first (`cls`) or last token.
    """
    import torch

    hidden_BTD = hidden_BTD.float()
    if pooling == "mean":
        weights_BT1 = mask_BT.unsqueeze(-1).float()
        return (hidden_BTD * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
    if pooling == "max":
        return hidden_BTD.masked_fill(mask_BT.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)
    if pooling == "cls":
        position_B = mask_BT.argmax(dim=1)
    else:
        position_B = (mask_BT * torch.arange(1, mask_BT.shape[1] + 1, device=mask_BT.device)).argmax(dim=1)
    return hidden_BTD[torch.arange(len(hidden_BTD)), position_B]


def usable_positions(model: Any) -> int | None:
    """Return the largest number of tokens that a model accepts; None if its positions have no limit."""
    import torch

    most = getattr(text_config(model.config), "max_position_embeddings", None)
    limits = [most] if isinstance(most, int) and most > 0 else []
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, torch.nn.Embedding):
            # RoBERTa and models derived from it number positions from padding_idx + 1.
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return min(limits, default=None)


class TextEncoder:
    """A model and its tokenizer.

    Attributes:
        model: the model of transformers.
        tokenizer: the model's tokenizer, with the largest number of tokens of a text.
        batch_tokens: tokens of a batch, padding included.
        files: the files of the model, for errors.
    """

    setting: ClassVar[str] = ENCODER
    role: ClassVar[str] = "encoder"
    auto_class: ClassVar[str] = "AutoModel"
    batch_share: ClassVar[float] = 1.0  # factor on the default number of tokens of a batch

    def __init__(self, model: Any, tokenizer: Tokenizer, files: ModelFiles, batch_tokens: int | None = None) -> None:
        self.model, self.tokenizer, self.files = model, tokenizer, files
        usual = CPU_BATCH_TOKENS if self.device_type == "cpu" else GPU_BATCH_TOKENS
        self.batch_tokens = batch_tokens or int(self.batch_share * usual)
        self._takes_mask = "attention_mask" in inspect.signature(model.forward).parameters

    @property
    def limit(self) -> int:
        """Largest number of tokens of a text."""
        return self.tokenizer.limit

    @property
    def device_type(self) -> str:
        """Kind of the model's device: cpu or cuda."""
        return str(self.model.device.type)

    def replica(self) -> Self:
        """Return an encoder for another thread, with a copy of the model that shares its weights.

        The copy has buffers and attributes of its own, because some models change theirs while they compute (rotary
        frequencies that depend on the length of the texts).
        """
        other = copy(self)
        other.model = deepcopy(self.model, {id(weights): weights for weights in self.model.parameters()})
        return other

    @classmethod
    def load(
        cls,
        files: ModelFiles,
        limit: int,
        dtype: str = "float32",
        device: str = "auto",
        batch_tokens: int | None = None,
    ) -> Self:
        """Load a model and check it with a short text.

        Raises:
            DataError: the model cannot be loaded, lacks weights, accepts fewer tokens, or does not encode texts.
        """
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = Tokenizer.load(files, limit, cls.role)
        # Only safetensors are loaded, because older weight files are pickles.
        model, report = files.load(cls.auto_class, use_safetensors=True, output_loading_info=True)
        with files.errors():
            if model.config.is_encoder_decoder:
                model = model.get_encoder()
            model = model.to(device=device, dtype=getattr(torch, dtype)).eval()
        missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
        if missing:
            raise DataError(f"{cls.setting}: {files.name} lacks weights ({missing[0]}, ...); {another_model(files)}")
        most = min(usable_positions(model) or limit, tokenizer.model.model_max_length)
        if limit > most:
            raise DataError(f"dataset.max_length: {files.name} takes {most} tokens; set dataset.max_length={most}")
        encoder = cls(model, tokenizer, files, batch_tokens)
        encoder.check()
        return encoder

    def check(self) -> None:
        """Encode a short text with and without padding.

        Raises:
            DataError: the model gives no states of tokens, or padding changes them.
        """
        tokens = [*self.tokenizer.tokens([[Piece("prompt", TRIAL_TEXT)]])]
        length = len(tokens[0].ids_T)
        states = [self._trial(tokens, width) for width in (length, min(length + WIDTH_STEP, self.limit))]
        alone_TD, padded_TD = (states_TD[:length] for states_TD in states)
        if (padded_TD - alone_TD).norm() > PADDING_EFFECT * alone_TD.norm():
            raise DataError(
                f"{self.setting}: {self.files.name} mixes padding into its states (it has no attention mask);"
                f" {another_model(self.files)}"
            )

    def _trial(self, tokens: list[Tokens], width: int) -> torch.Tensor:
        """Return the states of a text's tokens, (T, D)."""
        import torch

        with self.output(tokens, Batch([0], 1, width)) as (output, _):
            states = getattr(output, "last_hidden_state", None)
        if not isinstance(states, torch.Tensor) or states.shape[:2] != (1, width):
            raise DataError(
                f"{self.setting}: {self.files.name} is no text encoder (a {type(self.model).__name__} gives no states"
                f" of tokens); {another_model(self.files)}"
            )
        return states[0].float()

    def features(self, tokens: Sequence[Tokens], batch: Batch, pooling: Pooling) -> Array:
        """Return the features of a batch's members, (B, D) float32.

        Args:
            tokens: the tokens of all texts.
            batch: which texts to encode, and in which shape.
            pooling: see `pool`.

        Raises:
            DataError: the accelerator runs out of memory.
        """
        with self.output(tokens, batch) as (output, mask_BT):
            return pool(output.last_hidden_state, mask_BT, pooling)[: len(batch.members)].cpu().numpy()

    @contextmanager
    def output(self, tokens: Sequence[Tokens], batch: Batch) -> Iterator[tuple[Any, torch.Tensor]]:
        """Yield the model's output for a batch and its mask (B, T), padded on the right.

        Raises:
            DataError: the accelerator runs out of memory, or the model cannot run on tokens.
        """
        import torch

        device = self.model.device
        ids_BT, mask_BT = (torch.from_numpy(array_BT).to(device) for array_BT in self._padded(tokens, batch))
        mask = {"attention_mask": mask_BT} if self._takes_mask else {}
        try:
            with torch.inference_mode():
                yield self._run(ids_BT, mask), mask_BT
        except torch.OutOfMemoryError as error:
            fewer = max(batch.width, self.batch_tokens // 4)
            raise DataError(
                f"the {self.role} ran out of memory; lower the batch: set dataset.batch_tokens={fewer}"
            ) from error

    def _run(self, ids_BT: torch.Tensor, mask: dict[str, torch.Tensor]) -> Any:
        import torch

        try:
            return self.model(input_ids=ids_BT, **mask)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{self.setting}: {self.files.name} cannot run on the tokens of a text ({reason});"
                f" {another_model(self.files)}"
            ) from error

    def _padded(self, tokens: Sequence[Tokens], batch: Batch) -> tuple[Array, Array]:
        """Return token ids and mask in the shape of a batch; remaining rows repeat the first text."""
        # Padding is always on the right, so that positions start at 0 in every kind of model.
        ids_BT = np.full((batch.rows, batch.width), self.tokenizer.model.pad_token_id or 0)
        mask_BT = np.zeros((batch.rows, batch.width), dtype=np.int64)
        for row in range(batch.rows):
            ids_T = tokens[batch.members[row if row < len(batch.members) else 0]].ids_T
            ids_BT[row, : len(ids_T)] = ids_T
            mask_BT[row, : len(ids_T)] = 1
        return ids_BT, mask_BT
