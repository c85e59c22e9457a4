"""Which rows of the running batch belong to which adapter."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring rows of a batch that use the same adapter; `adapter` None is the base model."""

    adapter: str | None
    rows: slice


@dataclass(frozen=True, slots=True)
class Grouping:
    """A batch in the order of its adapters.

    `order` (batch,) brings the caller's rows into segments, `inverse` (batch,) brings results back; both are None when
    the rows are in order already.
    """

    segments: tuple[Segment, ...]
    order: torch.Tensor | None
    inverse: torch.Tensor | None


def group_rows(adapters: Sequence[str | None], kind_of: Callable[[str | None], object] = lambda _: None) -> Grouping:
    """Group the rows of a batch by adapter, in order of first appearance, adapters of one kind side by side."""
    rows_of: dict[object, dict[str | None, list[int]]] = {}
    for row, adapter in enumerate(adapters):
        rows_of.setdefault(kind_of(adapter), {}).setdefault(adapter, []).append(row)
    segments: list[Segment] = []
    order: list[int] = []
    for adapter, rows in (group for kind in rows_of.values() for group in kind.items()):
        segments.append(Segment(adapter, slice(len(order), len(order) + len(rows))))
        order += rows
    if order == list(range(len(order))):
        return Grouping(tuple(segments), None, None)
    permutation = torch.tensor(order)
    return Grouping(tuple(segments), permutation, permutation.argsort())


@final
class Router:
    """Holds the segments of the batch now running; the sites ask it. One batch runs at a time.

    `lock` is held while a batch runs; hold it to change what the sites do.
    """

    def __init__(self) -> None:
        self.segments: tuple[Segment, ...] = ()
        # Equal segments are the same object, so that what hooks have made for them serves again.
        self._recent: deque[tuple[Segment, ...]] = deque(maxlen=4)
        self.lock = threading.RLock()

    @contextmanager
    def routed(self, segments: tuple[Segment, ...]) -> Iterator[None]:
        """Route the rows of every forward and backward pass inside the block."""
        with self.lock:
            if segments in self._recent:
                segments = self._recent[self._recent.index(segments)]
            else:
                self._recent.append(segments)
            before, self.segments = self.segments, segments
            try:
                yield
            finally:
                self.segments = before
