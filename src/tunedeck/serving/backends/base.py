"""The seam between serving and what computes: a deck, or any other runtime that holds a base and its adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Backend(Protocol):
    """A base with adapters that come and go, each under a key that is never used twice."""

    def load(self, folder: Path, key: str) -> str | None:
        """Take an adapter in, checked; a note where something could not be checked. Runs while batches run.

        Raises TunedeckError, and then holds nothing of the adapter.
        """
        ...

    def remove(self, key: str) -> None:
        """Let go of an adapter that no request uses."""
        ...

    def encode(self, contents: Sequence[Any], key: str | None) -> list[list[int]]:
        """Contents as token ids for an adapter, None for the bare base; TunedeckError when one of them cannot be."""
        ...

    def width(self, ids: Sequence[int], key: str | None) -> int:
        """How many positions the ids take, virtual tokens included."""
        ...


class BatchBackend(Backend, Protocol):
    """A backend that answers a whole batch at once."""

    def answer(self, rows: Sequence[Sequence[int]], keys: Sequence[str | None]) -> list[Any]:
        """One answer for each row of token ids, each by its own adapter."""
        ...
