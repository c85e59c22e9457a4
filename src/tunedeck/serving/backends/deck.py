"""Use a deck as a backend that answers mixed batches by its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from tunedeck.serving.backends.base import Loaded
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
        found = self.load_together({key: folder}, nullcontext)[key]
        if isinstance(found, Exception):
            raise found
        return found

    def load_together(
        self, folders: Mapping[str, Path], reading: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, Loaded]:
        """Read the adapters here; attach them and let them answer their stored probes together."""
        found: dict[str, Loaded] = {}
        read: list[Adapter] = []
        device = next(self._deck.model.parameters()).device
        for key, folder in folders.items():
            try:
                with reading():
                    adapter = adapter_from_folder(
                        self._deck.base, self._deck.task, folder, key, allow_base_mismatch=False
                    )
                adapter.to(device).freeze_for_inference()
                read.append(adapter)
            except Exception as error:
                found[key] = error
            finally:
                end_helper_threads()
        return {**found, **self._compute(partial(self._attach, read))} if read else found

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

    def _attach(self, adapters: Sequence[Adapter]) -> dict[str, Loaded]:
        """Attach adapters and let them answer; where something is wrong, each by itself, to find out which."""
        names = [adapter.name for adapter in adapters]
        try:
            for adapter in adapters:
                self._deck.attach(adapter)
            probed = self._deck.check_probes(names)
        except BaseException as error:  # a stored probe may raise anything
            for name in set(names).intersection(self._deck.adapters):
                self._deck.remove(name)
            if len(adapters) > 1:
                return {name: found for one in adapters for name, found in self._attach([one]).items()}
            if not isinstance(error, Exception):
                raise
            return {names[0]: error}
        return {
            name: None if has_probe else say("no stored probe: not tested on load")
            for name, has_probe in zip(names, probed, strict=True)
        }


@final
class DeckBackend:
    """A deck whose task answers in batches."""

    def __init__(self, deck: Deck, serving: BatchServing, compute: Compute) -> None:
        adapters = Adapters(deck, compute)
        self.load, self.remove, self.width = adapters.load, adapters.remove, adapters.width
        self.load_together = adapters.load_together
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
