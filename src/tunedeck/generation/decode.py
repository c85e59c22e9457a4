"""Decoding: sequences of any mix of adapters, one key-value cache, sequences that join and leave between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import final

import torch
from torch.nn import functional as F
from transformers import DynamicCache

from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.attention import bucketed_attention, decoding_attention
from tunedeck.generation.buckets import BucketedCache
from tunedeck.generation.choosing import choose_tokens
from tunedeck.generation.kv_cache import has_windows
from tunedeck.generation.llama_step import llama_step
from tunedeck.generation.prefill import Prefill, call
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Chunk, Sequence


def decode(
    deck: Deck, prompts: Iterable[list[int]], adapters: Iterable[str | None], sampling: Sampling
) -> Iterator[Chunk]:
    """Answer prompts given as token ids, all of them together, and yield pieces of text as they come.

    Sequences of full adapters, which replace base tensors, decode in separate batches. Raises ConfigError when a
    prompt leaves no room for an answer, AdapterError or ModelError when logits are not finite.
    """
    sequences = [
        Sequence(ids, replace(sampling, seed=sampling.seed + index), index=index).prepare(deck, name, ids)
        for index, (name, ids) in enumerate(zip(adapters, prompts, strict=True))
    ]
    for key in dict.fromkeys(batch_key(deck, one.adapter) for one in sequences):
        batch = DecodingBatch(deck)
        for together in _prefilled_together(deck, [one for one in sequences if batch_key(deck, one.adapter) == key]):
            prefill = Prefill(deck, together)
            prefill.advance()
            yield from _chunks(batch.join(prefill))
        while batch.sequences:
            yield from _chunks(batch.step())


def _prefilled_together(deck: Deck, sequences: list[Sequence]) -> list[list[Sequence]]:
    """Group sequences whose prompts are computed in one pass.

    Padding between a prefix and a shorter prompt would push the prefix out of a sliding window, so there a sequence
    with a prefix is computed alone.
    """
    if not has_windows(DynamicCache(config=deck.model.config)):
        return [sequences]
    prefixed = [one for one in sequences if one.adapter and deck.adapter(one.adapter).built.prefix is not None]
    others = [one for one in sequences if one not in prefixed]
    return [*([others] if others else []), *([one] for one in prefixed)]


def _chunks(sequences: list[Sequence]) -> Iterator[Chunk]:
    """Yield what is new in sequences; raise the error of the first that has failed."""
    for one in sequences:
        if one.error is not None:
            raise one.error
    for one in sequences:
        yield one.take_chunk()


def batch_key(deck: Deck, adapter: str | None) -> str | None:
    """Return the key of an adapter's batch: sequences with the same key can share one.

    Adapters that replace base tensors need a separate batch; all others share the key None.
    """
    return adapter if adapter is not None and deck.adapter(adapter).built.weights else None


@final
class DecodingBatch:
    """Sequences that get one token each at every step; those that have finished leave."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck
        self._attention = decoding_attention(deck.base)
        self._over_buckets = bucketed_attention(deck.base)
        self._llama = llama_step(deck)
        self.sequences: list[Sequence] = []
        self.cache = BucketedCache()
        self._mask = torch.zeros(
            0, 0, dtype=torch.long, device=deck.model.device
        )  # (sequences, positions in the cache)

    @torch.inference_mode()
    def join(self, prefill: Prefill) -> list[Sequence]:
        """Add sequences whose prompts have been computed and append their first token; returns those with news."""
        assert prefill.logits is not None
        news = self._append_tokens(prefill.sequences, prefill.logits)
        rooms, max_lengths = zip(*((one.room, one.max_length) for one in prefill.sequences), strict=True)
        self.cache.join(prefill.cache, rooms, prefill.mask.sum(-1).tolist(), max_lengths)
        width = max(self._mask.shape[1], prefill.mask.shape[1])
        masks = (self._mask, prefill.mask)
        self._mask = torch.cat([F.pad(mask, (width - mask.shape[1], 0)) for mask in masks])
        self.sequences += prefill.sequences
        self.drop(lambda one: one.finish_reason is not None)
        return news

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Append one token to every sequence; returns those with news."""
        news = self._append_tokens(self.sequences, self._logits().float())
        self.drop(lambda one: one.finish_reason is not None)
        return news

    @torch.inference_mode()
    def drop(self, leaves: Callable[[Sequence], bool]) -> None:
        """Remove sequences; the others close up in the deck's order, without columns that are padding for all."""
        staying = [place for place, one in enumerate(self.sequences) if not leaves(one)]
        staying = [staying[n] for n in self._deck.order([self.sequences[place].adapter for place in staying])]
        if staying != list(range(len(self.sequences))):
            self.sequences = [self.sequences[place] for place in staying]
            self._mask = self._mask[torch.tensor(staying, dtype=torch.long, device=self._mask.device)]
            lengths = self._mask.sum(-1).tolist()
            self._mask = self._mask[:, self._mask.shape[1] - max(lengths, default=0) :]
            self.cache.keep(staying, lengths)

    @torch.inference_mode()
    def arrange(self) -> None:
        """Move the keys and values of sequences whose room has changed."""
        self.cache.arrange([one.room for one in self.sequences], self._mask.sum(-1).tolist())

    def _logits(self) -> torch.Tensor:
        """Compute the last token of every sequence and return the logits of the next one, (sequences, vocab)."""
        cache = self.cache.cache
        assert cache is not None
        self._mask = F.pad(self._mask, (0, 1), value=1)
        last = torch.tensor([one.token_ids[-1:] for one in self.sequences], device=self._mask.device)
        positions = self._mask.sum(-1, keepdim=True) - 1
        with self._deck.routed([one.adapter for one in self.sequences]) as weights:
            if self._llama is not None and not weights and self._llama.fits(cache):
                return self._llama.logits(last, self._mask, positions, cache)
            attention = self._over_buckets if len(self.cache) > 1 else self._attention
            with attention.on(self._deck.base):
                logits: torch.Tensor = call(self._deck, self.sequences, last, self._mask, positions, cache).logits
        return logits[:, -1]

    def _append_tokens(self, sequences: list[Sequence], logits: torch.Tensor) -> list[Sequence]:
        for one, token in zip(sequences, choose_tokens(logits, sequences, self._deck.tokenizer), strict=True):
            if isinstance(token, int):
                one.append_token(token)
            else:
                one.fail(token)
        return [one for one in sequences if one.has_news]
