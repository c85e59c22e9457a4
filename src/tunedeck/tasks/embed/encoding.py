"""Texts to vectors: tokens through the deck, pooled, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tunedeck.core.pooling import Pooling
from tunedeck.data.batches import batches_by_length
from tunedeck.deck.deck import Deck
from tunedeck.deck.pooling import pool
from tunedeck.tasks.text import pad, tokenize_rows


@dataclass(frozen=True, slots=True)
class EncodingConfig:
    """Say how the vectors of some rows are made."""

    pooling: Pooling
    normalize: bool
    instruction: str
    """Stands before each text."""
    max_length: int
    """In tokens; instruction, special and virtual tokens included."""


def vectors_of(
    deck: Deck, ids: torch.Tensor, mask: torch.Tensor, names: Sequence[str | None], encodings: Sequence[EncodingConfig]
) -> torch.Tensor:
    """Return vectors (rows, hidden), float32, of padded token ids (rows, seq); each row by its settings."""
    hidden = deck(ids, mask, adapter=names).last_hidden_state
    ways = [(encoding.pooling, encoding.normalize) for encoding in encodings]
    if len(set(ways)) == 1:
        return finished(hidden, mask, *ways[0])
    rows = [finished(hidden[[row]], mask[[row]], *way) for row, way in enumerate(ways)]
    return torch.cat(rows)


def token_ids(
    deck: Deck, texts: Sequence[str], names: Sequence[str | None], encodings: Sequence[EncodingConfig]
) -> list[list[int]]:
    """Return token ids of each text behind its instruction, cut to what the row's virtual tokens leave of its
    length.
    """
    limits = [deck.text_limit(name, one.max_length) for name, one in zip(names, encodings, strict=True)]
    whole = [one.instruction + text for one, text in zip(encodings, texts, strict=True)]
    return tokenize_rows(deck, whole, limits)


def embed_texts(
    deck: Deck,
    texts: Sequence[str],
    names: Sequence[str | None],
    encodings: Sequence[EncodingConfig],
    batch_size: int = 32,
) -> torch.Tensor:
    """Return vectors (texts, hidden), float32, on the CPU, without gradients; batches go from short to long texts."""
    ids = token_ids(deck, texts, names, encodings)
    vectors: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for rows in batches_by_length([len(one) for one in ids], batch_size):
            input_ids, mask = pad(deck, [ids[row] for row in rows])
            batch = vectors_of(deck, input_ids, mask, [names[row] for row in rows], [encodings[row] for row in rows])
            vectors.update(zip(rows, batch.cpu(), strict=True))
    return torch.stack([vectors[row] for row in range(len(texts))])


def trained_vectors(
    deck: Deck, name: str, ids: Sequence[Sequence[int]], encoding: EncodingConfig, chunk_size: int | None
) -> tuple[torch.Tensor, int]:
    """Return vectors (texts, hidden) with their gradients, and how many positions were computed.

    With `chunk_size` only the vectors of a chunk are kept, and its inner states are computed again when the gradient
    comes to it: the memory of one chunk, the gradients of the whole batch (gradient caching, arXiv 2101.06983, as
    checkpoints of chunks).
    """

    def chunk(input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return vectors_of(deck, input_ids, mask, [name] * len(input_ids), [encoding] * len(input_ids))

    if chunk_size is None or len(ids) <= chunk_size:
        input_ids, mask = pad(deck, ids)
        return chunk(input_ids, mask), input_ids.numel()
    chunks = list(batches_by_length([len(one) for one in ids], chunk_size))
    order, parts, positions = [row for rows in chunks for row in rows], [], 0
    for rows in chunks:
        input_ids, mask = pad(deck, [ids[row] for row in rows])
        parts.append(checkpoint(chunk, input_ids, mask, use_reentrant=False))
        positions += input_ids.numel()
    return torch.cat(parts)[torch.tensor(order).argsort()], positions


def finished(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling, normalize: bool) -> torch.Tensor:
    """Return pooled and, if asked for, normalized vectors (rows, hidden), float32."""
    vectors = pool(hidden, mask, pooling)
    return F.normalize(vectors, dim=-1) if normalize else vectors
