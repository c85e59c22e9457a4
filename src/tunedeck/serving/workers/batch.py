"""Classification and embedding: the requests that wait become one mixed batch, and the next, and the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import final

from tunedeck.serving.backends.base import BatchBackend
from tunedeck.serving.engine import Limits
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request

_PADDING = 2.0
"""A batch may be this many times its real positions; longer rows wait for a batch of similar length."""
_FORGETTING = 0.95
"""Weight of a batch's time after the next batch (exponential moving average)."""
_SMALL = 512
"""Positions below which padding does not matter."""


_LET_IN = 2
"""How many times the positions of a batch may be let in at once before its end."""


@final
class BatchWorker:
    """Dynamic batches by a budget of positions, padding counted, and a small waiting time.

    While several callers ask, a batch is also kept short in time, and callers who have lately had clearly less are
    answered between its layers.
    """

    def __init__(self, backend: BatchBackend, queue: FairQueue, limits: Limits) -> None:
        self._backend, self._queue, self._limits = backend, queue, limits
        self._pace = _Pace()
        self._running: list[_Running] = []

    def step(self) -> bool:
        """Run one batch."""
        self._queue.gather(self._limits.wait_s, self._limits.batch_positions)
        taken = self._queue.take(self._room(), self._limits.batch_rows)
        batch = [request for request in taken if request.start()]
        if batch:
            self._run(batch)
        return bool(taken)

    def stop(self) -> None:
        """Nothing runs between steps."""

    def _run(self, batch: list[Request]) -> float:
        """Answer a batch; return how long that took, with those that were let in before its end."""
        running = _Running(batch)
        self._running.append(running)
        began = time.perf_counter()
        self._answer(batch, partial(self._let_in, running) if self._queue.several_callers() else None)
        took_s = time.perf_counter() - began
        self._running.pop()
        self._pace.note(running.positions, took_s - running.let_in_s)
        return took_s

    def _let_in(self, running: _Running) -> None:
        """Compute, between two layers of a batch, what an adapter being loaded waits for, and answer callers who have
        lately had clearly less than those in it.
        """
        if running is not self._running[-1]:
            return
        self._queue.run_calls()
        if not self._queue.waiting_ahead(running.callers):
            return
        most = _LET_IN * running.positions
        room = self._room(most)
        taken = self._queue.take(
            lambda request: request.width <= most and room(request), self._limits.batch_rows, running.callers
        )
        short = [request for request in taken if request.start()]
        if short:
            running.let_in_s += self._run(short)

    def _room(self, most: int | None = None) -> Callable[[Request], bool]:
        """Tell whether one more request fits into the batch, which is empty to begin with: then one of any length
        does.
        """
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
        """Return positions of the next batch; while several callers ask, no more than `batch_s` is enough for, as the
        last batches went.
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


@final
class _Running:
    """A running batch. Others may be let in before its end, and others still before the end of those."""

    def __init__(self, batch: list[Request]) -> None:
        self.callers = {request.caller for request in batch}
        self.positions = len(batch) * max(request.width for request in batch)  # padding included
        self.let_in_s = 0.0


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
        """Return how many positions a batch of that time has; `most` while nothing is known."""
        if not self._count:
            return most
        mean_x, mean_y = self._x / self._count, self._y / self._count
        variance = self._xx / self._count - mean_x * mean_x
        slope = (self._xy / self._count - mean_x * mean_y) / variance if variance > 1 else mean_y / max(1.0, mean_x)
        if slope <= 0:
            return most
        return max(0, int(mean_x + (seconds - mean_y) / slope))
