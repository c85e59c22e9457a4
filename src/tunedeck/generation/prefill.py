"""Prefill: compute the keys and values of prompts in chunks, before their first token is chosen."""

from __future__ import annotations

from typing import Any, final

import torch
from transformers import Cache, DynamicCache

from tunedeck.core.compat.transformers import last_position
from tunedeck.deck.deck import Deck
from tunedeck.generation.kv_cache import close_up, side_by_side
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Sequence
from tunedeck.methods.packed_embedding import vocabulary_size


@final
class Prefill:
    """Prompts that are being computed, one row each, grouped by adapter.

    A row is [what is cached][padding][the rest]. `beginnings` are caches of the first positions of each row where they
    have been computed before: of its virtual tokens (`prefix_of`), perhaps with the first tokens of its prompt. At
    least an adapter's trained keys and values are cached.
    """

    def __init__(
        self, deck: Deck, sequences: list[Sequence], beginnings: list[DynamicCache | None] | None = None
    ) -> None:
        self._deck = deck
        order = deck.order([one.adapter for one in sequences])
        self.sequences = [sequences[place] for place in order]
        trained = {name: trained_prefix(deck, name) for name in {one.adapter for one in sequences}}
        known = [(beginnings[place] if beginnings else None) or trained[sequences[place].adapter] for place in order]
        self.cache = side_by_side(known, deck.model.config)
        cached = [0 if one is None else one.get_seq_length() for one in known]
        self._ids, self.mask = _laid_out(deck, self.sequences, cached)
        self._positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self._done = self.cache.get_seq_length()
        self.logits: torch.Tensor | None = None

    @property
    def left(self) -> int:
        """Return positions of each row that have not been computed yet."""
        return int(self._ids.shape[1] - self._done)

    @torch.inference_mode()
    def advance(self, positions: int | None = None) -> bool:
        """Compute the next `positions` of each row, None for all; True once `logits` (rows, vocab) are set."""
        end = self._ids.shape[1] if positions is None else min(self._done + positions, self._ids.shape[1])
        output = call(
            self._deck,
            self.sequences,
            self._ids[:, self._done : end],
            self.mask[:, :end],
            self._positions[:, self._done : end],
            self.cache,
        )
        self._done = end
        if end == self._ids.shape[1]:
            self.logits = output.logits[:, -1].float()
            self.mask = close_up(self.cache, self.mask)
        return self.logits is not None


@torch.inference_mode()
def prefix_of(deck: Deck, adapter: str) -> DynamicCache:
    """Compute the cache of an adapter's virtual tokens, one row; every row of the adapter may begin with it."""
    prefill = Prefill(deck, [Sequence([], Sampling()).prepare(deck, adapter, [])])
    prefill.advance()
    return prefill.cache


def trained_prefix(deck: Deck, adapter: str | None) -> DynamicCache | None:
    """Return the cache of an adapter's trained keys and values, one row; None where it has none."""
    prefix = None if adapter is None else deck.adapter(adapter).built.prefix
    if prefix is None:
        return None
    cache = DynamicCache(config=deck.model.config)
    for layer, tensors in enumerate(prefix.keys_values()):
        cache.update(*(tensor.detach().to(deck.base.dtype) for tensor in tensors), layer)
    return cache


def call(
    deck: Deck,
    sequences: list[Sequence],
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: Cache,
) -> Any:
    """Return the model's output for the next ids (rows, seq) of sequences in the deck's order."""
    return deck.call(
        [one.adapter for one in sequences],
        {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
            **last_position(ids.device),
        },
    )


def _laid_out(deck: Deck, sequences: list[Sequence], cached: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of the rows without the `cached` positions of each, and the mask of all positions, (rows, seq)."""
    vocab_size = vocabulary_size(deck.model)
    rows = [
        [*range(vocab_size, vocab_size + one.virtual_tokens), *one.prompt_ids][first:]
        for one, first in zip(sequences, cached, strict=True)
    ]
    front, width = max(cached), max(len(ids) for ids in rows)
    padded = [[deck.model.config.pad_token_id] * (front + width - len(ids)) + ids for ids in rows]
    mask = [
        [0] * (front - first) + [1] * first + [0] * (width - len(ids)) + [1] * len(ids)
        for ids, first in zip(rows, cached, strict=True)
    ]
    device = deck.model.device
    return torch.tensor(padded, device=device), torch.tensor(mask, device=device)
