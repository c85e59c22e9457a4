"""The keys and values of a decoding batch in buckets of rows that need about as many positions.

Every row of a tensor takes as many positions as its longest row, so in one tensor a long row would multiply the memory
of the short ones. A row stays in the bucket of its `room`. One step computes the rows of all buckets together; only
attention is computed bucket by bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from transformers import Cache

from tunedeck.core.compat.transformers import (
    CacheLayerMixin,
    DynamicSlidingWindowLayer,
    attention_is_plain,
    cache_of_layers,
)
from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.attention import Buckets, bucketed_attention
from tunedeck.generation import kv_cache
from tunedeck.generation.kv_cache import PreallocatedLayer, join, keep, preallocate, split
from tunedeck.generation.prefill import Prefill, call
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Sequence as Row


def room(positions: int) -> int:
    """Return the positions that are reserved for a row of up to `positions`, prompt and answer together.

    It is 1, 2, 3, 4, 6, 8, 12, 16, ... blocks, so that there are few buckets: less than half more than the whole blocks
    that the row needs.
    """
    blocks = -(-positions // kv_cache.BLOCK)
    step = 1 << max(0, blocks.bit_length() - 2)
    return -(-blocks // step) * step * kv_cache.BLOCK


def wide_room(positions: int) -> int:
    """Return more positions than `room` to reserve while there are many, for fewer buckets: 8, 16, 32, ... blocks.

    A bucket costs each layer of a step about 0.1 ms, as much as 1,000 positions of SmolLM2-135M do.
    """
    blocks = -(-positions // kv_cache.BLOCK)
    return max(8, 1 << (blocks - 1).bit_length()) * kv_cache.BLOCK


@final
@dataclass(slots=True)
class Bucket:
    """Rows of a batch, in ascending order, and their keys and values."""

    rows: list[int]
    max_lengths: list[int]
    """Positions that each row may come to have."""
    cache: Cache


@final
class BucketedCache:
    """The keys and values of a decoding batch; `cache` is what the model gets."""

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket] = {}
        self.cache: Cache | None = None

    def __len__(self) -> int:
        return len(self._buckets)

    @property
    def positions(self) -> int:
        """Return the positions that all rows together take in memory, in the layer where they take most."""
        layers = [(len(bucket.rows), bucket.cache.layers) for bucket in self._buckets.values()]
        return sum(rows * max(int(layer.keys.shape[2]) for layer in of_bucket) for rows, of_bucket in layers)

    def join(self, cache: Cache, rooms: Sequence[int], lengths: Sequence[int], max_lengths: Sequence[int]) -> None:
        """Append the rows of a prefill, which is used up; `lengths` are their filled positions, `max_lengths` those
        that they may come to have.
        """
        first = sum(len(bucket.rows) for bucket in self._buckets.values())
        new = Bucket(list(range(first, first + len(rooms))), list(max_lengths), cache)
        self._distribute(new, rooms, lengths)
        self._compose()

    def arrange(self, rooms: Sequence[int], lengths: Sequence[int]) -> None:
        """Move rows into the buckets of other rooms."""
        before, self._buckets = list(self._buckets.values()), {}
        for bucket in before:
            self._distribute(bucket, *([values[row] for row in bucket.rows] for values in (rooms, lengths)))
        self._compose()

    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Keep some rows in the order given; `lengths` are their filled positions."""
        for key, bucket in list(self._buckets.items()):
            before = {row: place for place, row in enumerate(bucket.rows)}
            staying = [before[row] for row in rows if row in before]
            bucket.rows = [new for new, row in enumerate(rows) if row in before]
            if not staying:
                del self._buckets[key]
            elif staying != list(range(len(before))):
                _reorder(bucket, staying, max(lengths[row] for row in bucket.rows))
        self._compose()

    def _distribute(self, bucket: Bucket, rooms: Sequence[int], lengths: Sequence[int]) -> None:
        """Add rows, of which rooms and lengths are given, to the buckets of their rooms."""
        for key, new in _parts(bucket, rooms, lengths):
            if key not in self._buckets:
                self._buckets[key] = new
                continue
            into = self._buckets[key]
            into.rows += new.rows
            into.max_lengths += new.max_lengths
            join(into.cache, new.cache, max(into.max_lengths))
            order = sorted(range(len(into.rows)), key=into.rows.__getitem__)
            if order != list(range(len(order))):
                into.rows.sort()
                _reorder(into, order, into.cache.get_seq_length())

    def _compose(self) -> None:
        buckets = list(self._buckets.values())
        if len(buckets) < 2:
            self.cache = buckets[0].cache if buckets else None
            return
        rows = tuple(_index(bucket.rows, bucket.cache) for bucket in buckets)
        layers = zip(*(bucket.cache.layers for bucket in buckets), strict=True)
        self.cache = cache_of_layers([BucketedLayer(rows, of_layer) for of_layer in layers])


