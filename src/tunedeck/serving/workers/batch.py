"""Classification and embedding: the requests that wait become one mixed batch, and the next, and the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from tunedeck.serving.backends.base import BatchBackend
from tunedeck.serving.engine import Limits
from tunedeck.serving.queue import FairQueue
from tunedeck.serving.request import Request

_PADDING = 2.0
"""A batch may be this many times its real positions; longer rows wait for a batch of their own length."""
_FORGETTING = 0.95
"""What the time of a batch still counts for after the next one."""
_SMALL = 512
"""Positions below which padding does not matter."""


@final
class BatchWorker:
    """Dynamic batches by a budget of positions, padding counted, and a small waiting time.

    While several callers ask, a batch is also kept short in time, and callers who have lately had much less are
    answered between its layers.
    """

    def __init__(self, backend: BatchBackend, queue: FairQueue, limits: Limits) -> None:
        self._backend, self._queue, self._limits = backend, queue, limits
        self._pace = _Pace()
        self._let_in_s = 0.0

    def step(self) -> bool:
        """Run one batch."""
        self._queue.gather(self._limits.wait_s, self._limits.batch_positions)
        taken = self._queue.take(self._room(), self._limits.batch_rows)
        batch = [request for request in taken if request.start()]
        if batch:
            began, self._let_in_s = time.perf_counter(), 0.0
            self._answer(batch, self._pause(batch) if self._queue.several_callers() else None)
            self._pace.note(_positions(batch), time.perf_counter() - began - self._let_in_s)
        return bool(taken)

    def stop(self) -> None:
        """Nothing runs between steps."""

    def _pause(self, batch: list[Request]) -> Callable[[], None]:
        """What to do between two layers of a batch: answer callers who have lately had much less than those in it."""
        callers, most = {request.caller for request in batch}, _positions(batch)
        first = self._room(most)

        def fits(request: Request) -> bool:
            return request.width <= most and first(request)

        def pause() -> None:
            nonlocal first
            if not self._queue.waiting_ahead(callers):
                return
            began, first = time.perf_counter(), self._room(most)
            taken = self._queue.take(fits, self._limits.batch_rows, ahead_of=callers)
            short = [request for request in taken if request.start()]
            if short:
                self._answer(short, None)
            self._let_in_s += time.perf_counter() - began

        return pause

    def _room(self, most: int | None = None) -> Callable[[Request], bool]:
        """Whether one more request fits into the batch, which is empty to begin with: then one of any length does."""
        rows, real, widest = 0, 0, 0
        limit = self._budget() if most is None else most

        def fits(request: Request) -> bool:
            nonlocal rows, real, widest
            width = max(widest, request.width)
            positions = (rows + 1) * width
            wasteful = positions > _SMALL and positions > _PADDING * (real + request.width)
            if rows and (positions > limit or wasteful):
                return False
            rows, real, widest = rows + 1, real + request.width, width
            return True

        return fits

    def _budget(self) -> int:
        """Positions of the next batch; while several callers ask, no more than `batch_s` is enough for, as the last
        batches went.
        """
        most = self._limits.batch_positions
        if not self._queue.several_callers():
            return most
        return min(most, self._pace.positions_in(self._limits.batch_s, most))

    def _answer(self, batch: list[Request], pause: Callable[[], None] | None) -> None:
        """Answer a batch; when it fails, each row by itself, so that one bad row takes no other down."""
        rows, keys = [request.ids for request in batch], [request.key for request in batch]
        try:
            answers = self._backend.answer(rows, keys, pause)
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail(error)
            else:
                for request in batch:
                    self._answer([request], pause)
            return
        for request, answer in zip(batch, answers, strict=True):
            request.answer(answer)


def _positions(batch: list[Request]) -> int:
    """Positions of a batch, padding included."""
    return len(batch) * max(request.width for request in batch)


@final
class _Pace:
    """How long batches take: a line through their times by their positions, the latest ones counting most."""

    def __init__(self) -> None:
        self._count = self._x = self._y = self._xx = self._xy = 0.0

    def note(self, positions: int, seconds: float) -> None:
        """Add a batch."""
        added = (1.0, positions, seconds, positions * positions, positions * seconds)
        sums = (self._count, self._x, self._y, self._xx, self._xy)
        self._count, self._x, self._y, self._xx, self._xy = (
            _FORGETTING * old + new for old, new in zip(sums, added, strict=True)
        )

    def positions_in(self, seconds: float, most: int) -> int:
        """How many positions a batch of that time has; `most` while nothing is known."""
        if not self._count:
            return most
        mean_x, mean_y = self._x / self._count, self._y / self._count
        variance = self._xx / self._count - mean_x * mean_x
        slope = (self._xy / self._count - mean_x * mean_y) / variance if variance > 1 else mean_y / mean_x
        if slope <= 0:
            return most
        return max(0, int(mean_x + (seconds - mean_y) / slope))
