"""Decoding: rows of any mix of adapters, one key-value cache, rows that join and leave between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import final

import torch
from torch.nn import functional as F
from transformers import Cache

from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.attention import of_one_position
from tunedeck.generation.choosing import choose_tokens
from tunedeck.generation.kv_cache import join, keep, roomy
from tunedeck.generation.prefill import Prefill, call
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Chunk, Row, fail_row, new_row, take_token


def decode(
    deck: Deck, prompts: Sequence[list[int]], adapters: Sequence[str | None], sampling: Sampling
) -> Iterator[Chunk]:
    """Answer prompts given as token ids, all rows together, and yield pieces of text as they come.

    Rows of full adapters with tensors of their own decode in batches of their own. Raises ConfigError when a prompt leaves
    no room for an answer, AdapterError or ModelError when logits are not finite.
    """
    rows = [
        new_row(deck, index, name, ids, sampling, sampling.seed + index)
        for index, (name, ids) in enumerate(zip(adapters, prompts, strict=True))
    ]
    for company in dict.fromkeys(company_of(deck, row.adapter) for row in rows):
        prefill = Prefill(deck, [row for row in rows if company_of(deck, row.adapter) == company])
        prefill.advance()
        batch = DecodingBatch(deck)
        yield from _sound(batch.join(prefill))
        while batch.rows:
            yield from _sound(batch.step())


def _sound(chunks: Sequence[Chunk]) -> Sequence[Chunk]:
    """The same chunks; raises the error of one that has failed."""
    for chunk in chunks:
        if chunk.error is not None:
            raise chunk.error
    return chunks


def company_of(deck: Deck, adapter: str | None) -> str | None:
    """Rows of equal company can decode in one batch: an adapter with base tensors of its own keeps its own."""
    return adapter if adapter is not None and deck.adapter(adapter).built.weights else None


@final
class DecodingBatch:
    """Rows that say one token each at every step; those that have finished leave."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck
        self._attention = of_one_position(deck.model)
        self.rows: list[Row] = []
        self._cache: Cache | None = None
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=deck.model.device)  # (rows, positions in the cache)

    @torch.inference_mode()
    def join(self, prefill: Prefill) -> list[Chunk]:
        """Take in rows whose prompts have been computed; they say their first token here."""
        assert prefill.logits is not None
        chunks = self._say(prefill.rows, prefill.logits)
        if self._cache is None:
            self.rows = list(prefill.rows)
            self._cache, self._mask = roomy(prefill.cache, self._most(self.rows)), prefill.mask
        else:
            join(self._cache, prefill.cache, self._most([*self.rows, *prefill.rows]))
            width = max(self._mask.shape[1], prefill.mask.shape[1])
            masks = (self._mask, prefill.mask)
            self._mask = torch.cat([F.pad(mask, (width - mask.shape[1], 0)) for mask in masks])
            self.rows += prefill.rows
        self.drop(lambda row: row.finish is not None)
        return chunks

    @torch.inference_mode()
    def step(self) -> list[Chunk]:
        """One token for every row."""
        assert self._cache is not None
        self._mask = F.pad(self._mask, (0, 1), value=1)
        last = torch.tensor([row.answer[-1:] for row in self.rows], device=self._mask.device)
        positions = self._mask.sum(-1, keepdim=True) - 1
        with self._deck.lock, self._attention():
            output = call(self._deck, self.rows, last, self._mask, positions, self._cache)
        chunks = self._say(self.rows, output.logits[:, -1].float())
        self.drop(lambda row: row.finish is not None)
        return chunks

    def drop(self, leaves: Callable[[Row], bool]) -> None:
        """Let rows leave; the others close up in the deck's order, without columns that are padding for all of them."""
        staying = [place for place, row in enumerate(self.rows) if not leaves(row)]
        staying = [staying[n] for n in self._deck.order([self.rows[place].adapter for place in staying])]
        if not staying:
            self.rows, self._cache = [], None
            return
        assert self._cache is not None
        if staying != list(range(len(self.rows))):
            kept = torch.tensor(staying, device=self._mask.device)
            self.rows = [self.rows[place] for place in staying]
            self._mask = self._mask[kept]
            width = int(self._mask.sum(-1).max())
            self._mask = self._mask[:, -width:]
            keep(self._cache, kept, width, self._most(self.rows))

    def _most(self, rows: Sequence[Row]) -> int:
        """Positions that the longest row may come to have."""
        return max(row.length + row.room for row in rows)

    def _say(self, rows: Sequence[Row], logits: torch.Tensor) -> list[Chunk]:
        tokens = choose_tokens(logits, rows, self._deck.tokenizer)
        chunks = [
            take_token(row, token) if isinstance(token, int) else fail_row(row, token)
            for row, token in zip(rows, tokens, strict=True)
        ]
        return [chunk for chunk in chunks if chunk.text or chunk.done]
