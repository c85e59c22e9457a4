"""A linear layer with its weight in 8 bits, one scale for each output: y = s · (q x) + b, q = round(W / s), s = max|W|
/ 127.

The weight is that of LLM.int8() (arXiv 2208.07339) and of bitsandbytes' Linear8bitLt; the product is plainer. There x
is rounded to 8 bits too, all but the columns in which any row of the batch has an outlier, so a row's answer depends on
its neighbours; here each row is separate. The backward pass unpacks the weight again instead of keeping it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, final

import torch
from torch import nn
from torch.nn import functional as F

from tunedeck.core.compat.torch import fits_int8_product, int8_product

FEW_ROWS = 16
"""Rows of x up to which bfloat16 times the 8-bit weight itself is no slower than unpacking it, as in decoding."""

_ROWS_AT_ONCE = 4096
"""Rows of a weight that are in float32 at once while it is rounded."""


@final
class Int8Linear(nn.Module):
    """weight (out, in) int8, scale (out,) and bias (out,) in the precision of the given weight, (out, in)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        whole, scales = zip(*(_rounded(rows) for rows in torch.split(weight, _ROWS_AT_ONCE)), strict=True)
        self.weight = nn.Parameter(torch.cat(whole), requires_grad=False)
        self.register_buffer("scale", torch.cat(scales))
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out), in the precision of x."""
        scale = cast(torch.Tensor, self.scale)
        rows = x.numel() // self.in_features
        few = 0 < rows <= FEW_ROWS and x.dtype == scale.dtype == torch.bfloat16 and not torch.is_grad_enabled()
        output: torch.Tensor
        if few and fits_int8_product(self.weight):
            product = int8_product(x.reshape(rows, self.in_features), self.weight, scale)
            output = product.view(*x.shape[:-1], self.out_features)
        else:
            output = _Product.apply(x, self.weight, scale)  # type: ignore[no-untyped-call]
        return output if self.bias is None else output + self.bias

    @property
    def multiplies_few_rows(self) -> bool:
        """Tell whether up to `FEW_ROWS` rows are multiplied by the 8-bit weight itself where no gradient is wanted."""
        return cast(torch.Tensor, self.scale).dtype == torch.bfloat16 and fits_int8_product(self.weight)

    def dense(self) -> torch.Tensor:
        """Return s · q, (out, in)."""
        scale = cast(torch.Tensor, self.scale)
        return self.weight.to(scale.dtype) * scale[:, None]


@torch.inference_mode(mode=False)
def side_by_side_in_memory(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return one tensor (sum of rows, ...) that has the given ones as its parts: they are moved there once."""
    first, end = tensors[0], tensors[0].data_ptr()
    for tensor in tensors:
        if tensor.data_ptr() != end or tensor.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            break
        end += tensor.nbytes
    else:
        return first.detach().as_strided((sum(map(len, tensors)), *first.shape[1:]), first.stride())
    whole = torch.cat([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, torch.split(whole, [*map(len, tensors)]), strict=True):
        tensor.data = part
    return whole


def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return q (rows, in) and s (rows,) of some rows of a weight."""
    numbers = weight.float()
    scale = (numbers.abs().amax(dim=1) / 127).clamp(min=1e-12).to(weight.dtype)
    return (numbers / scale[:, None].float()).round().clamp(-127, 127).to(torch.int8), scale


@final
class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(x, weight.to(x.dtype)) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        return (gradients[0] * scale) @ weight.to(gradients[0].dtype), None, None
