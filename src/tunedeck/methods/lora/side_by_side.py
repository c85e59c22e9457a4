"""LoRA at several linear layers that read the same input, such as query, key and value: their products at once.

A step of decoding multiplies a few rows by small matrices, where the number of products costs more than their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, final

import torch
from torch import nn

from tunedeck.methods.sites import Layer, RowDispatch, add_rounded

Add: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@final
@dataclass(frozen=True, slots=True)
class SideBySide:
    """The matrices of all layers for the rows from the first to the last that any of them changes."""

    rows: slice
    a: torch.Tensor
    """Scaled, (parts or rows, in, ranks of all layers), float32."""
    b: tuple[tuple[slice, slice, torch.Tensor], ...]
    """Some of the ranks, some of the outputs, and the matrix (parts or rows, these ranks, these outputs) in float32."""

    def add(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Add scaling · B A x to `output` (batch, 1, outputs of all layers) for x (batch, 1, in), and return it."""
        own, parts = output[self.rows], len(self.a)
        h = torch.bmm(x[self.rows].float().reshape(parts, -1, x.shape[-1]), self.a)
        for ranks, outputs, b in self.b:
            its = own[..., outputs]
            add_rounded(its, torch.bmm(h[..., ranks], b).view(its.shape), its)
        return output


def side_by_side(dispatches: Sequence[RowDispatch | None], sizes: Sequence[int]) -> Add | None:
    """Return the function that adds to outputs of these sizes what the layers of the running batch do.

    None where a layer is a DoRA or may still be trained.
    """
    first = next((one for one in dispatches if one is not None), None)
    if first is None:
        return _unchanged
    return first.cached(tuple(dispatches), partial(_stacked, dispatches, sizes), slot="side by side")


def _unchanged(_: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    return output


def _stacked(dispatches: Sequence[RowDispatch | None], sizes: Sequence[int]) -> Add | None:
    known = [one for one in dispatches if one is not None]
    layers = [layer for one in known for layer in one.layers if layer is not None]
    if any(isinstance(layer, nn.Module) or layer.is_dora for layer in layers):
        return None
    parts: list[tuple[Layer | None, ...]] = list(
        zip(
            *([layer for _, layer in one.parts] if one else [None] * len(known[0].parts) for one in dispatches),
            strict=True,
        )
    )
    changed = [number for number, part in enumerate(parts) if any(part)]
    active = slice(changed[0], changed[-1] + 1)
    slices = [rows for rows, _ in known[0].parts[active]]
    ranks = [
        max((layer.lora_A.shape[0] for layer in column if layer), default=0) for column in zip(*parts, strict=True)
    ]
    like = layers[0].lora_A
    a = like.new_zeros(len(slices), like.shape[1], sum(ranks), dtype=torch.float32)
    b = like.new_zeros(len(slices), sum(ranks), sum(sizes), dtype=torch.float32)
    for number, part in enumerate(parts[active]):
        rank, out = 0, 0
        for layer, r, size in zip(part, ranks, sizes, strict=True):
            if layer is not None:
                own = len(layer.lora_A)
                a[number, :, rank : rank + own] = layer.scaling * layer.lora_A.T
                b[number, rank : rank + own, out : out + size] = layer.lora_B.T
            rank, out = rank + r, out + size
    if len(slices) == 1:
        return SideBySide(slices[0], a, ((slice(None), slice(None), b),)).add
    counts = [rows.stop - rows.start for rows in slices]
    if min(counts) < max(counts):
        a, b = (tensor.repeat_interleave(torch.tensor(counts), 0) for tensor in (a, b))
    spans, rank, out = [], 0, 0
    for r, size in zip(ranks, sizes, strict=True):
        if r:
            at = slice(rank, rank + r), slice(out, out + size)
            spans.append((*at, b[:, at[0], at[1]].contiguous()))
        rank, out = rank + r, out + size
    return SideBySide(slice(slices[0].start, slices[-1].stop), a, tuple(spans)).add
