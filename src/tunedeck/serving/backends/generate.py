"""A deck that generates as a backend: prompts to token ids, and what prompts begin with computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast, final

from transformers import DynamicCache

from tunedeck.core.errors import ConfigError
from tunedeck.deck.deck import Deck
from tunedeck.generation.kv_cache import has_windows, row_tensors
from tunedeck.generation.prefill import Prefill, prefix_of, trained_prefix
from tunedeck.generation.prompt_cache import BLOCK_TOKENS, PromptCache, concatenated
from tunedeck.generation.sequence import Prompt, Sequence
from tunedeck.methods.packed_embedding import vocabulary_size
from tunedeck.serving.backends.base import Loaded
from tunedeck.serving.backends.deck import Adapters, Compute, here
from tunedeck.serving.bounds import Bounds, exceeded
from tunedeck.tasks.generate.task import Generate
from tunedeck.tasks.text import check_ids


@final
class GenerateBackend:
    """Prompts as token ids; the keys and values of each adapter's virtual tokens and of the beginnings of its prompts.

    `prompt_cache_bytes` bounds what is kept of prompts, see `PromptCache`; nothing is where a layer keeps only its last
    positions.
    """

    def __init__(
        self, deck: Deck, bounds: Bounds | None = None, compute: Compute = here, prompt_cache_bytes: int = 0
    ) -> None:
        self._adapters = Adapters(deck, compute)
        self._max_input_tokens = (bounds or Bounds()).max_input_tokens
        self.deck, self._task = deck, cast(Generate, deck.task)
        self.width = self._adapters.width
        self._prefixes: dict[str, DynamicCache] = {}
        windows = has_windows(DynamicCache(config=deck.model.config))
        self._prompts = PromptCache(0 if windows else prompt_cache_bytes)

    def load(self, folder: Path, key: str) -> str | None:
        """Load and test an adapter."""
        return self._adapters.load(folder, key)

    def load_together(
        self, folders: Mapping[str, Path], reading: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, Loaded]:
        """Load and test several adapters."""
        return self._adapters.load_together(folders, reading)

    def remove(self, key: str) -> None:
        """Free its memory, that of its virtual tokens and prompts included."""
        self._prefixes.pop(key, None)
        self._prompts.forget(key)
        self._adapters.remove(key)

    def encode(self, contents: Many[Sequence], key: str | None) -> list[list[int]]:
        """Tokenize prompts together and prepare their sequences; ConfigError when one leaves no room for an answer."""
        encoded = self._token_ids([one.prompt for one in contents])
        for sequence, ids in zip(contents, encoded, strict=True):
            check_ids(ids, vocabulary_size(self.deck.model))
            if len(ids) > self._max_input_tokens:
                raise ConfigError(exceeded("max_input_tokens", len(ids), self._max_input_tokens))
            sequence.prepare(self.deck, key, ids)
        return encoded

    def _token_ids(self, prompts: list[Prompt]) -> list[list[int]]:
        """Return the ids of each prompt; plain texts go through the tokenizer in one call."""
        texts = list(dict.fromkeys(prompt for prompt in prompts if isinstance(prompt, str)))
        of_text = dict(zip(texts, self.deck.tokenizer(texts)["input_ids"] if texts else (), strict=True))
        return [list(of_text[prompt]) if isinstance(prompt, str) else self._ids(prompt) for prompt in prompts]

    def _ids(self, prompt: list[int] | list[dict[str, str]]) -> list[int]:
        if all(isinstance(one, int) for one in prompt):
            return list(cast("list[int]", prompt))
        return self._task.prompt_ids(self.deck, cast("list[dict[str, str]]", prompt))

    def prefix(self, key: str | None) -> DynamicCache | None:
        """Return the keys and values of the adapter's virtual tokens; None where it has none."""
        if key is None or not self.deck.virtual_tokens(key):
            return None
        if key not in self._prefixes:
            self._prefixes[key] = prefix_of(self.deck, key)
        return self._prefixes[key]

    def beginning(self, sequence: Sequence) -> DynamicCache | None:
        """Return the keys and values of a sequence's first positions that have been computed before; None for none."""
        prefix = self.prefix(sequence.adapter)
        blocks = self._prompts.get(sequence.adapter, sequence.prompt_ids)
        sequence.cached_tokens = BLOCK_TOKENS * len(blocks)
        if not blocks:
            return prefix
        prefix = prefix or trained_prefix(self.deck, sequence.adapter)
        virtual = None if prefix is None else row_tensors(prefix, 0, prefix.get_seq_length())
        cache = DynamicCache(config=self.deck.model.config)
        for place, tensors in enumerate(concatenated(blocks if virtual is None else [virtual, *blocks])):
            cache.update(*tensors, place)
        return cache

    def to_compute(self, sequence: Sequence) -> int:
        """Return the tokens of a prompt that are not in the cache."""
        return len(sequence.prompt_ids) - self._prompts.matching(sequence.adapter, sequence.prompt_ids)

    def keep_prompt(self, prefill: Prefill, row: int) -> None:
        """Keep the keys and values of a prompt that has been computed."""
        sequence = prefill.sequences[row]
        tensors = row_tensors(prefill.cache, row, len(sequence.prompt_ids)) if self._prompts.max_bytes else None
        if tensors is not None:
            self._prompts.put(sequence.adapter, sequence.prompt_ids, tensors)

    @property
    def prefix_positions(self) -> int:
        """Return positions that the cached virtual tokens take."""
        return sum(cache.get_seq_length() for cache in list(self._prefixes.values()))

    def prefix_to_come(self, key: str | None) -> int:
        """Return the positions that `prefix` will cache for an adapter at its first use."""
        return 0 if key is None or key in self._prefixes else self.deck.virtual_tokens(key)
