"""One sequence: a prompt and its answer, from the request to the last token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, final

import torch
from transformers import LogitsProcessorList

from tunedeck.core.errors import AdapterError, ConfigError, ModelError, TunedeckError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.generation.detokenizer import Detokenizer
from tunedeck.generation.sampling import Sampling

Prompt: TypeAlias = str | list[int] | list[dict[str, str]]
"""Plain text to continue, token ids, or a chat as {"role", "content"}."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A chosen token with the logarithm of its probability, and the likeliest tokens with theirs; tokens are texts."""

    token: str
    logprob: float
    offset: int
    """Characters of the answer before it."""
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A new piece of a sequence's text; `done` with the last one.

    `logprobs` are those of the tokens since the piece before, where they were asked for.
    """

    row: int
    text: str
    done: bool
    logprobs: tuple[TokenLogprob, ...] = ()


class GrammarState(Protocol):
    """The state of one answer in its grammar; both methods raise ConfigError where the grammar cannot continue."""

    def masked(self, scores: torch.Tensor) -> torch.Tensor:
        """Return logits (vocab) with -inf for the tokens that may not come next."""
        ...

    def take(self, token: int) -> bool:
        """Advance by a token; True when no other may follow."""
        ...


class Grammar(Protocol):
    """A compiled grammar that many answers can share."""

    def start(self) -> GrammarState:
        """Return the state of an answer without tokens."""
        ...


@final
@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt and its answer so far.

    It is created from what a caller asks, becomes ready to decode with `prepare`, and grows token by token.
    """

    prompt: Prompt
    sampling: Sampling
    grammar: Grammar | None = None
    """The schema or pattern that the answer has to match."""
    index: int = 0
    """Its position among the sequences that are answered together."""
    token_ids: list[int] = field(default_factory=list)
    """Tokens of the answer."""
    text: str = ""
    """The answer's text, without what a stop string or a cut character may still change."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    cached_tokens: int = 0
    """Tokens of the prompt whose keys and values were not computed anew."""
    room: int = 0
    """Positions that are reserved for it; rows of one room share tensors."""
    finish_reason: str | None = None
    """"stop", "length" or "error" once the answer is complete."""
    error: TunedeckError | None = None

    # Set by `prepare`:
    adapter: str | None = field(init=False)
    adapter_name: str | None = field(init=False)
    """The adapter's public name, for messages."""
    prompt_ids: list[int] = field(init=False)
    virtual_tokens: int = field(init=False)
    max_new_tokens: int = field(init=False)
    rng: torch.Generator = field(init=False)
    processors: LogitsProcessorList = field(init=False)
    detokenizer: Detokenizer = field(init=False)
    end_tokens: frozenset[int] = field(init=False)
    """Tokens that end an answer."""
    grammar_state: GrammarState | None = field(init=False)
    _taken_text: int = field(init=False, default=0)
    _taken_logprobs: int = field(init=False, default=0)

    def prepare(self, deck: Deck, adapter: str | None, prompt_ids: list[int]) -> Sequence:
        """Set everything that decoding needs and return the sequence itself; `adapter` is a name in the deck.

        Raises ConfigError when the prompt leaves no room for an answer.
        """
        self.adapter = self.adapter_name = adapter
        self.prompt_ids = prompt_ids
        self.virtual_tokens = deck.positions_before(adapter)
        self.max_new_tokens = self.sampling.max_tokens
        if deck.positions is not None:
            if self.prompt_tokens >= deck.positions:
                raise ConfigError(
                    say(
                        "{length} tokens, virtual ones included, are more than the model's {limit} positions; "
                        "shorten the input",
                        length=self.prompt_tokens,
                        limit=deck.positions,
                    )
                )
            self.max_new_tokens = min(self.max_new_tokens, deck.positions - self.prompt_tokens)
        self.rng = torch.Generator().manual_seed(self.sampling.seed)
        self.processors = self.sampling.processors(len(prompt_ids))
        self.detokenizer = Detokenizer(deck.tokenizer, self.sampling.stop)
        self.end_tokens = end_tokens(deck)
        self.grammar_state = None if self.grammar is None else self.grammar.start()
        return self

    @property
    def prompt_tokens(self) -> int:
        """Return positions of the prompt, virtual tokens included."""
        return self.virtual_tokens + len(self.prompt_ids)

    @property
    def completion_tokens(self) -> int:
        """Return tokens of a finished answer; the token that ended an empty one counts."""
        return max(1, len(self.token_ids))

    @property
    def max_length(self) -> int:
        """Return positions that the prompt and the longest possible answer take."""
        return self.prompt_tokens + self.max_new_tokens

    @property
    def plain(self) -> bool:
        """Tell whether decoding takes the likeliest token and needs nothing else of the logits."""
        sampling = self.sampling
        return sampling.greedy and not self.processors and sampling.logprobs is None and self.grammar_state is None

    @property
    def has_news(self) -> bool:
        """Tell whether there is text that `take_chunk` has not returned, or the sequence has finished."""
        return len(self.text) > self._taken_text or self.finish_reason is not None

    def append_token(self, token: int) -> None:
        """Append the next token; text is held back while a character or a stop string may be incomplete."""
        piece, stopped = "", False
        ended = token in self.end_tokens
        if not ended:
            self.token_ids.append(token)
            piece, stopped = self.detokenizer.take(token)
            if self.grammar_state is not None:
                try:
                    ended = self.grammar_state.take(token)
                except TunedeckError as error:
                    self.fail(error)
                    return
        full = len(self.token_ids) >= self.max_new_tokens
        if not stopped and (ended or full):
            rest, stopped = self.detokenizer.rest()
            piece += rest
        self.text += piece
        if ended or stopped:
            self.finish_reason = "stop"
        elif full:
            self.finish_reason = "length"

    def fail(self, error: TunedeckError) -> None:
        """End the sequence with an error."""
        self.finish_reason, self.error = "error", error

    def take_chunk(self) -> Chunk:
        """Return the text and the logprobs that have come since the last call."""
        text, logprobs = self.text[self._taken_text :], tuple(self.logprobs[self._taken_logprobs :])
        self._taken_text, self._taken_logprobs = len(self.text), len(self.logprobs)
        return Chunk(self.index, text, self.finish_reason is not None, logprobs)


def not_numbers(adapter: str | None) -> TunedeckError:
    """Return the error for logits that are infinite or not a number: the adapter's, or the base's without one."""
    if adapter is None:
        return ModelError(say("the base model returned values that are not numbers; try --dtype float32"))
    return AdapterError(say("adapter {name!r} returned values that are not numbers; train it again", name=adapter))


def end_tokens(deck: Deck) -> frozenset[int]:
    """Return the tokens that end an answer: the model's and the tokenizer's."""
    configured: Any = deck.model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return frozenset(int(end) for end in (*ends, deck.tokenizer.eos_token_id) if end is not None)
