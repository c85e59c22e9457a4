"""One answer under way: its tokens, and the text that is certain by now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, final

import torch
from transformers import LogitsProcessorList

from tunedeck.core.errors import AdapterError, ConfigError, ModelError, TunedeckError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.generation.detokenizer import Detokenizer
from tunedeck.generation.sampling import Sampling


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was chosen, the logarithm of its probability, and the likeliest tokens with theirs; tokens are texts."""

    token: str
    logprob: float
    offset: int
    """Characters of the answer before it."""
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of text that a row has just said; `done` with the last piece of the row, `error` when it has failed.

    `logprobs` are those of the tokens since the piece before, where they were asked for.
    """

    row: int
    text: str
    done: bool
    logprobs: tuple[TokenLogprob, ...] = ()
    error: TunedeckError | None = None


class AnswerGrammar(Protocol):
    """What an answer has to fit, and how far it has come; both raise ConfigError where the grammar cannot go on."""

    def masked(self, scores: torch.Tensor) -> torch.Tensor:
        """Logits (vocab) with -inf for the tokens that may not come next."""
        ...

    def take(self, token: int) -> bool:
        """Go on by a token; True when no other may follow."""
        ...


@final
@dataclass(eq=False)
class Row:
    """A prompt, as token ids, and its answer so far; `finish` is "stop", "length" or "error" once it is complete."""

    index: int
    adapter: str | None
    prompt: list[int]
    sampling: Sampling
    virtual_tokens: int
    room: int
    """Tokens that the answer may have."""
    dice: torch.Generator
    processors: LogitsProcessorList
    detokenizer: Detokenizer
    ends: frozenset[int]
    """Tokens that end an answer."""
    name: str | None
    """What people call the adapter."""
    grammar: AnswerGrammar | None
    answer: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    told: int = 0
    """Logprobs that have gone out with a chunk."""
    said: str = ""
    finish: str | None = None

    @property
    def length(self) -> int:
        """Positions of the prompt, virtual tokens included."""
        return self.virtual_tokens + len(self.prompt)

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken as it is and nothing else of the logits is asked for."""
        sampling = self.sampling
        return sampling.greedy and not self.processors and sampling.logprobs is None and self.grammar is None


def new_row(
    deck: Deck,
    index: int,
    adapter: str | None,
    prompt: list[int],
    sampling: Sampling,
    seed: int,
    name: str | None = None,
    grammar: AnswerGrammar | None = None,
) -> Row:
    """A row that has said nothing; `name` is what people call the adapter where the deck has it under another name.

    Raises ConfigError when the prompt leaves no room for an answer.
    """
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
    return Row(
        index,
        adapter,
        prompt,
        sampling,
        virtual,
        room,
        torch.Generator().manual_seed(seed),
        sampling.processors(len(prompt)),
        Detokenizer(deck.tokenizer, sampling.stop),
        end_tokens(deck),
        name or adapter,
        grammar,
    )


def take_token(row: Row, token: int) -> Chunk:
    """Take a row's next token: what it adds to the text, held back while a character or a stop string may be under way."""
    piece, stopped = "", False
    ended = token in row.ends
    if not ended:
        row.answer.append(token)
        piece, stopped = row.detokenizer.take(token)
        if row.grammar is not None:
            try:
                ended = row.grammar.take(token)
            except TunedeckError as error:
                return fail_row(row, error)
    if not stopped and (ended or len(row.answer) >= row.room):
        rest, stopped = row.detokenizer.rest()
        piece += rest
    if ended or stopped:
        row.finish = "stop"
    elif len(row.answer) >= row.room:
        row.finish = "length"
    return _chunk(row, piece)


def fail_row(row: Row, error: TunedeckError) -> Chunk:
    """End a row with an error."""
    row.finish = "error"
    return Chunk(row.index, "", True, error=error)


def not_numbers(adapter: str | None) -> TunedeckError:
    """What is wrong when a row's logits are infinite or not a number: the adapter, or the base where there is none."""
    if adapter is None:
        return ModelError(say("the base model answered with values that are not numbers; try --dtype float32"))
    return AdapterError(say("adapter {name!r} answered with values that are not numbers; train it again", name=adapter))


def _chunk(row: Row, piece: str) -> Chunk:
    row.said += piece
    logprobs: tuple[TokenLogprob, ...] = ()
    if row.sampling.logprobs is not None and (piece or row.finish is not None):
        logprobs, row.told = tuple(row.logprobs[row.told :]), len(row.logprobs)
    return Chunk(row.index, piece, row.finish is not None, logprobs)


def end_tokens(deck: Deck) -> frozenset[int]:
    """Tokens that end an answer: the model's, and the tokenizer's."""
    configured: Any = deck.model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(int(end) for end in (*ends, deck.tokenizer.eos_token_id) if end is not None)
