"""Choose adapters of a store for texts, by the centroids in their folders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

from tunedeck.core.errors import AdapterError, OverloadedError, UnavailableError
from tunedeck.core.i18n import say
from tunedeck.deck.choice import Choice, choose, text_of, text_vectors
from tunedeck.deck.deck import Deck
from tunedeck.formats.centroids import Centroids
from tunedeck.formats.manifest import FILE, read_manifest
from tunedeck.serving.backends.deck import Compute
from tunedeck.serving.store import AdapterStore

_TOGETHER = 8
"""Texts between two batches, so that one caller's long list holds others up for milliseconds."""
_AT_ONCE = 16
"""Callers that an adapter is chosen for at the same time."""


@final
class AdapterChooser:
    """Choose among the adapters of a store that were trained on the deck's base; `compute` runs where the deck does."""

    def __init__(self, deck: Deck, store: AdapterStore, compute: Compute) -> None:
        self._deck, self._store, self._compute = deck, store, compute
        self._known: dict[str, tuple[object, Centroids | None]] = {}
        self._free = threading.BoundedSemaphore(_AT_ONCE)

    def choose(self, contents: Sequence[Any], may_use: Callable[[str], bool]) -> list[Choice]:
        """Return the adapter for each content, a text or a chat, among those that the caller may use.

        Raises NoNearAdapterError where there is none to choose from, OverloadedError while too many callers ask.
        """
        texts = [text_of(content) for content in contents]
        usable = {name: self._centroids(name) for name in self._store.names() if may_use(name)}
        known = {name: centroids for name, centroids in usable.items() if centroids is not None}
        if not self._free.acquire(blocking=False):
            raise OverloadedError(say("an adapter is being chosen for too many requests; try again in 1 s"), 1.0)
        try:
            chosen: list[Choice] = []
            for start in range(0, len(texts), _TOGETHER):
                part = texts[start : start + _TOGETHER]
                vectors = self._compute(partial(text_vectors, self._deck.base, self._deck.router, part))
                chosen += choose(vectors, known)
            return chosen
        finally:
            self._free.release()

    def _centroids(self, name: str) -> Centroids | None:
        """Return the centroids in an adapter's folder, read again when its tunedeck.json has changed; None where they
        cannot be used.
        """
        try:
            place = self._store.repository.find(name)
            state = (place / FILE).stat()
            signature = (state.st_mtime_ns, state.st_size, state.st_ino)
            if name not in self._known or self._known[name][0] != signature:
                manifest = read_manifest(place)
                fits = manifest is not None and manifest.base.fingerprint == self._deck.base.fingerprint
                self._known[name] = signature, manifest.centroids if manifest is not None and fits else None
        except (AdapterError, UnavailableError, OSError):
            return None
        return self._known[name][1]
