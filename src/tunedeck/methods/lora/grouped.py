"""The LoRA formula for a batch whose rows use different adapters: written once, in the form its shape wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from tunedeck.methods.lora.layer import LoraLayer

    LoraWork = Sequence[tuple[slice, LoraLayer | None]]

SIDE_BY_SIDE_FLOPS_PER_GROUP = 2_000_000
"""Below this many extra operations per adapter one wide product beats one product per adapter (bench/mixed_batch.py)."""


def add_low_rank(x: torch.Tensor, output: torch.Tensor, work: LoraWork) -> torch.Tensor:
    """`output` (batch, ..., out) plus scaling · B A x for the rows of each adapter; x is (batch, ..., in)."""
    layers = [layer for _, layer in work if layer is not None]
    if not layers:
        return output
    if len(work) == 1:
        return _low_rank(x, output, layers[0])
    dropping = any(layer.training and layer.dropout > 0 for layer in layers)
    if (
        len(layers) > 2
        and not dropping
        and _extra_flops(x, output, layers) < SIDE_BY_SIDE_FLOPS_PER_GROUP * len(layers)
    ):
        return _side_by_side(x, output, work)
    return torch.cat(
        [output[rows] if layer is None else _low_rank(x[rows], output[rows], layer) for rows, layer in work]
    )


def _low_rank(x: torch.Tensor, output: torch.Tensor, layer: LoraLayer) -> torch.Tensor:
    if layer.training and layer.dropout > 0:
        x = F.dropout(x, layer.dropout)
    h = F.linear(x.to(output.dtype), layer.lora_A.to(output.dtype)).flatten(0, -2)
    return torch.addmm(output.flatten(0, -2), h, layer.lora_B.to(output.dtype).t(), alpha=layer.scaling).view_as(output)


def _side_by_side(x: torch.Tensor, output: torch.Tensor, work: LoraWork) -> torch.Tensor:
    """All A's stacked and all B's beside each other; a mask (batch, sum of r) keeps each row to its own adapter."""
    layers = [layer for _, layer in work if layer is not None]
    a = torch.cat([layer.lora_A for layer in layers]).to(output.dtype)
    b = torch.cat([layer.lora_B for layer in layers], dim=1).to(output.dtype)
    mask = output.new_zeros(x.shape[0], a.shape[0])
    start = 0
    for rows, layer in work:
        if layer is not None:
            r = layer.lora_A.shape[0]
            mask[rows, start : start + r] = layer.scaling
            start += r
    h = F.linear(x.to(output.dtype), a) * mask.view(x.shape[0], *([1] * (x.dim() - 2)), -1)
    return torch.addmm(output.flatten(0, -2), h.flatten(0, -2), b.t()).view_as(output)


def _extra_flops(x: torch.Tensor, output: torch.Tensor, layers: Sequence[LoraLayer]) -> int:
    rank = sum(layer.lora_A.shape[0] for layer in layers)
    return 2 * (x.numel() // x.shape[-1]) * rank * (x.shape[-1] + output.shape[-1])
