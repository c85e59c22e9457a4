"""Prefill: prompts go through the model in chunks and leave their keys and values, before their first token is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from transformers import Cache, DynamicCache

from tunedeck.deck.deck import Deck
from tunedeck.generation.kv_cache import close_up, side_by_side
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Row, new_row


@final
class Prefill:
    """Rows [virtual tokens known already][padding][other virtual tokens][prompt], grouped by adapter, on their way into a cache.

    `prefixes` are the caches of each row's virtual tokens, where they have been computed already (`prefix_of`).
    """

    def __init__(self, deck: Deck, rows: Sequence[Row], prefixes: Sequence[DynamicCache | None] = ()) -> None:
        self._deck = deck
        order = deck.order([row.adapter for row in rows])
        self.rows = [rows[place] for place in order]
        known = [prefixes[place] if prefixes else None for place in order]
        self.cache = side_by_side(known, deck.model.config)
        self._ids, self.mask = _laid_out(deck, self.rows, [0 if one is None else one.get_seq_length() for one in known])
        self._positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self._done = self.cache.get_seq_length()
        self.logits: torch.Tensor | None = None

    @property
    def left(self) -> int:
        """Positions of each row that are still to be computed."""
        return int(self._ids.shape[1] - self._done)

    @torch.inference_mode()
    def advance(self, positions: int | None = None) -> bool:
        """Compute the next `positions` of each row, None for all; True when `logits` (rows, vocab) are there."""
        end = self._ids.shape[1] if positions is None else min(self._done + positions, self._ids.shape[1])
        output = call(
            self._deck,
            self.rows,
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
    """The cache of an adapter's virtual tokens alone, one row; every row of the adapter may begin with it."""
    prefill = Prefill(deck, [new_row(deck, 0, adapter, [], Sampling(), 0)])
    prefill.advance()
    return prefill.cache


def call(
    deck: Deck,
    rows: Sequence[Row],
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: Cache,
) -> Any:
    """The model's output for the next ids (rows, seq) of rows that stand in the deck's order."""
    return deck.call(
        [row.adapter for row in rows],
        {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
            # Not the number 1: of a slice the CPU's product would copy the output layer for every row.
            "logits_to_keep": torch.tensor([-1], device=ids.device),
        },
    )


def _laid_out(deck: Deck, rows: Sequence[Row], known: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of the rows and their mask, (rows, seq); `known` virtual tokens of each row are in the cache."""
    vocab_size = deck.model.get_input_embeddings().weight.shape[0]
    own = [
        [*range(vocab_size + first, vocab_size + row.virtual_tokens), *row.prompt]
        for row, first in zip(rows, known, strict=True)
    ]
    front, width = max(known), max(len(ids) for ids in own)
    padded = [[deck.model.config.pad_token_id] * (front + width - len(ids)) + ids for ids in own]
    mask = [
        [0] * (front - first) + [1] * first + [0] * (width - len(ids)) + [1] * len(ids)
        for ids, first in zip(own, known, strict=True)
    ]
    device = deck.model.device
    return torch.tensor(padded, device=device), torch.tensor(mask, device=device)
