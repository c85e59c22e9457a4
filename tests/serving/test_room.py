"""The room that requests take: short ones decode beside a long one, reservations stay within bounds, callers share the
rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import served_adapters
from support.queued_generation import queued, solo_deck

import tunedeck as td
from tunedeck.generation import kv_cache
from tunedeck.generation.buckets import room
from tunedeck.generation.decode import DecodingBatch
from tunedeck.generation.sequence import Sequence
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.workers.generate import GenerateWorker, GenerationLimits

LONG = 1000  # more than the 64 positions of the tiny model, which is what it gets


@pytest.fixture(autouse=True)
def blocks_of_two() -> Iterator[None]:
    """Blocks as small as the tiny model's sequences."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "BLOCK", 2)
        yield


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


def held(worker: GenerateWorker) -> int:
    """Positions that the running batches have in memory."""
    return sum(batch.cache.positions for batch in worker._batches.values())


def ask(backend: GenerateBackend, request: Request, tokens: int) -> None:
    request.content = Sequence(request.content.prompt, td.Sampling(max_tokens=tokens))
    backend.encode([request.content], request.key)


def test_sixteen_short_answers_decode_in_one_batch_with_a_long_one() -> None:
    worker, requests = worker_on(17, positions=64 + 16 * 6)
    assert {request.width for request in requests} == {2}
    ask(worker._backend, requests[0], LONG)
    worker.step()
    assert all(request.first_token_s is not None for request in requests)
    (batch,) = worker._batches.values()
    assert len(batch.sequences) == 17
    assert worker.reserved == 64 + 16 * 6
    assert held(worker) == 17 * 4  # two tokens of a prompt and two of the answer, in blocks of two
    worker.step()
    assert all(request.done.done() for request in requests[1:])
    assert (held(worker), worker.reserved) == (4, 64)
    while step(worker):
        pass
    deck = solo_deck()
    for request in requests:
        sampling = td.Sampling(max_tokens=62 if request is requests[0] else 3)
        assert request.done.result(0).text == deck.generate([request.content.prompt], None, sampling)[0]


@pytest.mark.parametrize("long_at", [0, 9, 15])
def test_a_row_of_2000_positions_and_fifteen_of_100_take_their_sum(long_at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "BLOCK", 64)
        worker, requests = worker_on(16, positions=2048 + 15 * 128)
        worker._deck.positions = 4096
        for number, request in enumerate(requests):
            ask(worker._backend, request, 1998 if number == long_at else 98)
        assert sorted(request.content.max_length for request in requests) == [100] * 15 + [2000]
        worker.step()
        (batch,) = worker._batches.values()
        assert len(batch.sequences) == 16
        assert worker.reserved == 2048 + 15 * 128
        worker.stop()


def test_a_failure_while_rooms_are_reduced_ends_its_batch_and_not_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, requests = worker_on(3, positions=2 * 64 + 6)
    ask(worker._backend, requests[1], LONG)
    ask(worker._backend, requests[2], LONG)
    worker._queue.take(lambda _: True, 3)
    worker._queue.put(requests[0])
    worker.step()
    assert worker.reserved == 16  # wide, for an answer that needs 6

    def broken(_: DecodingBatch) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(DecodingBatch, "arrange", broken)
    for request in requests[1:]:
        worker._queue.put(request)
    while step(worker):
        assert held(worker) <= worker.reserved <= 2 * 64 + 6
    assert isinstance(requests[0].done.exception(0), RuntimeError)
    assert all(request.done.result(0).text for request in requests[1:])


def test_a_model_whose_rows_have_to_lie_in_one_tensor_decodes_a_batch_for_each_room() -> None:
    worker, requests = worker_on(4, positions=64 + 3 * 6)
    worker._buckets = False
    ask(worker._backend, requests[0], LONG)
    while step(worker):
        assert held(worker) <= worker.reserved <= 64 + 3 * 6
        assert all(len(batch.cache) < 2 for batch in worker._batches.values())
        most = len(worker._running)
        assert len(worker._batches) == (2 if most > 1 else 1)
    deck = solo_deck()
    for request in requests:
        sampling = td.Sampling(max_tokens=62 if request is requests[0] else 3)
        assert request.done.result(0).text == deck.generate([request.content.prompt], None, sampling)[0]


def test_a_request_waits_until_another_leaves_its_room_finished_or_cancelled() -> None:
    worker, requests = worker_on(4, positions=2 * 64)
    for request in requests:
        ask(worker._backend, request, LONG)
    ask(worker._backend, requests[0], 3)
    worker.step()
    assert [request.started_s is not None for request in requests] == [True, True, False, False]
    while not requests[0].done.done():
        worker.step()
    worker.step()
    assert [request.started_s is not None for request in requests] == [True, True, True, False]
    requests[1].cancel()
    worker.step()
    assert requests[3].started_s is not None
    assert worker.reserved == 2 * 64
    while step(worker):
        assert held(worker) <= worker.reserved
    assert (held(worker), worker.reserved) == (0, 0)


def test_prompts_of_unlike_lengths_are_computed_apart_where_their_padding_needs_more_than_they_reserve() -> None:
    worker, _ = worker_on(0, positions=1000)
    short, long, roomy = (
        Sequence([5] * length, td.Sampling(max_tokens=tokens)).prepare(worker._deck, None, [5] * length)
        for length, tokens in ((1, 1), (9, 1), (1, 20))
    )
    assert [room(one.max_length) for one in (short, long, roomy)] == [2, 12, 24]
    assert not worker._prefill_together([short, long])  # 2 x 9 positions, 14 reserved
    assert worker._prefill_together([long, roomy])


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
        assert held(worker) <= worker.reserved <= positions
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
