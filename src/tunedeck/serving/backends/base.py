"""The interface between serving and a runtime that holds a base and its adapters: a deck, or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from typing_extensions import TypeVar

Taken = TypeVar("Taken", contravariant=True, default=Any)
"""The contents that a backend takes: the requests' `Content`."""
Given = TypeVar("Given", covariant=True, default=Any)
"""The answers that it gives: the requests' `Answer`."""


class Backend(Protocol[Taken]):
    """A base with adapters that come and go, each under a key that is never used twice."""

    def load(self, folder: Path, key: str) -> str | None:
        """Load and check an adapter while batches run; returns a note where something could not be checked.

        Raises TunedeckError, and then holds nothing of the adapter.
        """
        ...

    def remove(self, key: str) -> None:
        """Free an adapter that no request uses."""
        ...

    def encode(self, contents: Sequence[Taken], key: str | None) -> list[list[int]]:
        """Return contents as token ids for an adapter, None for the base model; TunedeckError for an invalid one."""
        ...

    def width(self, ids: Sequence[int], key: str | None) -> int:
        """Return the positions that the ids take, virtual tokens included."""
        ...


Loaded: TypeAlias = str | Exception | None
"""What became of an adapter that was to be loaded: a note or None, as `Backend.load` returns, or its error."""


@runtime_checkable
class LoadsTogether(Protocol):
    """A backend that loads several adapters faster than one after the other."""

    def load_together(
        self, folders: Mapping[str, Path], reading: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, Loaded]:
        """Do what `Backend.load` does for a folder under each key; `reading` is entered while one is read."""
        ...


class BatchBackend(Backend[Taken], Protocol[Taken, Given]):
    """A backend that answers a whole batch at once."""

    def answer(
        self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: Callable[[], None] | None = None
    ) -> Sequence[Given]:
        """Return one answer for each row of token ids, each by its adapter.

        A backend that can calls `pause` now and then on the way; `pause` may call `answer` for another batch.
        """
        ...
