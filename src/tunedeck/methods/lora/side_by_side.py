"""LoRA at several linear layers that read the same input, such as query, key and value: their products at once.

A step of decoding multiplies a few rows by small matrices, where the number of products costs more than their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TypeAlias, final

import torch
from torch import nn

from tunedeck.methods.sites import Layer, RowDispatch, add_rounded, unchanged

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
        """Add scaling · B A x to `output` (batch, outputs of all layers) for x (batch, in), and return it."""
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
        return unchanged
    return first.cached(tuple(dispatches), partial(_stacked, dispatches, sizes), slot="side by side")


def _add_one(a: torch.Tensor, b: torch.Tensor, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Add what one adapter does to all rows: a (in, ranks of all layers), b (ranks, outputs)."""
    return output.add_(x.float() @ a @ b)


def _stacked(dispatches: Sequence[RowDispatch | None], sizes: Sequence[int]) -> Add | None:
    known = [one for one in dispatches if one is not None]
    if any(isinstance(layer, nn.Module) or (layer and layer.is_dora) for one in known for layer in one.layers):
        return None
    nothing = [None] * len(known[0].parts)
    columns = [nothing if one is None else [layer for _, layer in one.parts] for one in dispatches]
    changed = [number for number, part in enumerate(zip(*columns, strict=True)) if any(part)]
    active = slice(changed[0], changed[-1] + 1)
    ranks = [max((len(layer.lora_A) for layer in column if layer), default=0) for column in columns]
    a, b = _matrices([column[active] for column in columns], ranks, sizes)
    slices = [rows for rows, _ in known[0].parts[active]]
    if slices == [slice(None)]:
        return partial(_add_one, a[0], b[0])
    counts = [rows.stop - rows.start for rows in slices]
    if min(counts) < max(counts):
        a, b = (tensor.repeat_interleave(torch.tensor(counts), 0) for tensor in (a, b))
    spans = [(r, out) for r, out in zip(_spans(ranks), _spans(sizes), strict=True) if r.stop > r.start]
    own = tuple((r, out, b[:, r, out].contiguous()) for r, out in spans)
    return SideBySide(slice(slices[0].start, slices[-1].stop), a, own).add


def _matrices(
    columns: Sequence[Sequence[Layer | None]], ranks: Sequence[int], sizes: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scaling · Aᵀ (parts, in, all ranks) and Bᵀ (parts, all ranks, all sizes), zero where no layer is.

    `columns` are the layers of each part at each linear layer.
    """
    like = next(layer.lora_A for column in columns for layer in column if layer)
    a = like.new_zeros(len(columns[0]), like.shape[1], sum(ranks), dtype=torch.float32)
    b = like.new_zeros(len(columns[0]), sum(ranks), sum(sizes), dtype=torch.float32)
    for column, rank, outputs in zip(columns, _spans(ranks), _spans(sizes), strict=True):
        for part, layer in enumerate(column):
            if layer is not None:
                own = slice(rank.start, rank.start + len(layer.lora_A))
                a[part, :, own] = layer.scaling * layer.lora_A.T
                b[part, own, outputs] = layer.lora_B.T
    return a, b


def _spans(sizes: Sequence[int]) -> list[slice]:
    """Return where each of some neighbours is."""
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
