"""Who decodes with whom: long answers leave room for short ones, reservations stay within bounds, callers share the
rows.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from support import served_adapters
from support.queued_generation import queued, solo_deck

import tunedeck as td
from tunedeck.generation.sequence import Sequence
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.workers.generate import GenerateWorker, GenerationLimits
from tunedeck.serving.workers.groups import Group, place

LONG = 1000  # more than the 64 positions of the tiny model, which is what it gets


def worker_on(count: int, positions: int, **limits: int) -> tuple[GenerateWorker, list[Request]]:
    """A worker with room for `positions`, and prompts of two tokens that wait for 3 tokens each."""
    backend, queue = GenerateBackend(served_adapters.base_deck("causal")), FairQueue()
    requests = queued([None] * count, [f"w{number}" for number in range(5, 5 + count)], backend, queue)
    for request in requests:
        ask(backend, request, 3)
    a_position = (1 << 30) // GenerateWorker(backend, queue, GenerationLimits()).kv_positions
    made = GenerationLimits(**{"kv_bytes": a_position * positions, "prefill_positions": 1000, **limits})
    return GenerateWorker(backend, queue, made), requests


def step(worker: GenerateWorker) -> bool:
    """One step; False when nothing runs or waits any more."""
    return worker.step() or len(worker._queue) > 0


def reserved(worker: GenerateWorker) -> int:
    return sum(group.reserved for group in worker._groups)


def ask(backend: GenerateBackend, request: Request, tokens: int) -> None:
    request.content = Sequence(request.content.prompt, td.Sampling(max_tokens=tokens))
    backend.encode([request.content], request.key)


def test_sixteen_short_answers_do_not_wait_for_a_long_one() -> None:
    worker, requests = worker_on(17, positions=64 + 16 * 5)
    assert {request.width for request in requests} == {2}
    ask(worker._backend, requests[0], LONG)
    worker.step()
    assert all(request.first_token_s is not None for request in requests)
    assert sorted(len(group.lengths) for group in worker._groups) == [1, 16]
    assert reserved(worker) == 64 + 16 * 5
    worker.step()
    assert all(request.done.done() for request in requests[1:])
    while step(worker):
        pass
    deck = solo_deck()
    for request in requests:
        sampling = td.Sampling(max_tokens=62 if request is requests[0] else 3)
        assert request.done.result(0).text == deck.generate([request.content.prompt], None, sampling)[0]


def test_with_room_to_spare_rows_of_any_length_decode_in_one_batch() -> None:
    worker, requests = worker_on(8, positions=2 * 8 * 64)
    ask(worker._backend, requests[0], LONG)
    worker.step()
    assert [len(group.lengths) for group in worker._groups] == [8]


@settings(max_examples=100, deadline=None)
@given(
    free=st.integers(1, 400),
    arrivals=st.lists(
        st.tuples(st.integers(1, 200), st.sampled_from([None, "full-1"]), st.integers(0, 9)), min_size=1, max_size=40
    ),
)
def test_all_groups_together_reserve_no_more_than_there_is_except_for_a_row_alone(
    free: int, arrivals: list[tuple[int, str | None, int]]
) -> None:
    groups: list[Group] = []
    for number, (length, key, leaves) in enumerate(arrivals):
        group = place(groups, key, length, free)
        if group is not None:
            assert group.key == key
            groups = groups if group in groups else [*groups, group]
            group.lengths[cast(Any, number)] = length  # a number stands for each sequence
        rows = sum(len(one.lengths) for one in groups)
        assert sum(one.reserved for one in groups) <= free or rows == 1
        for one in groups:
            one.lengths.pop(cast(Any, number - leaves), None)
        groups = [one for one in groups if one.lengths]


@settings(max_examples=10, deadline=None)
@given(
    positions=st.integers(70, 400),
    tokens=st.lists(st.sampled_from([1, 3, 9, 30, LONG]), min_size=2, max_size=12),
    at_once=st.integers(4, 60),
)
def test_a_worker_keeps_its_reservations_and_answers_everybody(positions: int, tokens: list[int], at_once: int) -> None:
    worker, requests = worker_on(len(tokens), positions, prefill_positions=at_once)
    for request, count in zip(requests, tokens, strict=True):
        ask(worker._backend, request, count)
    while step(worker):
        assert reserved(worker) <= positions
        for group in worker._groups:
            if group.batch is not None and group.batch._cache is not None:
                keys = group.batch._cache.layers[0].keys
                assert keys.shape[0] * keys.shape[2] <= group.reserved
    assert all(request.done.result(0) for request in requests)


def test_virtual_tokens_that_an_adapter_will_keep_are_counted_before_it_is_taken() -> None:
    backend, queue = GenerateBackend(served_adapters.base_deck("causal")), FairQueue()
    requests = queued(["prompt-1", "prompt-1", "prompt-2"], ["w5", "w6", "w7"], backend, queue)
    assert backend.prefix_to_come(requests[0].key) == 5
    backend.prefix(requests[0].key)
    assert backend.prefix_to_come(requests[0].key) == 0
    assert backend.prefix_to_come(None) == 0


def test_a_long_request_gets_in_beside_a_steady_flow_of_short_ones() -> None:
    worker, requests = worker_on(200, positions=70, rows=8)
    waiting, long = worker._queue.take(lambda _: True, 200), requests[0]
    ask(worker._backend, long, LONG)
    long.caller, long.arrived_s = "long", long.arrived_s - 10
    short = iter([one for one in waiting if one is not long])
    for number, request in zip(range(6), short, strict=False):
        request.caller = f"short-{number % 3}"
        worker._queue.put(request)
    worker.step()
    worker._queue.put(long)
    for step_number in range(60):
        for _ in range(4):
            for request in islice(short, 1):
                request.caller = f"short-{step_number % 3}"
                worker._queue.put(request)
        worker.step()
        if long.started_s is not None:
            break
    assert long.started_s is not None, "it waits as long as short ones come"
    assert step_number < 40
    assert next(short, None) is not None, "short ones still came"
    while step(worker):
        pass
    assert long.done.result(0).completion_tokens == 62


def test_a_caller_takes_all_rows_while_nobody_else_waits() -> None:
    worker, requests = worker_on(12, positions=1000, rows=8)
    worker.step()
    assert sum(request.started_s is not None for request in requests) == 8


def test_a_caller_at_its_share_waits_while_another_does() -> None:
    worker, requests = worker_on(8, positions=64 * 4, rows=4)
    worker._queue.take(lambda _: True, 8)
    for request in requests[:6]:
        request.caller = "one"
        ask(worker._backend, request, LONG)
        worker._queue.put(request)
    worker.step()
    assert sum(request.started_s is not None for request in requests) == 4
    for request in requests[6:]:
        request.caller = "other"
        worker._queue.put(request)
    for request in requests[:2]:
        request.cancel()
    worker.step()
    assert all(request.started_s is not None for request in requests[6:])
    assert not any(request.started_s is not None for request in requests[4:6])


def test_a_row_that_leaves_a_prefill_in_chunks_does_not_end_the_others() -> None:
    worker, requests = worker_on(3, positions=1000)
    worker._admit()
    assert worker._prefill is not None
    requests[1].cancel()
    while step(worker):
        pass
    assert requests[0].done.result(0).text
    assert requests[2].done.result(0).text


def test_a_row_whose_request_has_failed_outside_leaves_at_the_next_step() -> None:
    worker, requests = worker_on(3, positions=1000)
    worker.step()
    requests[1].fail(RuntimeError("the server is shutting down"))
    worker._drop_unwanted()
    assert len(worker._running) == 2
    while step(worker):
        pass
    assert requests[0].done.result(0).text
    assert requests[2].done.result(0).text
