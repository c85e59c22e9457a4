"""The LoRA formula for a batch whose rows use different adapters: written once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional as F

from tunedeck.methods.sites import change_rows, check_rows

if TYPE_CHECKING:
    from tunedeck.methods.lora.layer import LoraLayer

    LoraWork = Sequence[tuple[slice, LoraLayer | None]]


def add_low_rank(x: torch.Tensor, output: torch.Tensor, work: LoraWork) -> torch.Tensor:
    """`output` (batch, ..., out) plus scaling · B A x for the rows of each adapter; x is (batch, ..., in).

    Several adapters at once are one batched product over the rows, each row with its own A and B: faster at every
    length than a product for each adapter or than all adapters side by side (bench/mixed_batch.py).
    """
    if not work:
        return output
    layers = [layer for _, layer in work]
    if any(layer is not None and layer.training and layer.dropout > 0 for layer in layers):
        x = change_rows(x, work, lambda layer, rows: F.dropout(x[rows], cast("LoraLayer", layer).dropout))
    if len(layers) == 1 and layers[0] is not None:
        return _add_one(x, output, layers[0])
    check_rows(x, work)
    a, b = _stacked(layers, output.dtype)
    counts = torch.tensor([rows.stop - rows.start for rows, _ in work], device=x.device)
    if len(work) < len(x):
        owner = torch.repeat_interleave(torch.arange(len(work), device=x.device), counts)
        a, b = a[owner], b[owner]
    h = torch.bmm(x.to(output.dtype).reshape(len(x), -1, x.shape[-1]), a.transpose(1, 2))
    flat = output.reshape(len(x), -1, output.shape[-1])
    return torch.baddbmm(flat, h, b.transpose(1, 2)).view_as(output)


def _add_one(x: torch.Tensor, output: torch.Tensor, layer: LoraLayer) -> torch.Tensor:
    h = F.linear(x.to(output.dtype), layer.lora_A.to(output.dtype)).flatten(0, -2)
    return torch.addmm(output.flatten(0, -2), h, layer.lora_B.to(output.dtype).t(), alpha=layer.scaling).view_as(output)


def _stacked(layers: Sequence[LoraLayer | None], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """scaling · A (adapters, r, in) and B (adapters, out, r), filled up with zeros to the largest r; zeros for the base."""
    known = [layer for layer in layers if layer is not None]
    most = max(layer.lora_A.shape[0] for layer in known)
    nothing = (
        known[0].lora_A.new_zeros(most, known[0].lora_A.shape[1]),
        known[0].lora_B.new_zeros(known[0].lora_B.shape[0], most),
    )
    pairs = [nothing if layer is None else _filled(layer, most) for layer in layers]
    return torch.stack([a for a, _ in pairs]).to(dtype), torch.stack([b for _, b in pairs]).to(dtype)


def _filled(layer: LoraLayer, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    missing = r - layer.lora_A.shape[0]
    a = layer.lora_A * layer.scaling
    return (F.pad(a, (0, 0, 0, missing)), F.pad(layer.lora_B, (0, missing))) if missing else (a, layer.lora_B)
