"""What a causal language model makes of responses: their log-perplexities and token entropies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from balbench.harness.datasets.text_encoder import PARTS, Batch, TextEncoder
from balbench.harness.errors import DataError

if TYPE_CHECKING:
    import torch

Array = np.ndarray


class LanguageModel(TextEncoder):
    """A causal language model and its tokenizer."""

    setting: ClassVar[str] = "dataset.perplexity"
    what: ClassVar[str] = "language model"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    share: ClassVar[float] = 0.25  # the logits of a token take more memory than its states

    def __init__(self, model: Any, tokenizer: Any, limit: int, batch_tokens: int | None = None) -> None:
        """See `TextEncoder`.

        Raises:
            DataError: what follows a token changes what the model says of it.
        """
        super().__init__(model, tokenizer, limit, batch_tokens)
        if not self._is_causal():
            raise DataError(
                f"{self.setting}: this model sees the tokens that it should predict; name a causal language model"
            )

    def _is_causal(self) -> bool:
        import torch

        ids_BT = torch.tensor([[0, 1, 2], [0, 1, 0]], device=self.model.device)
        with torch.inference_mode():
            logits_BTV = self.model(input_ids=ids_BT).logits[:, :2].float()
        return bool(torch.allclose(logits_BTV[0], logits_BTV[1], rtol=1e-2, atol=1e-2))

    def judge(self, tokens: Sequence[Array], parts: Sequence[Array], batch: Batch) -> Array:
        """Return the log-perplexity of each member's response and the token entropy of its text, (B, 2) float32.

        Args:
            tokens: the token ids of all texts.
            parts: for each token of each text its index in PARTS, or SPECIAL.
            batch: which of them to judge, and in which shape.

        Raises:
            DataError: the accelerator's memory does not suffice.
        """
        with self.output(tokens, batch) as (output, _):
            found = [
                _judge_one(output.logits[row, : len(tokens[member])], tokens[member], parts[member])
                for row, member in enumerate(batch.members)
            ]
        return np.array(found, dtype=np.float32)


def _judge_one(logits_TV: torch.Tensor, ids_T: Array, part_T: Array) -> tuple[float, float]:
    """Mean of -log p(token | those before) over the response's tokens (NaN if it has none), and summed entropy."""
    import torch

    log_p_TV = logits_TV.float().log_softmax(dim=1)
    entropy_T = torch.special.entr(log_p_TV.exp()).sum(dim=1)
    of_response = np.flatnonzero(part_T[1:] == PARTS.index("response"))  # nothing predicts the first token
    if not len(of_response):
        return float("nan"), float(entropy_T.double().sum())
    said = log_p_TV[torch.from_numpy(of_response), torch.from_numpy(ids_T[of_response + 1])]
    return float(-said.double().mean()), float(entropy_T.double().sum())
