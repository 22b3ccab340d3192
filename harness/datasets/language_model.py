"""Log-perplexities and token entropies of responses under a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from balbench.harness.datasets.text_encoder import Batch, TextEncoder
from balbench.harness.datasets.tokens import PARTS, Tokens
from balbench.harness.errors import DataError

if TYPE_CHECKING:
    import torch

Array = np.ndarray


class LanguageModel(TextEncoder):
    """A causal language model and its tokenizer."""

    setting: ClassVar[str] = "dataset.perplexity"
    role: ClassVar[str] = "language model"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    batch_share: ClassVar[float] = 0.25  # the logits of a token take more memory than its states

    def check(self) -> None:
        """Check that the model predicts each token from the tokens before it only.

        Raises:
            DataError: later tokens change the prediction.
        """
        import torch

        ids_BT = torch.tensor([[0, 1, 2], [0, 1, 0]], device=self.model.device)
        with torch.inference_mode():
            logits_BTV = self._run(ids_BT, {}).logits[:, :2].float()
        if not torch.allclose(logits_BTV[0], logits_BTV[1], rtol=1e-2, atol=1e-2):
            raise DataError(
                f"{self.setting}: {self.files.name} sees the tokens that it should predict;"
                " name a causal language model"
            )

    def judge(self, tokens: Sequence[Tokens], batch: Batch) -> Array:
        """Return the log-perplexity of each member's response and the token entropy of its text, (B, 2) float32.

        Args:
            tokens: the tokens of all texts.
            batch: which texts to judge, and in which shape.

        Raises:
            DataError: the accelerator runs out of memory.
        """
        with self.output(tokens, batch) as (output, _):
            scores = [
                _judge_one(output.logits[row, : len(tokens[member].ids_T)], tokens[member])
                for row, member in enumerate(batch.members)
            ]
        return np.array(scores, dtype=np.float32)


def _judge_one(logits_TV: torch.Tensor, tokens: Tokens) -> tuple[float, float]:
    """Return mean -log p(token | earlier tokens) over the response (NaN without tokens) and the summed entropy."""
    import torch

    log_p_TV = logits_TV.float().log_softmax(dim=1)
    entropy_T = torch.special.entr(log_p_TV.exp()).sum(dim=1)
    of_response = np.flatnonzero(tokens.part_T[1:] == PARTS.index("response"))  # the first token has no prediction
    if not len(of_response):
        return float("nan"), float(entropy_T.double().sum())
    log_p = log_p_TV[torch.from_numpy(of_response), torch.from_numpy(tokens.ids_T[of_response + 1])]
    return float(-log_p.double().mean()), float(entropy_T.double().sum())
