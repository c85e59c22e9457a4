"""One answer under way: its tokens, and the text that is certain by now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import torch

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.deck.deck import Deck
from tunedeck.tasks.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of text that a row has just said; `done` with the last piece of the row."""

    row: int
    text: str
    done: bool


@final
@dataclass(eq=False)
class Row:
    """A prompt, as token ids, and its answer so far; `finish` is "stop" or "length" once it is complete."""

    index: int
    adapter: str | None
    prompt: list[int]
    sampling: Sampling
    virtual_tokens: int
    room: int
    """Tokens that the answer may have."""
    dice: torch.Generator
    answer: list[int] = field(default_factory=list)
    said: str = ""
    finish: str | None = None

    @property
    def length(self) -> int:
        """Positions of the prompt, virtual tokens included."""
        return self.virtual_tokens + len(self.prompt)


def new_row(deck: Deck, index: int, adapter: str | None, prompt: list[int], sampling: Sampling, seed: int) -> Row:
    """A row that has said nothing; ConfigError when the prompt leaves no room for an answer."""
    virtual = deck.virtual_tokens(adapter)
    room = sampling.max_tokens
    if deck.positions is not None:
        if virtual + len(prompt) >= deck.positions:
            raise ConfigError(
                say(
                    "{length} tokens, virtual ones included, are more than the model's {limit} positions; shorten the input",
                    length=virtual + len(prompt),
                    limit=deck.positions,
                )
            )
        room = min(room, deck.positions - virtual - len(prompt))
    return Row(index, adapter, prompt, sampling, virtual, room, torch.Generator().manual_seed(seed))


def take_token(deck: Deck, row: Row, token: int) -> Chunk:
    """Take a row's next token: what it adds to the text, held back while a character or a stop string may be under way."""
    ended = token in _end_tokens(deck)
    if not ended:
        row.answer.append(token)
    text = deck.tokenizer.decode(row.answer, skip_special_tokens=True)
    stops = [at for stop in row.sampling.stop if (at := text.find(stop)) >= 0]
    if ended or stops:
        row.finish = "stop"
    elif len(row.answer) >= row.room:
        row.finish = "length"
    if stops:
        text = text[: min(stops)]
    elif row.finish is None:
        text = _safe(text, row.sampling.stop)
    piece = text[len(row.said) :]
    row.said += piece
    return Chunk(row.index, piece, row.finish is not None)


def _safe(text: str, stops: tuple[str, ...]) -> str:
    """The text without what may still change: a character cut in its bytes, or the beginning of a stop string."""
    text = text.rstrip("\ufffd")
    longest = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return text[: len(text) - longest]


def _end_tokens(deck: Deck) -> set[int]:
    configured: Any = deck.model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {int(end) for end in (*ends, deck.tokenizer.eos_token_id) if end is not None}
