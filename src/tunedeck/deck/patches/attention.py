"""The attention kernel for decoding, where one new position attends to all positions before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch.nn import functional as F

from tunedeck.core.compat.transformers import attention_of, can_use_sdpa, register_attention, set_attention
from tunedeck.deck.patches.base import Patch, Unchanged
from tunedeck.models.load import LoadedBase

_NAME = "tunedeck_decoding"
_PLAIN_ROWS = 4
"""Rows from which two plain products are faster than torch's kernel: half the time at 16 rows and 128 positions."""


@final
@dataclass(frozen=True, slots=True)
class Buckets:
    """Keys or values of one layer where the rows of a batch are in several tensors, see `generation.buckets`."""

    tensors: tuple[torch.Tensor, ...]
    """One for each bucket: (rows of the bucket, heads, positions, size)."""
    rows: tuple[torch.Tensor, ...]
    """The rows of the batch in each bucket."""
    places: torch.Tensor  # (rows,)
    """Where each row is when the buckets follow each other."""
    begins: tuple[int, ...]
    """The column of the batch's mask at which each bucket's positions begin."""


def attention_over_buckets(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor | Buckets,
    value: torch.Tensor | Buckets,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return `grouped_attention` of the rows of each bucket, in the order of the rows."""
    if not isinstance(key, Buckets) or not isinstance(value, Buckets):
        assert isinstance(key, torch.Tensor)
        assert isinstance(value, torch.Tensor)
        return grouped_attention(module, query, key, value, attention_mask, scaling, softcap)
    outputs = []
    for keys, values, rows, begin in zip(key.tensors, value.tensors, key.rows, key.begins, strict=True):
        columns = slice(begin, begin + keys.shape[2])
        mask = None if attention_mask is None else attention_mask[..., columns].index_select(0, rows)
        outputs.append(grouped_attention(module, query.index_select(0, rows), keys, values, mask, scaling, softcap)[0])
    return torch.cat(outputs).index_select(0, key.places), None


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention (rows, 1, heads, size) of one query per row, in the form of transformers' functions.

    The query heads that share a key head are the rows of one product, so that no keys or values are repeated.
    `attention_mask` (rows, 1, 1, positions) is added to the scores.
    """
    rows, heads, _one, size = query.shape
    key_heads, positions = key.shape[1:3]
    scaling = size**-0.5 if scaling is None else scaling
    grouped = query.reshape(rows, key_heads, heads // key_heads, size)
    if rows < _PLAIN_ROWS and softcap is None:
        mask = None if attention_mask is None else attention_mask.expand(-1, -1, grouped.shape[2], -1)
        output = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    else:
        scores = torch.bmm(grouped.flatten(0, 1), key.reshape(-1, positions, size).transpose(1, 2)).view(
            rows, key_heads, -1, positions
        )
        scores = scores * scaling if softcap is None else torch.tanh(scores * (scaling / softcap)) * softcap
        scores = scores if attention_mask is None else scores.add_(attention_mask)
        output = torch.bmm(scores.softmax(-1).flatten(0, 1), value.reshape(-1, positions, value.shape[-1]))
    return output.reshape(rows, 1, heads, -1), None


@final
@dataclass(frozen=True, slots=True)
class RegisteredAttention:
    """Compute attention with a function that was registered by a name."""

    name: str

    @contextmanager
    def on(self, base: LoadedBase) -> Iterator[None]:
        """Switch the model's attention implementation while the block runs."""
        before = attention_of(base.model)
        set_attention(base.model, self.name)
        try:
            yield
        finally:
            set_attention(base.model, before)


def decoding_attention(base: LoadedBase) -> Patch:
    """Return the patch for steps of decoding: products for groups of heads on a CPU where the model supports it."""
    on_cpu = next(base.model.parameters()).device.type == "cpu"
    return bucketed_attention(base) if on_cpu and can_use_sdpa(base.model) else Unchanged()


def bucketed_attention(base: LoadedBase) -> Patch:
    """Return the patch for steps whose rows are in several buckets, on any device."""
    register_attention(_NAME, attention_over_buckets)
    return RegisteredAttention(_NAME)
