"""Answers that fit a JSON schema: llguidance (github.com/guidance-ai/llguidance) says which tokens may come next."""

from __future__ import annotations

import json
import math
import threading
from concurrent.futures import Future
from fractions import Fraction
from typing import Any, final

import numpy as np
import torch

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.generation.sequence import end_tokens
from tunedeck.methods.packed_embedding import vocabulary_size

_STACK_BYTES = 64 << 20
"""Stack of the compiling thread: a chain of 1500 references recurses too deep for the usual 8 MB and ends the
process.
"""
_MOST_MULTIPLE = 10_000
"""Limit for the product of all `multipleOf`; llguidance takes 0.1 s at it and nearly three minutes at three million."""
_MOST_PATTERNS = 32
"""Limit for all `patternProperties` together, which are compared with each other."""
_WHITESPACE = r"[\x20\x0A\x09]{1,16}"


@final
class SchemaCompiler:
    """Compiles JSON schemas for one base; its tokenizer is read when the first schema comes."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck
        self._tokenizer: Any = None
        self._lock = threading.Lock()

    def compile(self, schema: str) -> JsonGrammar:
        """Compile a schema given as JSON text; ConfigError for one that cannot be used, or without llguidance."""
        done: Future[JsonGrammar] = Future()

        def work() -> None:
            try:
                done.set_result(self._compiled(schema))
            except BaseException as error:
                done.set_exception(error)

        with self._lock:
            before = threading.stack_size(_STACK_BYTES)
            try:
                thread = threading.Thread(target=work, name="json-schema", daemon=True)
                thread.start()
            finally:
                threading.stack_size(before)
            thread.join()
        return done.result()

    def _compiled(self, schema: str) -> JsonGrammar:
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ModuleNotFoundError as error:
            raise ConfigError(
                say(
                    "response_format needs {package}; install it with: pip install 'tunedeck[serve]'",
                    package=error.name,
                )
            ) from error
        _check(schema)
        limits = LLParserLimits(verbose_errors=False, initial_lexer_fuel=200_000, max_grammar_size=100_000)
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": _WHITESPACE})
            matcher = LLMatcher(self._read_tokenizer(), grammar, log_level=0, limits=limits)
            reason = matcher.get_error()
        except ValueError as error:
            reason = str(error)
        if reason:
            raise _unusable(reason.splitlines()[0][:300])
        return JsonGrammar(matcher)

    def _read_tokenizer(self) -> Any:
        if self._tokenizer is None:
            from llguidance.hf import from_tokenizer

            vocabulary = vocabulary_size(self._deck.model)
            try:
                self._tokenizer = from_tokenizer(
                    self._deck.tokenizer, vocabulary, sorted(end_tokens(self._deck)) or None
                )
            except Exception as error:
                raise ConfigError(
                    say("this base's tokenizer cannot be held to a JSON schema: {reason}", reason=str(error)[:300])
                ) from error
        return self._tokenizer


@final
class JsonGrammar:
    """A compiled schema that many answers share, each with its state."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def start(self) -> JsonGrammarState:
        """Return the state of an answer that has no token."""
        return JsonGrammarState(self._matcher.deep_copy())


@final
class JsonGrammarState:
    """The state of one answer in its grammar. Raises ConfigError where the grammar takes too long for one token."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def masked(self, scores: torch.Tensor) -> torch.Tensor:
        """Return logits (vocab) with -inf for the tokens that may not come next."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = torch.zeros(len(scores), dtype=torch.bool)
        known = min(len(scores), len(bits))
        allowed[:known] = torch.from_numpy(bits[:known].astype(bool))
        if self._matcher.is_error() or not bool(allowed.any()):
            raise _too_complicated()
        return scores.masked_fill(~allowed, -float("inf"))

    def take(self, token: int) -> bool:
        """Advance by a token; True when the answer is complete and no other token may follow."""
        if not self._matcher.consume_token(token):
            raise _too_complicated()
        return bool(self._matcher.is_stopped())


def _check(schema: str) -> None:
    """Raise ConfigError for what would take long to compile. What is not JSON is left to the compiler."""
    try:
        waiting: list[Any] = [json.loads(schema)]
    except (ValueError, RecursionError):
        return
    multiples, patterns = [], 0
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            multiple, of_names = node.get("multipleOf"), node.get("patternProperties")
            if isinstance(multiple, int | float) and math.isfinite(multiple):
                multiples.append(Fraction(str(multiple)))
            patterns += len(of_names) if isinstance(of_names, dict) else 0
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    scale = math.lcm(*(one.denominator for one in multiples))
    if math.lcm(*(int(one * scale) for one in multiples)) > _MOST_MULTIPLE:
        raise _unusable(say("multipleOf: the least common multiple of all is above {limit}", limit=_MOST_MULTIPLE))
    if patterns > _MOST_PATTERNS:
        raise _unusable(say("more than {limit} patternProperties", limit=_MOST_PATTERNS))


def _unusable(reason: str) -> ConfigError:
    return ConfigError(say("the JSON schema cannot be used: {reason}", reason=reason))


def _too_complicated() -> ConfigError:
    return ConfigError(say("the JSON schema is too complicated for this answer; make it simpler"))
