"""A deck that generates as a backend: prompts to token ids, and the virtual tokens of each adapter computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast, final

from transformers import DynamicCache

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say
from tunedeck.deck.deck import Deck
from tunedeck.serving.deck_backend import Adapters
from tunedeck.tasks.answering import new_row
from tunedeck.tasks.generate import Generate
from tunedeck.tasks.prefill import prefix_of
from tunedeck.tasks.sampling import Sampling

Prompt: TypeAlias = str | Sequence[int] | Sequence[Mapping[str, str]]
"""Plain text to go on from, token ids, or a chat as {"role", "content"}."""


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """What a generation request asks."""

    prompt: Prompt
    sampling: Sampling


@final
class GenerateBackend:
    """Prompts as token ids, and the virtual tokens' keys and values of each adapter, computed once."""

    def __init__(self, deck: Deck) -> None:
        self._adapters = Adapters(deck)
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

    def encode(self, content: Any, key: str | None) -> list[int]:
        """Token ids of a prompt; ConfigError when it leaves no room for an answer."""
        asked = cast(Asked, content)
        ids = self._ids(asked.prompt)
        new_row(self.deck, 0, key, ids, asked.sampling, 0)
        return ids

    def _ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            ids = list(self.deck.tokenizer(prompt)["input_ids"])
        elif all(isinstance(one, int) for one in prompt):
            ids = [int(cast(int, one)) for one in prompt]
        else:
            ids = self._task.prompt_ids(self.deck, cast("Sequence[Mapping[str, str]]", prompt))
        vocabulary = self.deck.model.get_input_embeddings().weight.shape[0]
        if not ids or not all(0 <= one < vocabulary for one in ids):
            raise ConfigError(say("a prompt has one token or more, each from 0 to {last}", last=vocabulary - 1))
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
