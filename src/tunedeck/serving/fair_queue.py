"""Requests that wait for their turn: callers take turns, and within a caller its adapters do."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar, final

from tunedeck.core.errors import DrainingError
from tunedeck.core.i18n import say
from tunedeck.serving.request import Request

T = TypeVar("T")
Lanes: TypeAlias = OrderedDict[str | None, deque[Request]]
_RECENT_S = 60.0
_HALF_LIFE_S = 10.0
"""After which what a caller has had counts half when it is asked who may go before the rest of a running batch."""
_CLEARLY_LESS = 0.8
"""Largest share, relative to each caller of the running batch, that lets a caller go before the batch's rest."""
_LOOK_AGAIN_S = 0.02
"""After which it is asked again whether requests are coming: one that fails on the way puts nothing."""
_EACH = 8
"""Positions added to each request's own for the cost that does not depend on its length."""


@final
class FairQueue:
    """However much one caller has waiting, and however hot one adapter is, others wait for one batch of each at most.

    Of the callers the one that has had the fewest positions comes first, so that long inputs give no caller more of the
    engine; a caller's adapters take turns. The first request of the first caller is always taken.
    """

    def __init__(self) -> None:
        self._callers: dict[str, Lanes] = {}
        self._last_put: dict[str, float] = {}
        self._served: dict[str, int] = {}
        self._used: dict[str, tuple[float, float]] = {}
        self._now = 0
        self._changed = threading.Condition()
        self._positions = 0
        self._size = 0
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = False
        self.coming: Callable[[], int] = lambda: 0
        """Returns the number of requests that will be put here: their adapters are being loaded."""

    def __len__(self) -> int:
        return self._size

    @property
    def positions(self) -> int:
        """Return the positions of all waiting requests, virtual tokens included."""
        return self._positions

    def several_callers(self) -> bool:
        """Tell whether more than one caller has put something within the last minute."""
        since = time.monotonic() - _RECENT_S
        with self._changed:
            return sum(last > since for last in self._last_put.values()) > 1

    def waiting(self, caller: str) -> bool:
        """Tell whether a request of another caller waits."""
        with self._changed:
            return any(other != caller for other in self._callers)

    def waiting_ahead(self, of: Collection[str]) -> bool:
        """Tell whether a caller waits who has lately had clearly less than each of these."""
        with self._changed:
            return bool(self._ahead(of))

    def put(self, request: Request) -> None:
        """Let a request wait at the end of its lane, that of its caller and adapter."""
        with self._changed:
            if request.caller not in self._callers:  # nothing of it was waiting, and for that it gets no credit
                self._served[request.caller] = max(self._served.get(request.caller, 0), self._now)
            lanes = self._callers.setdefault(request.caller, OrderedDict())
            lanes.setdefault(request.adapter, deque()).append(request)
            self._last_put[request.caller] = time.monotonic()
            self._positions += request.width
            self._size += 1
            self._changed.notify_all()

    def take(self, fits: Callable[[Request], bool], most: int, ahead_of: Collection[str] = ()) -> list[Request]:
        """Up to `most` requests, one of each caller in turn, as long as the next of a lane `fits`.

        With `ahead_of` only of other callers who have lately had clearly less than each of these. Requests that have
        been cancelled are dropped, those that ran out of time fail.
        """
        taken: list[Request] = []
        with self._changed:
            in_turn = sorted(self._ahead(ahead_of), key=lambda caller: self._served[caller])
            open_lanes = {caller: deque(self._callers[caller]) for caller in in_turn}
            while open_lanes and len(taken) < most:
                for caller in list(open_lanes):
                    request = self._next(caller, open_lanes[caller], fits) if len(taken) < most else None
                    if request is None:
                        del open_lanes[caller]
                    else:
                        taken.append(request)
            for request in taken:
                self._served[request.caller] += request.width + _EACH
                self._used[request.caller] = (self._used_lately(request.caller) + request.width, time.monotonic())
            if taken:
                waiting = [self._served[caller] for caller in self._callers]
                self._now = max(self._now, min(waiting) if waiting else max(self._served.values()))
            for caller, adapter in dict.fromkeys((request.caller, request.adapter) for request in taken):
                if adapter in self._callers.get(caller, ()):
                    self._callers[caller].move_to_end(adapter)
        return taken

    def call(self, work: Callable[[], T]) -> T:
        """Let the thread that takes requests do some work between two batches; its result or its error is the caller's.

        Raises DrainingError when the queue is closed.
        """
        result: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise DrainingError(say("the server is shutting down"))
            self._calls.append((work, result))
            self._changed.notify_all()
        return result.result()

    def run_calls(self) -> None:
        """Do what other threads wait for in `call`."""
        while (called := self._next_call()) is not None:
            work, result = called
            try:
                result.set_result(work())
            except BaseException as error:  # is the caller's
                result.set_exception(error)

    def close(self) -> None:
        """Wake all waiting threads; those that wait in `call` get DrainingError."""
        with self._changed:
            self._closed = True
            while self._calls:
                self._calls.popleft()[1].set_exception(DrainingError(say("the server is shutting down")))
            self._changed.notify_all()

    def wait(self, timeout_s: float | None) -> None:
        """Until something is put or called or `wake` is called, or the time is up; not when something waits already."""
        with self._changed:
            if not self._size and not self._calls:
                self._changed.wait(timeout_s)

    def gather(self, wait_s: float, positions: int) -> None:
        """Give others the time to join the first of a batch: until `positions` wait, or the oldest has waited
        `wait_s`.
        """
        with self._changed:
            lanes = (lane for lanes in self._callers.values() for lane in lanes.values())
            oldest = min((lane[0].arrived_s for lane in lanes), default=None)
            until = None if oldest is None else oldest + wait_s
            while until is not None and self._positions < positions and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def gather_coming(self, wait_s: float) -> None:
        """Give requests that are coming the time to join those that wait, until the oldest of these is `wait_s` old; do
        what other threads wait for in `call` meanwhile.
        """
        while self._size and self.coming() and not self._closed:
            with self._changed:
                lanes = (lane for lanes in self._callers.values() for lane in lanes.values())
                left = min((lane[0].arrived_s for lane in lanes), default=0.0) + wait_s - time.monotonic()
                if left <= 0:
                    return
                if not self._calls:
                    self._changed.wait(min(left, _LOOK_AGAIN_S))
            self.run_calls()

    def wake(self) -> None:
        """Wake waiting threads to check again."""
        with self._changed:
            self._changed.notify_all()

    def _next_call(self) -> tuple[Callable[[], Any], Future[Any]] | None:
        with self._changed:
            return self._calls.popleft() if self._calls else None

    def _ahead(self, of: Collection[str]) -> list[str]:
        if not of:
            return list(self._callers)
        limit = _CLEARLY_LESS * min(self._used_lately(caller) for caller in of)
        return [caller for caller in self._callers if caller not in of and self._used_lately(caller) <= limit]

    def _used_lately(self, caller: str) -> float:
        used, when_s = self._used.get(caller, (0.0, 0.0))
        return used * math.pow(0.5, (time.monotonic() - when_s) / _HALF_LIFE_S)

    def _next(self, caller: str, lanes: deque[str | None], fits: Callable[[Request], bool]) -> Request | None:
        """Return the first request of the first lane whose first request fits; the lane goes to the end, those before
        it are closed.
        """
        while lanes:
            adapter = lanes.popleft()
            head = self._head(caller, adapter)
            if head is not None and fits(head):
                lanes.append(adapter)
                return self._pop(caller, adapter)
        return None

    def _head(self, caller: str, adapter: str | None) -> Request | None:
        """Return the first of a lane that is still wanted; an empty lane goes."""
        while adapter in self._callers.get(caller, ()):
            head = self._callers[caller][adapter][0]
            if not head.done.done() and not head.expired:
                return head
            head.start()  # tells an expired one
            self._pop(caller, adapter)
        return None

    def _pop(self, caller: str, adapter: str | None) -> Request:
        lanes = self._callers[caller]
        request = lanes[adapter].popleft()
        if not lanes[adapter]:
            del lanes[adapter]
        if not lanes:
            del self._callers[caller]
        self._positions -= request.width
        self._size -= 1
        return request
