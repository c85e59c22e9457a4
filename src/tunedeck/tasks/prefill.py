"""Prefill: prompts go through the model in chunks and leave their keys and values, before their first token is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from transformers import Cache, DynamicCache

from tunedeck.deck.deck import Deck
from tunedeck.tasks.answering import Row
from tunedeck.tasks.kv_cache import copy_of
from tunedeck.tasks.sampling import Sampling


@final
class Prefill:
    """Rows [padding][virtual tokens][prompt], grouped by adapter, on their way into a cache.

    `prefix` is the cache of the virtual tokens of the one row, where they have been computed already (`prefix_of`).
    """

    def __init__(self, deck: Deck, rows: Sequence[Row], prefix: DynamicCache | None = None) -> None:
        self._deck = deck
        self.rows = [rows[place] for place in deck.order([row.adapter for row in rows])]
        assert prefix is None or len(rows) == 1
        self.cache = DynamicCache(config=deck.model.config) if prefix is None else copy_of(prefix, deck.model.config)
        self._ids, self.mask = _left_padded(deck, self.rows)
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
            self.logits = output.logits[:, -1].float().cpu()
        return self.logits is not None


@torch.inference_mode()
def prefix_of(deck: Deck, adapter: str) -> DynamicCache:
    """The cache of an adapter's virtual tokens alone, one row; every row of the adapter may begin with it."""
    row = Row(0, adapter, [], Sampling(), deck.virtual_tokens(adapter), 0, torch.Generator())
    prefill = Prefill(deck, [row])
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
            "logits_to_keep": 1,
        },
    )


def _left_padded(deck: Deck, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """[padding][virtual tokens][prompt] and its mask, (rows, seq)."""
    vocab_size = deck.model.get_input_embeddings().weight.shape[0]
    whole = [[*range(vocab_size, vocab_size + row.virtual_tokens), *row.prompt] for row in rows]
    width = max(len(ids) for ids in whole)
    device = deck.model.device
    padded = [[deck.model.config.pad_token_id] * (width - len(ids)) + ids for ids in whole]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in whole]
    return torch.tensor(padded, device=device), torch.tensor(mask, device=device)
