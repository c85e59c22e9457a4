"""The LoRA formula for a batch whose rows use different adapters: written once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

from tunedeck.methods.sites import Work, change_rows, change_touched, check_rows, dtype_of_products

if TYPE_CHECKING:
    from tunedeck.methods.lora.layer import LoraLayer


def add_low_rank(x: torch.Tensor, output: torch.Tensor, work: Work) -> torch.Tensor:
    """`output` (batch, ..., out) plus scaling · B A x for the rows of each adapter; x is (batch, ..., in).

    Several adapters at once are one batched product over the rows, each row with its own A and B: faster at every
    length than a product for each adapter or than all adapters side by side (bench/mixed_batch.py).
    """
    layers = cast("list[LoraLayer | None]", work.layers)
    if any(layer is not None and layer.training and layer.dropout > 0 for layer in layers):
        x = change_rows(x, work, lambda layer, rows: F.dropout(x[rows], cast("LoraLayer", layer).dropout))
    check_rows(x, work)
    own = x[work.rows]
    if len(layers) == 1 and layers[0] is not None:
        return change_touched(output, work, 2, partial(_add_one, own.to(output.dtype).flatten(0, -2), layers[0]))
    dtype = dtype_of_products(output)
    a, b = work.kept(dtype, partial(_stacked, work, dtype))
    h = torch.bmm(own.to(dtype).reshape(len(own), -1, x.shape[-1]), a)
    if dtype != output.dtype:
        return change_touched(output, work, 3, lambda its, out: torch.add(its, torch.bmm(h, b).to(its.dtype), out=out))
    return change_touched(output, work, 3, lambda its, out: torch.baddbmm(its, h, b, out=out))


def _add_one(x: torch.Tensor, layer: LoraLayer, its: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    h = F.linear(x, layer.lora_A.to(x.dtype))
    return torch.addmm(its, h, layer.lora_B.to(x.dtype).t(), alpha=layer.scaling, out=out)


def _stacked(work: Work, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """scaling · Aᵀ (rows, in, r) and Bᵀ (rows, r, out), filled up with zeros to the largest r; zeros for the base."""
    a = work.stacked(lambda layer: cast("LoraLayer", layer).lora_A)
    b = work.stacked(lambda layer: cast("LoraLayer", layer).lora_B)
    a = work.scaled(a, lambda layer: cast("LoraLayer", layer).scaling)
    return a.to(dtype).transpose(1, 2), b.to(dtype).transpose(1, 2)