@final
class BucketedLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer of the caches of several buckets; `rows` are those of the batch in each.

    The rows of all buckets end at the same column of the batch's mask.
    """

    def __init__(self, rows: tuple[torch.Tensor, ...], layers: Sequence[Any]) -> None:
        super().__init__()
        self.is_initialized, self.is_sliding = True, isinstance(layers[0], DynamicSlidingWindowLayer)
        self._rows, self._places, self._layers = rows, torch.cat(rows).argsort(), layers

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the layers begin with the rows of a prefill."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[Buckets, Buckets]:
        """Write the next positions and return the whole tensors of each bucket."""
        updated = [
            layer.update(key_states.index_select(0, rows), value_states.index_select(0, rows))
            for rows, layer in zip(self._rows, self._layers, strict=True)
        ]
        lengths = [
            layer.length if isinstance(layer, PreallocatedLayer) else keys.shape[-2]
            for layer, (keys, _) in zip(self._layers, updated, strict=True)
        ]
        begins = tuple(max(lengths) - length for length in lengths)
        keys, values = (Buckets(tensors, self._rows, self._places, begins) for tensors in zip(*updated, strict=True))
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (positions of the mask, the first of them)."""
        longest = max(self._layers, key=lambda layer: layer.get_seq_length())
        if self.is_sliding:
            length, offset = longest.get_mask_sizes(query_length)
            return int(length), int(offset)
        free = max(layer.get_mask_sizes(query_length)[0] - layer.get_seq_length() for layer in self._layers)
        return self.get_seq_length() + free, 0

    def get_seq_length(self) -> int:
        """Return the number of positions that have been filled in the longest row."""
        return max(int(layer.get_seq_length()) for layer in self._layers)

    def get_max_length(self) -> int:
        """Return what the layers of the buckets return."""
        return int(self._layers[0].get_max_length())


def _parts(bucket: Bucket, rooms: Sequence[int], lengths: Sequence[int]) -> list[tuple[int, Bucket]]:
    """Return the rows of each room, ready to decode."""
    places = {key: [place for place, one in enumerate(rooms) if one == key] for key in dict.fromkeys(rooms)}
    parts = [
        (own, max(lengths[place] for place in own), max(bucket.max_lengths[place] for place in own))
        for own in places.values()
    ]
    if len(parts) == 1:
        caches = [preallocate(bucket.cache, parts[0][2])]
    else:
        caches = split(bucket.cache, [(_index(own, bucket.cache), length, most) for own, length, most in parts])
    return [
        (key, Bucket([bucket.rows[place] for place in own], [bucket.max_lengths[place] for place in own], cache))
        for (key, own), cache in zip(places.items(), caches, strict=True)
    ]


def _reorder(bucket: Bucket, places: list[int], length: int) -> None:
    """Keep the keys and values at some places, in the order given, and their last positions."""
    bucket.max_lengths = [bucket.max_lengths[place] for place in places]
    keep(bucket.cache, _index(places, bucket.cache), length, max(bucket.max_lengths))


def _index(rows: list[int], cache: Cache) -> torch.Tensor:
    return torch.tensor(rows, device=cache.layers[0].keys.device)


@torch.inference_mode()
def can_bucket(deck: Deck) -> bool:
    """Tell whether a model can decode rows of several buckets in one step, by a step of two.

    It cannot where a layer computes with what the cache returns before attention (multi-head latent attention), or has
    an attention that cannot be replaced.
    """
    if not attention_is_plain(deck.model):
        return False
    sequences = [Row([0], Sampling()).prepare(deck, None, [0]) for _ in range(2)]
    prefill = Prefill(deck, sequences)
    prefill.advance()
    cache = BucketedCache()
    cache.join(prefill.cache, rooms=[1, 2], lengths=[1, 1], max_lengths=[2, 2])
    assert cache.cache is not None
    both = prefill.mask.new_ones(2, 2)
    try:
        with deck.lock, bucketed_attention(deck.base).on(deck.base):
            call(deck, sequences, both[:, :1], both, both[:, :1], cache.cache)
    except (AttributeError, TypeError):
        return False
    return True
