"""The queue under any order of arrivals, batches, cancellations and deadlines: fair, complete, within its room."""

from __future__ import annotations

import time
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunedeck.core.errors import DeadlineError
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request

LANES = ("a", "b", "c", "d", None)


class Arrivals(RuleBasedStateMachine):
    """A plain model beside the queue: a list for each lane, and how many batches have passed each by."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.lanes: dict[str | None, deque[Request]] = {name: deque() for name in LANES}
        self.passed = dict.fromkeys(LANES, 0)
        self.put: list[Request] = []
        self.taken: list[Request] = []

    @rule(name=st.sampled_from(LANES), width=st.integers(1, 50), many=st.integers(1, 6))
    def arrive(self, name: str | None, width: int, many: int) -> None:
        for _ in range(many):
            request = Request(name, None)
            request.width = width
            self.queue.put(request)
            self.lanes[name].append(request)
            self.put.append(request)

    @precondition(lambda self: len(self.queue) > 0)
    @rule(place=st.integers(0, 1000), late=st.booleans())
    def nobody_wants_it_any_more(self, place: int, late: bool) -> None:
        waiting = [one for lane in self.lanes.values() for one in lane]
        request = waiting[place % len(waiting)]
        if late:
            request.arrived_s = time.monotonic() - 1000
        else:
            request.cancel()

    @rule(room=st.integers(1, 120), most=st.integers(1, 8))
    def take_a_batch(self, room: int, most: int) -> None:
        left = room

        def fits(request: Request) -> bool:
            nonlocal left
            if request.width > left and left < room:
                return False
            left -= request.width
            return True

        batch = self.queue.take(fits, most)
        assert len(batch) <= most
        assert len(batch) == 1 or sum(one.width for one in batch) <= room
        wanted = {name for name, lane in self.lanes.items() if any(self.is_wanted(one) for one in lane)}
        assert bool(batch) == bool(wanted)
        for request in batch:
            lane = self.lanes[request.adapter]
            while not self.is_wanted(lane[0]):
                lane.popleft()
            assert lane.popleft() is request, "first come, first served within a lane"
            assert request.start(), "nobody gets an answer that is not wanted"
        self.taken += batch
        served = {one.adapter for one in batch}
        for name in LANES:
            self.passed[name] = self.passed[name] + 1 if name in wanted - served else 0
            assert self.passed[name] < len(LANES), "a lane waits for one batch of each other at most"

    @invariant()
    def it_counts_what_waits(self) -> None:
        for name, lane in self.lanes.items():
            waiting: dict[str | None, deque[Request]] = self.queue._callers.get("", {})
            inside = waiting.get(name, deque())
            while lane and (not inside or lane[0] is not inside[0]):
                assert not self.is_wanted(lane.popleft())
            assert list(lane) == list(inside)
        assert len(self.queue) == sum(map(len, self.lanes.values()))
        assert self.queue.positions == sum(one.width for lane in self.lanes.values() for one in lane)

    def teardown(self) -> None:
        while len(self.queue):
            self.taken += [one for one in self.queue.take(lambda _: True, 8) if one.start()]
        assert len(self.taken) == len({id(one) for one in self.taken}), "none twice"
        for request in set(self.put) - set(self.taken):
            assert request.cancelled or isinstance(request.done.exception(0), DeadlineError), "none lost"

    @staticmethod
    def is_wanted(request: Request) -> bool:
        return not request.done.done() and not request.expired


TestArrivals = Arrivals.TestCase
TestArrivals.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
