"""A deck that generates as a backend: prompts to token ids, and the virtual tokens of each adapter computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast, final

from transformers import DynamicCache

from tunedeck.core.errors import ConfigError
from tunedeck.deck.deck import Deck
from tunedeck.generation.json_grammar import Grammar
from tunedeck.generation.prefill import prefix_of
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import new_row
from tunedeck.serving.backends.deck import Adapters
from tunedeck.serving.bounds import Bounds, exceeded
from tunedeck.tasks.generate.task import Generate
from tunedeck.tasks.text import check_ids

Prompt: TypeAlias = str | Sequence[int] | Sequence[Mapping[str, str]]
"""Plain text to go on from, token ids, or a chat as {"role", "content"}."""


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """What a generation request asks."""

    prompt: Prompt
    sampling: Sampling
    grammar: Grammar | None = None
    """What the answer has to fit."""


@final
class GenerateBackend:
    """Prompts as token ids, and the virtual tokens' keys and values of each adapter, computed once."""

    def __init__(self, deck: Deck, bounds: Bounds | None = None) -> None:
        self._adapters = Adapters(deck)
        self._most = (bounds or Bounds()).max_input_tokens
        self.deck, self._task = deck, cast(Generate, deck.task)
        self.width = self._adapters.width
        self._prefixes: dict[str, DynamicCache] = {}

    def load(self, folder: Path, key: str) -> str | None:
        """Load and test an adapter."""
        return self._adapters.load(folder, key)

    def remove(self, key: str) -> None:
        """Free its memory, that of its virtual tokens included."""
        self._prefixes.pop(key, None)
        self._adapters.remove(key)

    def encode(self, contents: Sequence[Any], key: str | None) -> list[list[int]]:
        """Token ids of prompts; ConfigError when one leaves no room for an answer."""
        encoded = []
        for asked in cast("Sequence[Asked]", contents):
            ids = self._ids(asked.prompt)
            if len(ids) > self._most:
                raise ConfigError(exceeded("max_input_tokens", len(ids), self._most))
            new_row(self.deck, 0, key, ids, asked.sampling, 0)
            encoded.append(ids)
        return encoded

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            ids = list(self.deck.tokenizer(prompt)["input_ids"])
        elif all(isinstance(one, int) for one in prompt):
            ids = [int(cast(int, one)) for one in prompt]
        else:
            ids = self._task.prompt_ids(self.deck, cast("Sequence[Mapping[str, str]]", prompt))
        check_ids(ids, self.deck.model.get_input_embeddings().weight.shape[0])
        return ids

    def prefix(self, key: str | None) -> DynamicCache | None:
        """Keys and values of the adapter's virtual tokens; None where it has none."""
        if key is None or not self.deck.virtual_tokens(key):
            return None
        if key not in self._prefixes:
            self._prefixes[key] = prefix_of(self.deck, key)
        return self._prefixes[key]

    @property
    def prefix_positions(self) -> int:
        """Positions that the kept virtual tokens take."""
        return sum(cache.get_seq_length() for cache in list(self._prefixes.values()))

    def prefix_to_come(self, key: str | None) -> int:
        """Positions that `prefix` will keep for an adapter when it is first asked for it."""
        return 0 if key is None or key in self._prefixes else self.deck.virtual_tokens(key)
