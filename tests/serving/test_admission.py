"""Who is let in: a request's inputs together or none, each caller within its share, everybody in turn; and what a stuck
engine says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import served_adapters
from support.echo_backend import Echo, engine_on, held_up
from support.waiting import SOON, eventually

from tunedeck.core.errors import (
    ConfigError,
    DrainingError,
    OverloadedError,
    StoppedError,
    UnknownAdapterError,
)
from tunedeck.serving.bounds import Bounds
from tunedeck.serving.engine import Engine, Limits
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.workers.batch import BatchWorker


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Engine, Echo]]:
    """An engine that lets eight inputs in and answers four of them at a time."""
    served_adapters.write_fake_adapter(tmp_path, "a")
    backend = Echo()
    made = engine_on(tmp_path, backend, Limits(batch_rows=4, wait_s=0), Bounds(max_requests=8, stall_time=0.05))
    yield made, backend
    backend.go.set()
    made.close()


def inputs(many: int, caller: str = "", adapter: str | None = None) -> list[Request]:
    return [Request(adapter, [number], SOON, caller) for number in range(many)]


def test_more_inputs_than_can_ever_be_inside_are_refused_for_good_and_none_begins(small: tuple[Engine, Echo]) -> None:
    engine, backend = small
    with pytest.raises(ConfigError, match=r"at most 8 are allowed, got 9.*--max-requests"):
        engine.submit(*inputs(9))
    assert engine.in_flight == 0
    assert backend.batches == []


def test_a_request_that_does_not_fit_now_begins_none_of_its_inputs(small: tuple[Engine, Echo]) -> None:
    engine, backend = small
    first = held_up(engine, backend)
    with pytest.raises(OverloadedError):
        engine.submit(*inputs(8))
    assert engine.in_flight == 1
    backend.go.set()
    first.done.result(SOON)
    eventually(lambda: engine.in_flight == 0)
    after = inputs(8)
    engine.submit(*after)
    assert [one.done.result(SOON)[0] for one in after] == [[number] for number in range(8)]


def test_an_unknown_adapter_lets_no_input_of_its_request_in(small: tuple[Engine, Echo]) -> None:
    engine, _ = small
    known, unknown = Request("a", [1]), Request("nobody", [2])
    with pytest.raises(UnknownAdapterError):
        engine.submit(known, unknown)
    assert engine.in_flight == 0
    eventually(lambda: not any(one.users for one in engine.store.cached()))


def test_a_caller_that_has_its_share_inside_waits_and_others_come_in(small: tuple[Engine, Echo]) -> None:
    engine, backend = small
    backend.go.clear()
    engine.submit(*inputs(4, "greedy"), most=4)
    with pytest.raises(OverloadedError, match="this key has 4 inputs in flight and may have 4"):
        engine.submit(*inputs(1, "greedy"), most=4)
    with pytest.raises(OverloadedError, match="may have 2"):
        engine.submit(*inputs(3, "modest"), most=4)
    others = [*inputs(2, "modest"), *inputs(2, "late")]
    engine.submit(*others[:2], most=4)
    engine.submit(*others[2:], most=4)
    backend.go.set()
    assert [one.done.result(SOON)[0] for one in others] == [[0], [1]] * 2
    eventually(lambda: engine.in_flight == 0)
    engine.submit(*inputs(4, "greedy"), most=4)


def test_a_caller_that_was_served_much_or_asked_nothing_has_neither_debt_nor_credit() -> None:
    queue = FairQueue()

    def put(caller: str, many: int) -> None:
        for request in inputs(many, caller):
            request.width = 10
            queue.put(request)

    put("busy", 50)
    assert len(queue.take(lambda _: True, 50)) == 50
    put("new", 8)
    put("busy", 8)
    taken = [queue.take(lambda _: True, 1)[0].caller for _ in range(8)]
    assert taken.count("busy") >= 3, taken


def test_one_text_of_another_caller_waits_for_one_batch_however_much_waits(small: tuple[Engine, Echo]) -> None:
    queue = FairQueue()
    for request in inputs(50, "greedy") + inputs(20, "greedy", "a"):
        queue.put(request)
    queue.take(lambda _: True, 4)
    (late,) = inputs(1, "modest")
    queue.put(late)
    assert late in queue.take(lambda _: True, 2)


def test_a_long_batch_is_tokenized_in_turns_with_others(tmp_path: Path) -> None:
    order: list[int] = []
    go = threading.Event()

    class Slow(Echo):
        def encode(self, contents: Sequence[Any], key: str | None) -> list[list[int]]:
            go.wait(SOON)
            order.extend(content[0] for content in contents)
            return super().encode(contents, key)

    engine = engine_on(tmp_path, Slow(), Limits(wait_s=0))
    engine.submit(*inputs(100, "greedy"))
    (late,) = inputs(1, "modest")
    late.content = [1000]
    engine.submit(late)
    go.set()
    late.done.result(SOON)
    engine.close()
    assert order.index(1000) <= 16, "behind what was being tokenized, and its turn"


def test_while_several_callers_ask_a_batch_is_as_long_as_its_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Ticking(Echo):
        def answer(self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: object = None) -> list[Any]:
            clock[0] += 0.001 * sum(map(len, rows))
            return super().answer(rows, keys)

    monkeypatch.setattr("tunedeck.serving.workers.batch.time.perf_counter", lambda: clock[0])
    backend, queue = Ticking(), FairQueue()
    worker = BatchWorker(backend, queue, Limits(wait_s=0, batch_s=0.03))

    def put(caller: str, many: int) -> None:
        for request in inputs(many, caller):
            request.ids, request.width = [7] * 10, 10
            queue.put(request)

    put("alone", 20)
    worker.step()
    assert len(backend.batches[-1]) == 20, "a millisecond a position, but nobody else waits"
    put("alone", 20)
    put("another", 1)
    worker.step()
    assert len(backend.batches[-1]) == 3, "thirty positions in thirty milliseconds"


def test_a_step_that_does_not_end_raises_the_alarm_until_it_does(small: tuple[Engine, Echo]) -> None:
    engine, backend = small
    assert engine.alarm() is None
    first = held_up(engine, backend)
    eventually(lambda: "engine" in (engine.alarm() or ""))
    assert engine.ready, "what is stuck may yet go on"
    backend.go.set()
    first.done.result(SOON)
    eventually(lambda: engine.alarm() is None)


@pytest.mark.parametrize("thread", ["engine", "tokenizer-0"])
def test_a_thread_that_dies_fails_what_is_inside_and_refuses_what_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    class Fatal(BaseException):
        pass

    class Broken(Echo):
        def answer(self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: object = None) -> list[Any]:
            raise Fatal

        def encode(self, contents: Sequence[Any], key: str | None) -> list[list[int]]:
            if thread != "engine":
                raise Fatal
            return super().encode(contents, key)

    engine = engine_on(tmp_path, Broken(), Limits(wait_s=0))
    (request,) = inputs(1)
    engine.submit(request)
    with pytest.raises(StoppedError):
        request.done.result(SOON)
    assert not engine.ready
    assert f"the {thread} thread has ended: Fatal" in (engine.alarm() or "")
    with pytest.raises(StoppedError):
        engine.submit(*inputs(1))
    engine.close()


def test_what_is_inside_can_be_failed_at_once_while_the_engine_is_stuck(small: tuple[Engine, Echo]) -> None:
    engine, backend = small
    running, waiting = held_up(engine, backend), inputs(3)
    engine.submit(*waiting)
    engine.fail_inside()
    for request in (running, *waiting):
        with pytest.raises(DrainingError):
            request.done.result(0)
    with pytest.raises(DrainingError):
        engine.submit(*inputs(1))
    assert engine.in_flight == 0
