"""Use a deck as a backend that answers mixed batches by its task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

from tunedeck.core.errors import ConfigError, DrainingError
from tunedeck.core.helper_threads import end_helper_threads
from tunedeck.core.i18n import say
from tunedeck.deck.adapter import Adapter
from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.pauses import Pauses
from tunedeck.deck.reading import adapter_from_folder
from tunedeck.tasks.base import BatchServing
from tunedeck.tasks.registry import view_of

T = TypeVar("T")


class Compute(Protocol):
    """Where the deck computes: in the thread that runs its batches."""

    def __call__(self, work: Callable[[], T], /) -> T:
        """Do the work and return its result or raise its error."""
        ...


def here(work: Callable[[], T]) -> T:
    """Do the work in the calling thread."""
    return work()


@final
class Adapters:
    """Load, test and remove adapters for every deck backend."""

    def __init__(self, deck: Deck, compute: Compute) -> None:
        self._deck, self._compute = deck, compute

    def load(self, folder: Path, key: str) -> str | None:
        """Read the adapter here; attach it and let it answer its stored probe where the deck computes. A note when it
        brings none.

        Whatever changes the deck waits for the running batch: once for a load, not once for each of its steps.
        """
        try:
            adapter = adapter_from_folder(self._deck.base, self._deck.task, folder, key, allow_base_mismatch=False)
            adapter.to(next(self._deck.model.parameters()).device).freeze_for_inference()
        finally:
            end_helper_threads()
        probed = self._compute(partial(self._attach, adapter))
        return None if probed else say("no stored probe: not tested on load")

    def remove(self, key: str) -> None:
        """Free its memory."""
        try:
            self._compute(partial(self._deck.remove, key))
        except DrainingError:  # no batch runs any more
            self._deck.remove(key)

    def width(self, ids: Sequence[int], key: str | None) -> int:
        """Return positions that the ids take with the adapter's virtual tokens."""
        return len(ids) + self._deck.virtual_tokens(key)

    def pausing(self, keys: Sequence[str | None], pause: Callable[[], None] | None) -> AbstractContextManager[None]:
        """Let `pause` be called between the layers of a batch, unless one of its adapters has weights in the base's
        place.
        """
        used = (self._deck.adapter(key) for key in set(keys) if key is not None)
        if pause is None or any(adapter.built.weights for adapter in used):
            return nullcontext()
        return Pauses(pause).on(self._deck.base)

    def _attach(self, adapter: Adapter) -> bool:
        self._deck.attach(adapter)
        try:
            return self._deck.check_probe(adapter.name)
        except BaseException:  # a stored probe may raise anything
            self._deck.remove(adapter.name)
            raise


@final
class DeckBackend:
    """A deck whose task answers in batches."""

    def __init__(self, deck: Deck, serving: BatchServing, compute: Compute) -> None:
        adapters = Adapters(deck, compute)
        self.load, self.remove, self.width = adapters.load, adapters.remove, adapters.width
        self._pausing = adapters.pausing
        self._deck, self._serving = deck, serving

    def encode(self, contents: Sequence[Any], key: str | None) -> list[list[int]]:
        """Return token ids of contents, as the task encodes them."""
        return self._serving.encode(self._deck, contents, key)

    def answer(
        self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: Callable[[], None] | None = None
    ) -> list[Any]:
        """Return the task's answer to each row; `pause` is called between the layers."""
        with self._pausing(keys, pause):
            return self._serving.answer(self._deck, rows, keys)


def batch_backend(deck: Deck, compute: Compute = here) -> DeckBackend:
    """Return the backend for a deck's task; ConfigError for one that does not answer in batches."""
    serving = view_of(deck.task).serving
    if serving is None:
        raise ConfigError(say("the task {kind} cannot be served in batches", kind=deck.task.kind))
    return DeckBackend(deck, serving, compute)
