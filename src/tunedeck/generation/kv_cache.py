"""The keys and values of decoding rows: rows join, leave and share a beginning. Rows stand on the right, padding on the left.

Prefill fills transformers' own cache; a decoding batch keeps its rows in layers with room at the end (`Roomy`), where a step writes
one position and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, final

import torch
from torch.nn import functional as F
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

ROOM = 64
"""Positions by which full tensors grow. Shapes stay the same as long, too, and the CPU's kernel library builds no new kernels."""

Tensors: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, (rows, heads, positions, size)."""


@final
class Roomy(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values (rows, heads, room, size), filled up to `length`; the model's mask hides the rest, which is zero.

    `most` positions are never exceeded.
    """

    def __init__(self, tensors: Tensors, most: int) -> None:
        super().__init__()
        self.is_initialized = True
        self.length, self.most = tensors[0].shape[-2], most
        self.keys, self.values = (self._with_room(tensor) for tensor in tensors)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: the layer begins with the rows of a prefill."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Tensors:
        """Write the next positions; returns all of the room."""
        begin, self.length = self.length, self.length + key_states.shape[-2]
        if self.length > self.keys.shape[-2]:
            self.keys, self.values = self._with_room(self.keys), self._with_room(self.values)
        self.keys[:, :, begin : self.length] = key_states
        self.values[:, :, begin : self.length] = value_states
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(room that the next `query_length` positions will find, 0)."""
        return max(self.keys.shape[-2], self._room(self.length + query_length)), 0

    def get_seq_length(self) -> int:
        """Positions that are filled."""
        return self.length

    def get_max_length(self) -> int:
        """No more than this, ever."""
        return self.most

    def _room(self, length: int) -> int:
        return max(length, min(-(-length // ROOM) * ROOM, self.most))

    def _with_room(self, tensor: torch.Tensor) -> torch.Tensor:
        return F.pad(tensor, (0, 0, 0, self._room(self.length) - tensor.shape[-2])).contiguous()


def roomy(cache: Cache, most: int) -> Cache:
    """The rows of a prefill, ready to decode up to `most` positions; layers with a sliding window stay as they are."""
    return Cache(layers=[Roomy(_filled(one), most) if type(one) is DynamicLayer else one for one in cache.layers])


def side_by_side(caches: Sequence[DynamicCache | None], config: Any) -> DynamicCache:
    """A new cache that begins with theirs, one row each, filled up on the left to the longest; None is an empty row."""
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
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length = length
    return started


def close_up(cache: DynamicCache, mask: torch.Tensor) -> torch.Tensor:
    """Move each row's positions to the right, behind its padding; returns the mask (rows, positions) of what is left."""
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


def has_windows(cache: DynamicCache) -> bool:
    """Whether a layer keeps its last positions alone, so that padding inside a row would push others out."""
    return any(isinstance(layer, DynamicSlidingWindowLayer) for layer in cache.layers)


def join(cache: Cache, other: Cache, most: int) -> None:
    """Put the rows of `other` below those of `cache`, both filled up on the left to the longer one."""
    length = max(cache.get_seq_length(), other.get_seq_length())
    for place, (layer, new) in enumerate(zip(cache.layers, other.layers, strict=True)):
        pairs = list(zip(_filled(layer), _filled(new), strict=True))
        width = max(tensor.shape[-2] for tensor in pairs[0])
        keys, values = (torch.cat([F.pad(t, (0, 0, width - t.shape[-2], 0)) for t in pair]) for pair in pairs)
        cache.layers[place] = _refilled(layer, (keys, values), length, most)


def keep(cache: Cache, rows: torch.Tensor, length: int, most: int) -> None:
    """Keep some rows in the order given and their last `length` positions."""
    for place, layer in enumerate(cache.layers):
        keys, values = (t[:, :, max(0, t.shape[-2] - length) :].index_select(0, rows) for t in _filled(layer))
        cache.layers[place] = _refilled(layer, (keys, values), length, most)


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


def _filled(layer: Any) -> Tensors:
    if isinstance(layer, Roomy):
        return layer.keys[:, :, : layer.length], layer.values[:, :, : layer.length]
    return layer.keys, layer.values


def _refilled(layer: Any, tensors: Tensors, length: int, most: int) -> Any:
    if isinstance(layer, Roomy):
        return Roomy(tensors, most)
    layer.keys, layer.values = tensors
    layer.cumulative_length = length
    return layer
