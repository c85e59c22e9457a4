"""Connections within bounds: how many, and how long one may take to say what it wants.

uvicorn has neither a time limit for the head of a request nor a bound of connections that makes room for new ones, and
its only seam for them is the protocol class, so this one inherits.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import replace

from uvicorn.protocols.http.h11_impl import H11Protocol

from tunedeck.serving.bounds import Bounds

_OTHER_DESCRIPTORS = 64
"""File descriptors kept for the process itself: libraries, adapters that are being loaded, the log."""


def bounded_protocol(bounds: Bounds) -> type[asyncio.Protocol]:
    """Return the class for `uvicorn.Config(http=...)` of one server.

    When `max_connections` are open, the one that has been without a request for longest is closed for the new one; when
    all have a running request, the new one is. A connection whose next request's head is not there `header_time`
    seconds after its first byte, or after the connection was opened, is closed.
    """
    idle: dict[H11Protocol, None] = {}

    class Bounded(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            idle[self] = None
            self._await_head()
            if len(self.connections) > bounds.max_connections:
                oldest = next(iter(idle))  # itself where all others are busy
                del idle[oldest]
                self.connections.discard(oldest)
                oldest.transport.abort()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            if self in idle and self._head_timer is None:
                self._await_head()
            super().data_received(data)
            if self.cycle is not before and not self.cycle.response_complete:
                idle.pop(self, None)
                self._forget_head()

        def on_response_complete(self) -> None:
            idle[self] = None
            before = self.cycle
            super().on_response_complete()
            if self.cycle is not before:  # the next request had come already
                idle.pop(self, None)

        def connection_lost(self, exc: Exception | None) -> None:
            idle.pop(self, None)
            self._forget_head()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            self._head_timer = self.loop.call_later(bounds.header_time, self._head_late)

        def _forget_head(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _head_late(self) -> None:
            self._head_timer = None
            if self in idle and not self.transport.is_closing():
                self.transport.abort()

    return Bounded


def within_descriptors(bounds: Bounds) -> Bounds:
    """Raise this process' limit of open files as far as it goes, and keep connections below it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return bounds
    return replace(bounds, max_connections=min(bounds.max_connections, max(hard - _OTHER_DESCRIPTORS, hard // 2)))
