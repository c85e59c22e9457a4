"""A deck as a backend: classification and embedding in mixed batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast, final

import torch

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.native import end_helper_threads
from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.pauses import Pauses
from tunedeck.deck.probe import check_probe
from tunedeck.tasks.classify.task import Classify, Prediction, classify_ids, logits_of_ids
from tunedeck.tasks.embed.encoding import token_ids, vectors_of
from tunedeck.tasks.embed.task import Embed
from tunedeck.tasks.text import fitting_ids, length_limit, pad


@final
class Adapters:
    """What every deck backend does with adapters: load, test, remove."""

    def __init__(self, deck: Deck) -> None:
        self._deck = deck

    def load(self, folder: Path, key: str) -> str | None:
        """Load and let the adapter answer its stored probe; a note when it brings none."""
        self._deck.load_adapter(folder, key)
        try:
            probed = check_probe(self._deck, key)
        except BaseException:  # whatever a stored probe may raise
            self._deck.remove(key)
            raise
        finally:
            end_helper_threads()
        self._deck.adapter(key).slim()
        return None if probed else say("no stored probe: not tested on load")

    def remove(self, key: str) -> None:
        """Free its memory."""
        self._deck.remove(key)

    def width(self, ids: Sequence[int], key: str | None) -> int:
        """Positions that the ids take with the adapter's virtual tokens."""
        return len(ids) + self._deck.virtual_tokens(key)

    def pausing(self, keys: Sequence[str | None], pause: Callable[[], None] | None) -> AbstractContextManager[None]:
        """Let `pause` be called between the layers of a batch, unless one of its adapters has weights in the base's place."""
        used = (self._deck.adapter(key) for key in set(keys) if key is not None)
        if pause is None or any(adapter.built.weights for adapter in used):
            return nullcontext()
        return Pauses(pause).on(self._deck.base)


@final
class ClassifyBackend:
    """Texts to predictions."""

    def __init__(self, deck: Deck) -> None:
        adapters = Adapters(deck)
        self.load, self.remove, self.width = adapters.load, adapters.remove, adapters.width
        self._pausing = adapters.pausing
        self._deck, self._task = deck, cast(Classify, deck.task)

    def encode(self, contents: Sequence[str], key: str | None) -> list[list[int]]:
        """Token ids of texts, cut to the task's length."""
        ids = classify_ids(self._deck, contents, [key] * len(contents), self._task.max_length)
        return [ids[row] for row in range(len(contents))]

    def answer(
        self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: Callable[[], None] | None = None
    ) -> list[Prediction]:
        """A Prediction for each row."""
        with self._pausing(keys, pause):
            logits = logits_of_ids(self._deck, rows, keys)
        return [self._task.prediction(self._deck, row, key) for row, key in zip(logits, keys, strict=True)]


@final
class EmbedBackend:
    """Texts to vectors."""

    def __init__(self, deck: Deck) -> None:
        adapters = Adapters(deck)
        self.load, self.remove, self.width = adapters.load, adapters.remove, adapters.width
        self._pausing = adapters.pausing
        self._deck = deck

    def encode(self, contents: Sequence[str | list[int]], key: str | None) -> list[list[int]]:
        """Token ids of texts behind the document instruction of their adapter; a content may be token ids already."""
        encoding = self._task(key).encoding(as_query=False)
        texts = [one for one in contents if isinstance(one, str)]
        encoded = iter(token_ids(self._deck, texts, [key] * len(texts), [encoding] * len(texts)))
        room = min(encoding.max_length, length_limit(self._deck)) - self._deck.virtual_tokens(key)
        vocabulary = self._deck.model.get_input_embeddings().weight.shape[0]
        return [next(encoded) if isinstance(one, str) else fitting_ids(one, vocabulary, room) for one in contents]

    def answer(
        self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: Callable[[], None] | None = None
    ) -> list[torch.Tensor]:
        """A vector (hidden,) for each row, float32, on the CPU."""
        input_ids, mask = pad(self._deck, rows)
        encodings = [self._task(key).encoding(as_query=False) for key in keys]
        with torch.inference_mode(), self._pausing(keys, pause):
            return list(vectors_of(self._deck, input_ids, mask, keys, encodings).cpu())

    def _task(self, key: str | None) -> Embed:
        return cast(Embed, self._deck.task if key is None else self._deck.adapter(key).task)


def batch_backend(deck: Deck) -> ClassifyBackend | EmbedBackend:
    """The backend for a deck's task; ConfigError for one that does not answer in batches."""
    if deck.task.kind == "classify":
        return ClassifyBackend(deck)
    if deck.task.kind == "embed":
        return EmbedBackend(deck)
    raise ConfigError(say("the task {kind} is not answered in batches", kind=deck.task.kind))
