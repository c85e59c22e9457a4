"""Decoding: rows of any mix of adapters, one key-value cache, rows that finish leave the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from transformers import DynamicCache

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.deck.deck import Deck
from tunedeck.tasks.sampling import Sampling, choose_tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of text that a row has just said; `done` with the last piece of the row."""

    row: int
    text: str
    done: bool


@final
@dataclass
class _Row:
    """One answer under way."""

    index: int
    adapter: str | None
    prompt: list[int]
    answer: list[int] = field(default_factory=list)
    said: str = ""
    done: bool = False


def decode(
    deck: Deck, prompts: Sequence[list[int]], adapters: Sequence[str | None], sampling: Sampling
) -> Iterator[Chunk]:
    """Answer prompts given as token ids, all rows together, and yield pieces of text as they come.

    Rows of full adapters with tensors of their own decode in batches of their own. Raises ConfigError when a prompt leaves
    no room for an answer.
    """
    rows = [_Row(index, name, ids) for index, (name, ids) in enumerate(zip(adapters, prompts, strict=True))]
    apart = [name for name in dict.fromkeys(adapters) if name is not None and deck.adapter(name).built.weights]
    shared = [row for row in rows if row.adapter not in apart]
    for batch in [shared, *([row for row in rows if row.adapter == name] for name in apart)]:
        if batch:
            yield from _decode_batch(deck, _grouped(batch), sampling)


def _grouped(rows: list[_Row]) -> list[_Row]:
    order = {name: place for place, name in enumerate(dict.fromkeys(row.adapter for row in rows))}
    return sorted(rows, key=lambda row: order[row.adapter])


@torch.inference_mode()
def _decode_batch(deck: Deck, rows: list[_Row], sampling: Sampling) -> Iterator[Chunk]:
    room = _room(deck, rows)
    dice = {row.index: torch.Generator().manual_seed(sampling.seed + row.index) for row in rows}
    ids, mask = _left_padded(deck, rows)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=deck.model.config)
    for step in range(min(sampling.max_tokens, room)):
        output = deck.call(
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
        logits = output.logits[:, -1].float().cpu()
        tokens = choose_tokens(
            logits, [row.prompt + row.answer for row in rows], sampling, [dice[row.index] for row in rows]
        )
        last = step + 1 == min(sampling.max_tokens, room)
        for row, token in zip(rows, tokens, strict=True):
            chunk = _said(deck, row, token, sampling, last)
            if chunk.text or chunk.done:
                yield chunk
        going = [place for place, row in enumerate(rows) if not row.done]
        if not going:
            return
        kept = torch.tensor(going, device=mask.device)
        if len(going) < len(rows):
            rows = [rows[place] for place in going]
            cache.batch_select_indices(kept)
        mask = torch.cat([mask[kept], mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[kept][:, -1:] + 1
        ids = torch.tensor([[tokens[place]] for place in going], device=mask.device)


def _said(deck: Deck, row: _Row, token: int, sampling: Sampling, last: bool) -> Chunk:
    """Take a row's next token: what it adds to the text, held back while a character or a stop string may be under way."""
    ended = token in _end_tokens(deck)
    if not ended:
        row.answer.append(token)
    text = deck.tokenizer.decode(row.answer, skip_special_tokens=True)
    stops = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
    row.done = ended or last or bool(stops)
    if stops:
        text = text[: min(stops)]
    elif not row.done:
        text = _safe(text, sampling.stop)
    piece = text[len(row.said) :]
    row.said += piece
    return Chunk(row.index, piece, row.done)


def _safe(text: str, stops: tuple[str, ...]) -> str:
    """The text without what may still change: a character cut in its bytes, or the beginning of a stop string."""
    text = text.rstrip("\ufffd")
    longest = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return text[: len(text) - longest]


def _end_tokens(deck: Deck) -> set[int]:
    configured: Any = deck.model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {int(end) for end in (*ends, deck.tokenizer.eos_token_id) if end is not None}


def _left_padded(deck: Deck, rows: list[_Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """[padding][virtual tokens][prompt] and its mask, (rows, seq)."""
    vocab_size = deck.model.get_input_embeddings().weight.shape[0]
    whole = [[*range(vocab_size, vocab_size + deck.virtual_tokens(row.adapter)), *row.prompt] for row in rows]
    width = max(len(ids) for ids in whole)
    device = deck.model.device
    padded = [[deck.model.config.pad_token_id] * (width - len(ids)) + ids for ids in whole]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in whole]
    return torch.tensor(padded, device=device), torch.tensor(mask, device=device)


def _room(deck: Deck, rows: list[_Row]) -> int:
    limit = int(deck.model.config.max_position_embeddings)
    longest = max(len(row.prompt) + deck.virtual_tokens(row.adapter) for row in rows)
    if longest >= limit:
        raise ConfigError(
            say(
                "{length} tokens, virtual ones included, are more than the model's {limit} positions; shorten the input",
                length=longest,
                limit=limit,
            )
        )
    return limit - longest
