"""The adapter that the page answers with: loaded at the first question, one at a time."""

from __future__ import annotations

import threading
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck


@final
class Decks:
    """A deck with the adapter that was asked last; another adapter takes its place."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._deck: Deck | None = None

    def answer(self, folder: Path, text: str) -> dict[str, Any]:
        """Return the adapter's answer as plain values; raises what Deck.open and Deck.predict raise. Loads torch."""
        from tunedeck.deck.deck import Deck

        with self._lock:
            if self._deck is None or self._folder != folder:
                self._deck = None  # its memory is free before the next base is loaded
                self._deck, self._folder = Deck.open(folder), folder
            name = self._deck.adapters[0]
            if self._deck.task.kind == "generate":
                return {"text": self._deck.generate([text], adapter=name)[0]}
            (found,) = self._deck.predict([text], adapter=name)
        if is_dataclass(found) and not isinstance(found, type):
            return asdict(found)
        return {"answer": found}
