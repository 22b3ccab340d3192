"""Matrix products of heads at a named precision: operands are rounded, sums stay float32.

On a GPU with tensor cores, the hardware computes these products. On a CPU operands are rounded before a float32
product, so that the effect of a precision on results can be measured anywhere; this is slower than float32.

Axes: K members, b rows, i and o the inputs and outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bf16"]
TF32_DROPPED = 13  # number of the 23 mantissa bits of float32 that tf32 lacks


class MatMul:
    """Products of float32 operands.

    Attributes:
        precision: precision of the operands: float32 (24 significant bits), tf32 (11, NVIDIA's TensorFloat-32) or bf16
            (8).
    """

    precision: Precision = "float32"

    def addmm(self, bias_o: torch.Tensor, inputs_bi: torch.Tensor, weight_io: torch.Tensor) -> torch.Tensor:
        """Return bias + inputs weight, shape (b, o)."""
        return torch.addmm(bias_o, inputs_bi, weight_io)

    def baddbmm(
        self, bias_K1o: torch.Tensor, inputs_Kbi: torch.Tensor, weight_Kio: torch.Tensor, scale: float = 1.0
    ) -> torch.Tensor:
        """Return bias + scale inputs weight of each member, shape (K, b, o)."""
        if _is_single_vector(weight_Kio):
            twice = (tensor.expand(2, -1, -1) for tensor in (bias_K1o, inputs_Kbi, weight_Kio))
            return torch.baddbmm(*twice, alpha=scale)[:1].clone()
        return torch.baddbmm(bias_K1o, inputs_Kbi, weight_Kio, alpha=scale)

    def bmm(self, left_Kbi: torch.Tensor, right_Kio: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return left right of each member, shape (K, b, o)."""
        if _is_single_vector(right_Kio):
            product_1bo = torch.bmm(left_Kbi.expand(2, -1, -1), right_Kio.expand(2, -1, -1))[:1]
            return product_1bo.clone() if out is None else out.copy_(product_1bo)
        if out is not None and not out.is_contiguous():
            # torch computes a batch as one product only if the output is contiguous, otherwise member after member.
            torch.bmm(right_Kio.mT, left_Kbi.mT, out=out.mT)
            return out
        return torch.bmm(left_Kbi, right_Kio, out=out)


class Tf32MatMul(MatMul):
    """MatMul of operands in tf32."""

    precision = "tf32"

    def addmm(self, bias_o: torch.Tensor, inputs_bi: torch.Tensor, weight_io: torch.Tensor) -> torch.Tensor:
        """See MatMul."""
        with _tensor_cores(inputs_bi):
            return super().addmm(bias_o, _tf32(inputs_bi), _tf32(weight_io))

    def baddbmm(
        self, bias_K1o: torch.Tensor, inputs_Kbi: torch.Tensor, weight_Kio: torch.Tensor, scale: float = 1.0
    ) -> torch.Tensor:
        """See MatMul."""
        with _tensor_cores(inputs_Kbi):
            return super().baddbmm(bias_K1o, _tf32(inputs_Kbi), _tf32(weight_Kio), scale)

    def bmm(self, left_Kbi: torch.Tensor, right_Kio: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """See MatMul."""
        with _tensor_cores(left_Kbi):
            return super().bmm(_tf32(left_Kbi), _tf32(right_Kio), out)


class Bf16MatMul(MatMul):
    """MatMul of operands in bf16; a GPU receives bf16 tensors."""

    precision = "bf16"

    def addmm(self, bias_o: torch.Tensor, inputs_bi: torch.Tensor, weight_io: torch.Tensor) -> torch.Tensor:
        """See MatMul."""
        if inputs_bi.is_cuda:
            return torch.mm(inputs_bi.bfloat16(), weight_io.bfloat16(), out_dtype=torch.float32).add_(bias_o)
        return super().addmm(bias_o, rounded(inputs_bi, "bf16"), rounded(weight_io, "bf16"))

    def baddbmm(
        self, bias_K1o: torch.Tensor, inputs_Kbi: torch.Tensor, weight_Kio: torch.Tensor, scale: float = 1.0
    ) -> torch.Tensor:
        """See MatMul."""
        if inputs_Kbi.is_cuda:
            return self.bmm(inputs_Kbi, weight_Kio).mul_(scale).add_(bias_K1o)
        return super().baddbmm(bias_K1o, rounded(inputs_Kbi, "bf16"), rounded(weight_Kio, "bf16"), scale)

    def bmm(self, left_Kbi: torch.Tensor, right_Kio: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """See MatMul."""
        if left_Kbi.is_cuda:
            return torch.bmm(left_Kbi.bfloat16(), right_Kio.bfloat16(), out_dtype=torch.float32, out=out)
        return super().bmm(rounded(left_Kbi, "bf16"), rounded(right_Kio, "bf16"), out)


MATMULS: dict[Precision, MatMul] = {p.precision: p for p in (MatMul(), Tf32MatMul(), Bf16MatMul())}


@contextmanager
def _tensor_cores(tensor: torch.Tensor) -> Iterator[None]:
    """Allow tf32 operands in float32 products on a GPU."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tensor.is_cuda or before
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _tf32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_cuda else rounded(tensor, "tf32")


def rounded(tensor: torch.Tensor, precision: Precision) -> torch.Tensor:
    """Round to the nearest numbers of the precision, as float32; ties round away from 0 in tf32 and to even in bf16."""
    if precision == "float32":
        return tensor
    if precision == "bf16":
        return tensor.bfloat16().float()
    half = 1 << (TF32_DROPPED - 1)
    return tensor.view(torch.int32).add(half).bitwise_and_(-(1 << TF32_DROPPED)).view(torch.float32)


# On a CPU, the product of a single matrix with a vector runs other code than a batch of products, with other bits. A
# single member must have the same bits as a member among others, so its product is computed twice, as a batch of two.
def _is_single_vector(right_Kio: torch.Tensor) -> bool:
    K, _, o = right_Kio.shape
    return K == 1 and o == 1 and not right_Kio.is_cuda
