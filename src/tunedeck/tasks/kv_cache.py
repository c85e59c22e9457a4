"""The keys and values of decoding rows: rows join, leave and share a beginning. Rows stand on the right, padding on the left."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say


def copy_of(cache: DynamicCache, config: Any) -> DynamicCache:
    """A cache that begins with the same tensors; growing it leaves the first as it is, for growing makes new tensors."""
    copied = DynamicCache(config=config)
    for layer, old in zip(copied.layers, cache.layers, strict=True):
        layer.lazy_initialization(old.keys, old.values)
        _fill(layer, old.keys, old.values, cache.get_seq_length())
    return copied


def join(cache: DynamicCache, other: DynamicCache) -> None:
    """Put the rows of `other` below those of `cache`, both filled up on the left to the longer one."""
    length = max(cache.get_seq_length(), other.get_seq_length())
    for layer, new in zip(cache.layers, other.layers, strict=True):
        width = max(layer.keys.shape[-2], new.keys.shape[-2])
        keys, values = (
            torch.cat([F.pad(t, (0, 0, width - t.shape[-2], 0)) for t in pair])
            for pair in ((layer.keys, new.keys), (layer.values, new.values))
        )
        _fill(layer, keys, values, length)


def keep(cache: DynamicCache, rows: torch.Tensor | None, length: int) -> None:
    """Keep some rows in the order given, None for all, and their last `length` positions."""
    for layer in cache.layers:
        keys, values = (
            (t if rows is None else t[rows])[:, :, max(0, t.shape[-2] - length) :] for t in (layer.keys, layer.values)
        )
        _fill(layer, keys, values, length)


def check_joinable(cache: DynamicCache, model: str) -> None:
    """Raise ConfigError for an architecture that keeps another state than keys and values of each position."""
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        raise ConfigError(
            say("{model} keeps a state from which rows cannot come and go; it cannot be served", model=model)
        )


def position_bytes(cache: DynamicCache) -> int:
    """Bytes of one position of one row."""
    total = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    return int(total // (cache.layers[0].keys.shape[0] * cache.get_seq_length()))


def _fill(layer: Any, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
    layer.keys, layer.values = keys, values
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length = length
