"""Texts to padded token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from tunedeck.core.errors import ConfigError, ModelError
from tunedeck.core.messages import say
from tunedeck.deck.deck import Deck

PAD_TO = 8
"""Lengths are rounded up to this: few distinct shapes spare the CPU's kernel library from building new kernels."""


def length_limit(deck: Deck) -> int:
    """The longest sequence in tokens that the model's positions and its tokenizer allow."""
    positions = 1_000_000 if deck.positions is None else deck.positions
    return min(positions, deck.tokenizer.model_max_length if deck.tokenizer else positions)


def tokenize(deck: Deck, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each text with its special tokens, cut to `max_length`.

    Raises ModelError when the base has no tokenizer, ConfigError when no token of text would be left.
    """
    if deck.tokenizer is None:
        raise ModelError(
            say("{model} has no tokenizer files; put tokenizer.json beside its config.json", model=deck.base.reference)
        )
    if max_length <= deck.tokenizer.num_special_tokens_to_add():
        raise ConfigError(
            say("max_length leaves no room for text beside the virtual and the special tokens; raise it or use fewer")
        )
    encoded = deck.tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
    return cast("list[list[int]]", encoded["input_ids"])


def pad(deck: Deck, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (batch, seq), padded on the right to a multiple of PAD_TO within the model's limit."""
    longest = max(len(row) for row in rows)
    width = max(longest, min(-(-longest // PAD_TO) * PAD_TO, length_limit(deck)))
    ids = torch.full((len(rows), width), deck.model.config.pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    device = next(deck.model.parameters()).device
    return ids.to(device), mask.to(device)
