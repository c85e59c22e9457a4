"""Texts to windows of token ids, and the logits of their words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from tunedeck.core.errors import ConfigError, ModelError
from tunedeck.core.i18n import say
from tunedeck.core.tagging import EncodedText, encoded_text, special_ids
from tunedeck.data.batches import batches_by_length
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task
from tunedeck.tasks.tag.config import TagConfig
from tunedeck.tasks.text import pad

_BATCH = 32


def encode_texts(
    deck: Deck, texts: Sequence[str], adapters: Sequence[str | None], max_length: int
) -> list[EncodedText]:
    """Encode each text in windows of at most `max_length` tokens, special and virtual ones included.

    Raises ModelError where the base has no tokenizer that tells the places of its tokens, ConfigError when no token of
    text would be left.
    """
    tokenizer = deck.tokenizer
    if tokenizer is None:
        raise ModelError(
            say("{model} has no tokenizer files; put tokenizer.json next to its config.json", model=deck.base.reference)
        )
    if not tokenizer.is_fast:
        raise ModelError(
            say(
                "{model} has no tokenizer.json form of its tokenizer, which tells where in a text its tokens are",
                model=deck.base.reference,
            )
        )
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None or backend.padding is not None:  # as its file has it, before the first use
        backend.no_truncation()
        backend.no_padding()
    special, encodings = special_ids(backend), backend.encode_batch(list(texts), add_special_tokens=False)
    try:
        return [
            encoded_text(text, encoding, special, deck.text_limit(name, max_length), subwords_of(deck, name))
            for text, name, encoding in zip(texts, adapters, encodings, strict=True)
        ]
    except ValueError as error:
        raise ConfigError(
            say("max_length leaves no room for text besides the virtual and the special tokens; raise it or use fewer")
        ) from error


def subwords_of(deck: Deck, adapter: str | None) -> str:
    """Return which tokens an adapter decides by."""
    task: Task = deck.task if adapter is None else deck.adapter(adapter).task
    return cast(TagConfig, task).subwords


def word_logits(
    deck: Deck, encoded: Sequence[EncodedText], adapters: Sequence[str | None], batch_size: int = _BATCH
) -> list[torch.Tensor]:
    """Return the logits (words, labels) of each text, float32, on the CPU; batches go from short to long windows."""
    widths = [len(deck.label_names(name)) for name in adapters]
    found = [torch.empty(len(one.words), width) for one, width in zip(encoded, widths, strict=True)]
    rows = [(text, row) for text, one in enumerate(encoded) for row in range(len(one.rows))]
    for chosen in batches_by_length([len(encoded[text].rows[row]) for text, row in rows], batch_size):
        batch = [rows[place] for place in chosen]
        ids, mask = pad(deck, [encoded[text].rows[row] for text, row in batch])
        with torch.inference_mode(), deck.lock:
            logits = deck(ids, mask, adapter=[adapters[text] for text, _ in batch]).logits.float().cpu()
        for (text, row), own in zip(batch, logits, strict=True):
            numbers, positions = encoded[text].decided(row)
            found[text][numbers] = own[positions, : widths[text]]
    return found
