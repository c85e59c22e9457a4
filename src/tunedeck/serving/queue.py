"""Requests that wait for their turn, in a lane for each adapter; the lanes take turns."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import final

from tunedeck.serving.request import Request


@final
class FairQueue:
    """However much waits for a hot adapter, another's first request waits for one request of each lane at most.

    The lane that was served longest ago is asked first, and its first request is always taken.
    """

    def __init__(self) -> None:
        self._lanes: OrderedDict[str | None, deque[Request]] = OrderedDict()
        self._changed = threading.Condition()
        self._positions = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def positions(self) -> int:
        """Of all that waits, virtual tokens included."""
        return self._positions

    def put(self, request: Request) -> None:
        """Let a request wait at the end of its adapter's lane."""
        with self._changed:
            self._lanes.setdefault(request.adapter, deque()).append(request)
            self._positions += request.width
            self._size += 1
            self._changed.notify_all()

    def take(self, fits: Callable[[Request], bool], most: int) -> list[Request]:
        """Up to `most` requests, one of each lane in turn, as long as the next of a lane `fits`; called with an empty
        batch `fits` must say yes. Requests that have been cancelled are dropped, those that ran out of time fail.
        """
        taken: list[Request] = []
        with self._changed:
            open_lanes = list(self._lanes)
            while open_lanes and len(taken) < most:
                going = []
                for adapter in open_lanes:
                    head = self._head(adapter)
                    if head is not None and len(taken) < most and fits(head):
                        taken.append(self._pop(adapter))
                        going.append(adapter)
                open_lanes = going
            for adapter in dict.fromkeys(request.adapter for request in taken):
                if adapter in self._lanes:
                    self._lanes.move_to_end(adapter)
        return taken

    def wait(self, timeout_s: float | None) -> None:
        """Until something is put or `wake` is called, or the time is up; not at all when something waits already."""
        with self._changed:
            if not self._size:
                self._changed.wait(timeout_s)

    def gather(self, wait_s: float, positions: int) -> None:
        """Give others the time to join the first of a batch: until `positions` wait, or the oldest has waited `wait_s`."""
        with self._changed:
            oldest = min((lane[0].arrived_s for lane in self._lanes.values()), default=None)
            until = None if oldest is None else oldest + wait_s
            while until is not None and self._positions < positions and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)

    def wake(self) -> None:
        """Let whoever waits look again."""
        with self._changed:
            self._changed.notify_all()

    def _head(self, adapter: str | None) -> Request | None:
        """The first of a lane that is still wanted; an empty lane goes."""
        while adapter in self._lanes:
            head = self._lanes[adapter][0]
            if not head.done.done() and not head.expired:
                return head
            head.start()  # tells an expired one
            self._pop(adapter)
        return None

    def _pop(self, adapter: str | None) -> Request:
        lane = self._lanes[adapter]
        request = lane.popleft()
        if not lane:
            del self._lanes[adapter]
        self._positions -= request.width
        self._size -= 1
        return request
