"""The key-value cache of a batch: rows join, leave and share a prefix. Padding is on the left.

Prefill fills transformers' cache; a decoding batch keeps its rows in preallocated layers (`PreallocatedLayer`),
where a step writes one position and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, TypeAlias, final

import torch
from torch.nn import functional as F
from transformers import Cache, DynamicCache

from tunedeck.core.compat.transformers import (
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    cache_of_layers,
    fill_cache_layer,
)
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

BLOCK = 64
"""Positions by which full tensors grow; between two growths the CPU's kernel library needs no new kernels."""

Tensors: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, (rows, heads, positions, size)."""


@final
class PreallocatedLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values (rows, heads, capacity, size), filled up to `length`; the rest is zero and masked by the model.

    The capacity never exceeds `max_length` positions.
    """

    is_sliding = False

    def __init__(self, tensors: Tensors, max_length: int) -> None:
        super().__init__()
        self.is_initialized = True
        self.length, self.max_length = tensors[0].shape[-2], max_length
        self.keys, self.values = (self._padded(tensor) for tensor in tensors)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the layer begins with the rows of a prefill."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Tensors:
        """Write the next positions and return the whole tensors."""
        begin, self.length = self.length, self.length + key_states.shape[-2]
        if self.length > self.keys.shape[-2]:
            self.keys, self.values = self._padded(self.keys), self._padded(self.values)
        self.keys[:, :, begin : self.length] = key_states
        self.values[:, :, begin : self.length] = value_states
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (capacity for the next `query_length` positions, 0)."""
        return max(self.keys.shape[-2], self._capacity(self.length + query_length)), 0

    def get_seq_length(self) -> int:
        """Return the number of filled positions."""
        return self.length

    def get_max_length(self) -> int:
        """Return the number of positions that is never exceeded."""
        return self.max_length

    def _capacity(self, length: int) -> int:
        return max(length, min(-(-length // BLOCK) * BLOCK, self.max_length))

    def _padded(self, tensor: torch.Tensor) -> torch.Tensor:
        return F.pad(tensor, (0, 0, 0, self._capacity(self.length) - tensor.shape[-2])).contiguous()


def preallocate(cache: Cache, max_length: int) -> Cache:
    """Return the rows of a prefill, ready to decode up to `max_length` positions; sliding windows stay as they are."""
    layers = [PreallocatedLayer(_filled(one), max_length) if type(one) is DynamicLayer else one for one in cache.layers]
    return cache_of_layers(layers)


def side_by_side(caches: Sequence[DynamicCache | None], config: Any) -> DynamicCache:
    """Return a new cache that begins with the given ones, one row each, padded on the left; None is an empty row."""
    known = [cache for cache in caches if cache is not None]
    started = DynamicCache(config=config)
    if not known:
        return started
    length = max(cache.get_seq_length() for cache in known)
    for place, layer in enumerate(started.layers):
        first = known[0].layers[place]
        nothing = first.keys[:, :, :0], first.values[:, :, :0]
        rows = [nothing if cache is None else _filled(cache.layers[place]) for cache in caches]
        width = max(keys.shape[-2] for keys, _ in rows)
        keys, values = (
            torch.cat([F.pad(t, (0, 0, width - t.shape[-2], 0)) for t in own]) for own in zip(*rows, strict=True)
        )
        fill_cache_layer(layer, keys, values, length)
    return started


def close_up(cache: DynamicCache, mask: torch.Tensor) -> torch.Tensor:
    """Move each row's positions to the right, behind its padding, and return the new mask (rows, positions)."""
    if bool((mask[:, 1:] >= mask[:, :-1]).all()):
        return mask
    width = int(mask.sum(-1).max())
    order = mask.argsort(dim=-1, stable=True)[:, -width:]
    for layer in cache.layers:
        chosen = order[:, None, :, None].expand(-1, layer.keys.shape[1], -1, -1)
        layer.keys, layer.values = (
            t.gather(2, chosen.expand(-1, -1, -1, t.shape[-1])) for t in (layer.keys, layer.values)
        )
    return mask.gather(1, order)


def row_tensors(cache: Cache, row: int, positions: int) -> Tensors | None:
    """Return the keys and values of a row's last positions in all layers, (layers, heads, positions, size).

    None where layers differ in their heads.
    """
    layers = [tuple(tensor[row][:, -positions:] for tensor in _filled(layer)) for layer in cache.layers]
    if len({(keys.shape, values.shape) for keys, values in layers}) > 1:
        return None
    keys, values = (torch.stack(tensors) for tensors in zip(*layers, strict=True))
    return keys, values


def has_windows(cache: DynamicCache) -> bool:
    """Return whether a layer keeps only its last positions, so that padding inside a row would push others out."""
    return any(isinstance(layer, DynamicSlidingWindowLayer) for layer in cache.layers)


def join(cache: Cache, other: Cache, max_length: int) -> None:
    """Append the rows of `other` to those of `cache`, both padded on the left to the longer one."""
    length = max(cache.get_seq_length(), other.get_seq_length())
    for place, (layer, new) in enumerate(zip(cache.layers, other.layers, strict=True)):
        pairs = list(zip(_filled(layer), _filled(new), strict=True))
        width = max(tensor.shape[-2] for tensor in pairs[0])
        keys, values = (torch.cat([F.pad(t, (0, 0, width - t.shape[-2], 0)) for t in pair]) for pair in pairs)
        cache.layers[place] = _refilled(layer, (keys, values), length, max_length)


def keep(cache: Cache, rows: torch.Tensor, length: int, max_length: int) -> None:
    """Keep some rows in the order given and their last `length` positions."""
    for place, layer in enumerate(cache.layers):
        cache.layers[place] = _refilled(layer, _chosen(layer, rows, length), length, max_length)


def split(cache: Cache, parts: Sequence[tuple[torch.Tensor, int, int]]) -> list[Cache]:
    """Return the rows of each part with their last positions, given as (rows, length, max_length), ready to decode.

    `cache` is emptied layer by layer, so that there is never more than one layer twice.
    """
    layers: list[list[Any]] = [[] for _ in parts]
    while cache.layers:
        layer = cache.layers.pop(0)
        for part, (rows, length, most) in zip(layers, parts, strict=True):
            part.append(_refilled(copy(layer), _chosen(layer, rows, length), length, most))
    return [preallocate(cache_of_layers(part), most) for part, (_, _, most) in zip(layers, parts, strict=True)]


def check_joinable(cache: DynamicCache, model: str) -> None:
    """Raise ConfigError for an architecture that keeps another state than keys and values of each position."""
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        raise ConfigError(
            say("{model} keeps a state from which rows cannot come and go; it cannot be served", model=model)
        )


def position_bytes(cache: DynamicCache) -> int:
    """Return the bytes of one position of one row."""
    total = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    return int(total // (cache.layers[0].keys.shape[0] * cache.get_seq_length()))


def _filled(layer: Any) -> Tensors:
    if isinstance(layer, PreallocatedLayer):
        return layer.keys[:, :, : layer.length], layer.values[:, :, : layer.length]
    return layer.keys, layer.values


def _chosen(layer: Any, rows: torch.Tensor, length: int) -> Tensors:
    keys, values = (t[:, :, max(0, t.shape[-2] - length) :].index_select(0, rows) for t in _filled(layer))
    return keys, values


def _refilled(layer: Any, tensors: Tensors, length: int, max_length: int) -> Any:
    if isinstance(layer, PreallocatedLayer):
        return PreallocatedLayer(tensors, max_length)
    fill_cache_layer(layer, *tensors, length)
    return layer
