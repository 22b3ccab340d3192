"""Matrix products of heads at a named precision: operands are rounded, sums stay float32.

On a GPU with tensor cores these are the products of its hardware. On a CPU they are imitated by rounding, so that
what a precision does to results can be measured anywhere; there they are slower than float32.

Axes: K members, b rows, i and o the inputs and outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bf16"]
TF32_DROPPED = 13  # of float32's 23 bits of mantissa
PLAIN = nullcontext()


class Products:
    """Products of float32 tensors whose operands are rounded to a precision.

    Attributes:
        precision: float32 (24 significant bits), tf32 (11, NVIDIA's TensorFloat-32) or bf16 (8).
    """

    def __init__(self, precision: Precision) -> None:
        self.precision = precision

    def addmm(self, bias_o: torch.Tensor, inputs_bi: torch.Tensor, weight_io: torch.Tensor) -> torch.Tensor:
        """bias + inputs weight, shape (b, o)."""
        if self._halves(inputs_bi):
            return torch.mm(inputs_bi.bfloat16(), weight_io.bfloat16(), out_dtype=torch.float32).add_(bias_o)
        with self._mode(inputs_bi):
            return torch.addmm(bias_o, self._operand(inputs_bi), self._operand(weight_io))

    def baddbmm(
        self, bias_K1o: torch.Tensor, inputs_Kbi: torch.Tensor, weight_Kio: torch.Tensor, scale: float = 1.0
    ) -> torch.Tensor:
        """bias + scale inputs weight of each member, shape (K, b, o)."""
        if self._halves(inputs_Kbi):
            return self.bmm(inputs_Kbi, weight_Kio).mul_(scale).add_(bias_K1o)
        inputs_Kbi, weight_Kio = self._operand(inputs_Kbi), self._operand(weight_Kio)
        if _lonely_vector(weight_Kio):
            twice = (tensor.expand(2, -1, -1) for tensor in (bias_K1o, inputs_Kbi, weight_Kio))
            return torch.baddbmm(*twice, alpha=scale)[:1].clone()
        with self._mode(inputs_Kbi):
            return torch.baddbmm(bias_K1o, inputs_Kbi, weight_Kio, alpha=scale)

    def bmm(self, left_Kbi: torch.Tensor, right_Kio: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """left right of each member, shape (K, b, o)."""
        if self._halves(left_Kbi):
            return torch.bmm(left_Kbi.bfloat16(), right_Kio.bfloat16(), out_dtype=torch.float32, out=out)
        left_Kbi, right_Kio = self._operand(left_Kbi), self._operand(right_Kio)
        if _lonely_vector(right_Kio):
            product_1bo = torch.bmm(left_Kbi.expand(2, -1, -1), right_Kio.expand(2, -1, -1))[:1]
            return product_1bo.clone() if out is None else out.copy_(product_1bo)
        with self._mode(left_Kbi):
            return torch.bmm(left_Kbi, right_Kio, out=out)

    def _halves(self, tensor: torch.Tensor) -> bool:
        return self.precision == "bf16" and tensor.is_cuda

    def _operand(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.is_cuda else rounded(tensor, self.precision)

    def _mode(self, tensor: torch.Tensor) -> AbstractContextManager[None]:
        return _tensor_cores() if self.precision == "tf32" and tensor.is_cuda else PLAIN


@contextmanager
def _tensor_cores() -> Iterator[None]:
    """Let a GPU round the operands of float32 products to tf32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def rounded(tensor: torch.Tensor, precision: Precision) -> torch.Tensor:
    """The nearest float32 numbers that the precision has; ties go away from 0 in tf32 and to even in bf16."""
    if precision == "float32":
        return tensor
    if precision == "bf16":
        return tensor.bfloat16().float()
    half = 1 << (TF32_DROPPED - 1)
    return tensor.view(torch.int32).add(half).bitwise_and_(-(1 << TF32_DROPPED)).view(torch.float32)


# On a CPU the product of one matrix with a vector goes another way than a batch of several, with other bits; those of
# a single member must be those that it has among others.
def _lonely_vector(right_Kio: torch.Tensor) -> bool:
    return len(right_Kio) == 1 and right_Kio.shape[2] == 1 and right_Kio.device.type == "cpu"
