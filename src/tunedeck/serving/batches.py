"""Classification and embedding: the requests that wait become one mixed batch, and the next, and the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from tunedeck.serving.backend import BatchBackend
from tunedeck.serving.engine import Limits
from tunedeck.serving.queue import FairQueue
from tunedeck.serving.request import Request

_PADDING = 2.0
"""A batch may be this many times its real positions; longer rows wait for a batch of their own length."""
_SMALL = 512
"""Positions below which padding does not matter."""


@final
class BatchWorker:
    """Dynamic batches by a budget of positions, padding counted, and a small waiting time."""

    def __init__(self, backend: BatchBackend, queue: FairQueue, limits: Limits) -> None:
        self._backend, self._queue, self._limits = backend, queue, limits

    def step(self) -> bool:
        """Run one batch."""
        self._queue.gather(self._limits.wait_s, self._limits.batch_positions)
        taken = self._queue.take(self._room(), self._limits.batch_rows)
        batch = [request for request in taken if request.start()]
        if batch:
            self._answer(batch)
        return bool(taken)

    def stop(self) -> None:
        """Nothing runs between steps."""

    def _room(self) -> Callable[[Request], bool]:
        """Whether one more request fits into the batch, which is empty to begin with."""
        rows, real, widest = 0, 0, 0

        def fits(request: Request) -> bool:
            nonlocal rows, real, widest
            width = max(widest, request.width)
            positions = (rows + 1) * width
            wasteful = positions > _SMALL and positions > _PADDING * (real + request.width)
            if rows and (positions > self._limits.batch_positions or wasteful):
                return False
            rows, real, widest = rows + 1, real + request.width, width
            return True

        return fits

    def _answer(self, batch: list[Request]) -> None:
        """Answer a batch; when it fails, each row by itself, so that one bad row takes no other down."""
        try:
            answers = self._backend.answer([request.ids for request in batch], [request.key for request in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail(error)
            else:
                for request in batch:
                    self._answer([request])
            return
        for request, answer in zip(batch, answers, strict=True):
            request.answer(answer)
