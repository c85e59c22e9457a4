"""The adapters that the page answers with: loaded at the first question, those of one screen at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck

Turns = list[dict[str, str]]
_LONGEST_ANSWER = 512


@final
class Decks:
    """A deck with the adapters that were asked last; others take its place. Its methods load torch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: tuple[Path, ...] = ()
        self._deck: Deck | None = None

    def answers(self, folders: Sequence[Path], text: str) -> list[dict[str, Any]]:
        """Return each adapter's answer as plain values, computed in one batch; raises as Deck.open and predict."""
        with self._lock:
            deck = self._of(folders)
            found = deck.predict([text] * len(deck.adapters), adapter=list(deck.adapters))
        return [asdict(one) if is_dataclass(one) and not isinstance(one, type) else {"answer": one} for one in found]

    def stream(
        self, folders: Sequence[Path], turns: Sequence[Turns], take: Callable[[int, str], None], stop: threading.Event
    ) -> None:
        """Answer conversations, one of each adapter and all in one batch; `take` gets the place and the new text.

        A conversation more than there are adapters is the base model's. Ends early once `stop` is set. Raises as
        Deck.open and Deck.stream.
        """
        from tunedeck.generation.sampling import Sampling

        sampling = Sampling(max_tokens=_LONGEST_ANSWER, temperature=0.7, top_p=0.95, repetition_penalty=1.1)
        with self._lock:
            deck = self._of(folders)
            names = [*deck.adapters, None][: len(turns)]
            for chunk in deck.stream(list(turns), names, sampling):
                take(chunk.row, chunk.text)
                if stop.is_set():
                    return

    def similarities(self, folders: Sequence[Path], first: str, second: str) -> list[float]:
        """Return the cosine of two texts' vectors by each adapter; raises as Deck.open and Deck.embed."""
        with self._lock:
            deck = self._of(folders)
            names = [name for name in deck.adapters for _ in range(2)]
            vectors = deck.embed([first, second] * len(deck.adapters), adapter=names)
        return [
            float(one @ other / (one.norm() * other.norm()))
            for one, other in zip(vectors[::2], vectors[1::2], strict=True)
        ]

    def _of(self, folders: Sequence[Path]) -> Deck:
        from tunedeck.deck.deck import Deck

        if self._deck is None or self._folders != tuple(folders):
            self._deck = None  # its memory is free before the next base is loaded
            self._deck, self._folders = Deck.open(*folders), tuple(folders)
        return self._deck
