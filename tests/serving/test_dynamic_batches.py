"""Classification and embedding: mixed batches, fair turns, bounds, and faults that stay where they are."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import served_adapters
from support.echo_backend import Echo, engine_on, held_up, submit
from support.waiting import SOON, eventually

import tunedeck as td
from tunedeck.core.errors import DeadlineError, DrainingError, OverloadedError, UnknownAdapterError
from tunedeck.serving.backends.deck import batch_backend
from tunedeck.serving.bounds import Bounds
from tunedeck.serving.engine import Engine, Limits
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.workers.batch import BatchWorker

NAMES = [None, *(f"{kind}-{number}" for kind in served_adapters.KINDS for number in (1, 2))]


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[tuple[Engine, Echo]]:
    for name in "abc":
        served_adapters.write_fake_adapter(tmp_path, name)
    backend = Echo()
    made = engine_on(tmp_path, backend, Limits(batch_rows=4, wait_s=0), Bounds(max_requests=40))
    yield made, backend
    backend.go.set()
    made.close()


class Pausing(Echo):
    """Calls `pause` in the middle of a long row, as soon as the test lets it."""

    def answer(self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: Any = None) -> list[Any]:
        if len(rows[0]) >= 40:
            self.go.wait(SOON)
            if pause is not None:
                pause()
        self.batches.append(list(keys))
        return [(list(row), key) for row, key in zip(rows, keys, strict=True)]


@pytest.mark.parametrize(("width", "goes_first"), [(30, True), (200, False)])
def test_a_caller_who_has_had_little_goes_before_the_rest_of_anothers_long_batch(
    tmp_path: Path, width: int, goes_first: bool
) -> None:
    backend = Pausing()
    engine = engine_on(tmp_path, backend, Limits(wait_s=0))
    ended: list[str] = []
    for caller in ("greedy", "modest"):  # both are known to the queue
        engine.submit(request := Request(None, [1], timeout_s=SOON, caller=caller))
        request.done.result(SOON)
    backend.go.clear()
    long = [Request(None, [1] * 40, timeout_s=SOON, caller="greedy") for _ in range(2)]
    engine.submit(*long)
    eventually(lambda: long[0].started_s is not None)
    short = Request(None, [2] * width, timeout_s=SOON, caller="modest")
    short.done.add_done_callback(lambda _: ended.append("short"))
    long[0].done.add_done_callback(lambda _: ended.append("long"))
    engine.submit(short)
    eventually(lambda: engine.queue.waiting_ahead(["greedy"]))
    backend.go.set()
    assert short.done.result(SOON) == ([2] * width, None)
    assert [one.done.result(SOON)[0] for one in long] == [[1] * 40] * 2
    assert ended == (["short", "long"] if goes_first else ["long", "short"])
    engine.close()


def test_nobody_goes_before_a_caller_who_has_had_less() -> None:
    queue = FairQueue()
    for caller, width in (("often", 500), ("seldom", 10)):
        for _ in range(2):
            request = Request(None, "x", caller=caller)
            request.width = width
            queue.put(request)
    first = queue.take(lambda _: True, 2)
    assert {request.caller for request in first} == {"often", "seldom"}
    assert not queue.waiting_ahead(["seldom"])
    assert queue.take(lambda _: True, 9, ahead_of=["seldom"]) == []
    assert queue.waiting_ahead(["often"])
    assert [request.caller for request in queue.take(lambda _: True, 9, ahead_of=["often"])] == ["seldom"]


class Hooked(Echo):
    """Calls the pauses of all batches under way twice inside each of them, as hooks on one model's layers do."""

    def __init__(self, arrivals: dict[int, list[Request]], queue: FairQueue) -> None:
        super().__init__()
        self._arrivals, self._queue, self._pauses = arrivals, queue, list[Any]()
        self.ended: list[int] = []

    def answer(self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: Any = None) -> list[Any]:
        self._pauses.append(pause)
        for request in self._arrivals.pop(len(rows[0]), []):
            self._queue.put(request)
        for one in self._pauses * 2:
            one()
        self._pauses.pop()
        self.ended.append(len(rows[0]))
        return super().answer(rows, keys)


def test_only_who_has_had_less_than_those_let_in_last_goes_before_the_end_of_their_batch() -> None:
    def waiting(caller: str, width: int) -> Request:
        request = Request(None, "x", caller=caller)
        request.ids, request.width = [1] * width, width
        return request

    queue = FairQueue()
    for caller, had in (("most", 4000), ("second", 1200), ("third", 1000), ("least", 10)):
        queue.put(waiting(caller, had))
    queue.take(lambda _: True, 4)
    backend = Hooked({400: [waiting("third", 30)], 30: [waiting("second", 20), waiting("least", 10)]}, queue)
    queue.put(waiting("most", 400))
    BatchWorker(backend, queue, Limits(wait_s=0)).step()
    assert backend.ended == [10, 30, 20, 400]


def test_a_load_changes_the_deck_once_and_where_the_deck_computes() -> None:
    deck = served_adapters.base_deck("classifier")
    seen: list[list[bool]] = []

    def compute(work: Callable[[], Any]) -> Any:
        before = "a" in deck.adapters
        result = work()
        seen.append([before, "a" in deck.adapters])
        return result

    backend = batch_backend(deck, compute)
    assert backend.load(served_adapters.saved_adapters("classifier") / "lora-1", "a") is None
    assert seen == [[False, True]]
    backend.remove("a")
    assert seen == [[False, True], [True, False]]


def test_an_adapter_trained_with_dropout_answers_without_it(tmp_path: Path) -> None:
    deck = served_adapters.base_deck("classifier")
    deck.add("a", td.BottleneckConfig(dropout=0.9), labels=("x", "y"))
    with torch.no_grad():
        for parameter in deck.adapter("a").parameters():
            parameter.add_(0.5)
    deck.save("a", tmp_path / "a")
    expected = deck.predict(["w4 w5"], adapter="a")
    backend = batch_backend(deck)
    backend.load(tmp_path / "a", "b")
    assert deck.predict(["w4 w5"], adapter="b") == expected


def test_what_a_load_waits_for_is_computed_between_the_layers_of_a_batch() -> None:
    queue, done = FairQueue(), list[str]()
    for caller in ("first", "second"):
        request = Request(None, "x", caller=caller)
        request.ids, request.width = [1] * 3, 3
        queue.put(request)
    loader = threading.Thread(target=lambda: queue.call(lambda: done.append("load")))

    class Long(Echo):
        def answer(self, rows: Sequence[Sequence[int]], keys: Sequence[str | None], pause: Any = None) -> list[Any]:
            loader.start()
            eventually(lambda: pause() or bool(done))
            done.append("batch")
            return super().answer(rows, keys)

    BatchWorker(Long(), queue, Limits(wait_s=0)).step()
    loader.join(SOON)
    assert done == ["load", "batch"]


def test_a_batch_between_the_layers_of_another_changes_neither() -> None:
    backend = batch_backend(served_adapters.base_deck("classifier"))
    for name in ("lora-1", "prompt-1"):
        backend.load(served_adapters.saved_adapters("classifier") / name, name)
    long, short = ([backend.encode([text], name)[0]] for text, name in (("w4 w5 w6 w7", "lora-1"), ("w8", "prompt-1")))
    alone = backend.answer(long, ["lora-1"]), backend.answer(short, ["prompt-1"])
    between: list[Any] = []

    def pause() -> None:
        if not between:
            between.append(None)
            between[0] = backend.answer(short, ["prompt-1"])

    assert (backend.answer(long, ["lora-1"], pause), between[0]) == alone


@pytest.mark.parametrize("form", ["classifier", "unpooled"])
def test_answers_to_many_threads_are_those_of_solo_runs(form: str) -> None:
    deck, alone = served_adapters.base_deck(form), served_adapters.base_deck(form)
    root = served_adapters.saved_adapters(form)
    for adapter in filter(None, NAMES):
        alone.load_adapter(root / adapter)
    engine = engine_on(root, batch_backend(deck), Limits(batch_positions=200))
    chooser = random.Random(1)
    asked = [(chooser.choice(NAMES), chooser.choice(served_adapters.TEXTS)) for _ in range(120)]
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda one: submit(engine, *one).done, asked))
    for (name, text), future in zip(asked, futures, strict=True):
        got = future.result(SOON)
        if form == "classifier":
            expected = alone.predict([text], name)[0]
            assert got.label == expected.label
            assert got.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        else:
            assert torch.allclose(got, alone.embed([text], name)[0], atol=1e-5)
    assert not any(resident.users for resident in engine.store.cached())
    engine.close()


def test_a_batch_mixes_adapters_and_keeps_to_its_rows(echo: tuple[Engine, Echo]) -> None:
    engine, backend = echo
    held_up(engine, backend)
    requests = [submit(engine, name, [number]) for number, name in enumerate("abcabcab", 20)]
    eventually(lambda: len(engine.queue) == 8)
    backend.go.set()
    for number, request in enumerate(requests, 20):
        ids, key = request.done.result(SOON)
        assert ids == [number]
        assert key.startswith(f"{request.adapter}@")
    assert [len(batch) for batch in backend.batches] == [1, 4, 4]
    assert len(set(backend.batches[1])) == 3


def test_a_cold_adapter_does_not_wait_for_a_hot_one(echo: tuple[Engine, Echo]) -> None:
    engine, backend = echo
    held_up(engine, backend)
    hot = [submit(engine, "a", [number]) for number in range(20, 50)]
    eventually(lambda: len(engine.queue) == 30)
    cold = submit(engine, "b", [99])
    eventually(lambda: len(engine.queue) == 31)
    backend.go.set()
    cold.done.result(SOON)
    for request in hot:
        request.done.result(SOON)
    place = next(place for place, batch in enumerate(backend.batches) if any(key and key[0] == "b" for key in batch))
    assert place == 1, "the batch after the one that ran"


@settings(max_examples=60, deadline=None)
@given(
    waiting=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 60)), min_size=1, max_size=60),
    rows=st.integers(1, 8),
)
def test_no_lane_waits_longer_than_the_number_of_lanes(waiting: list[tuple[str, int]], rows: int) -> None:
    queue, limits = FairQueue(), Limits(batch_rows=rows, batch_positions=100, wait_s=0)
    worker = BatchWorker(served_adapters.FakeBackend(), queue, limits)  # type: ignore[arg-type]
    for name, width in waiting:
        request = Request(name, None)
        request.width = width
        queue.put(request)
    since: dict[str | None, int] = {name: 0 for name, _ in waiting}
    served_names: list[str | None] = []
    while len(queue):
        batch = queue.take(worker._room(), limits.batch_rows)
        assert batch
        assert len(batch) == 1 or len(batch) * max(one.width for one in batch) <= 100
        served_names += [one.adapter for one in batch]
        for lane in since:
            since[lane] = 0 if lane in {one.adapter for one in batch} else since[lane] + 1
        left = {lane for lane in since if sum(n == lane for n, _ in waiting) > served_names.count(lane)}
        assert all(since[lane] < 6 for lane in left)
    assert sorted(map(str, served_names)) == sorted(name for name, _ in waiting)
    assert queue.positions == 0


def test_a_full_queue_refuses_and_says_when_to_come_back(echo: tuple[Engine, Echo]) -> None:
    engine, backend = echo
    held_up(engine, backend)
    for number in range(39):
        submit(engine, None, [number + 20])
    with pytest.raises(OverloadedError, match="40 requests are waiting; try again in") as refused:
        submit(engine, None, [1])
    assert refused.value.retry_after_s >= 1
    backend.go.set()
    eventually(lambda: engine.in_flight == 0)
    submit(engine, None, [1]).done.result(SOON)


def test_a_row_that_fails_fails_alone(echo: tuple[Engine, Echo]) -> None:
    engine, backend = echo
    held_up(engine, backend)
    requests = [submit(engine, "a", [number]) for number in (12, 13, 14)]
    eventually(lambda: len(engine.queue) == 3)
    backend.go.set()
    assert requests[0].done.result(SOON)[0] == [12]
    with pytest.raises(RuntimeError, match="unlucky"):
        requests[1].done.result(SOON)
    assert requests[2].done.result(SOON)[0] == [14]


def test_cancelled_and_late_requests_are_not_computed(echo: tuple[Engine, Echo]) -> None:
    engine, backend = echo
    held_up(engine, backend)
    cancelled, late = submit(engine, "a", [20]), submit(engine, "b", [21], timeout_s=0.01)
    cancelled.cancel()
    time.sleep(0.02)
    backend.go.set()
    with pytest.raises(CancelledError):
        cancelled.done.result(SOON)
    with pytest.raises(DeadlineError, match=r"no answer within 0\.01 s"):
        late.done.result(SOON)
    eventually(lambda: engine.in_flight == 0)
    assert [key for batch in backend.batches for key in batch] == [None]
    assert not any(resident.users for resident in engine.store.cached())


def test_unknown_adapters_are_refused_and_never_answered_by_the_base(echo: tuple[Engine, Echo]) -> None:
    engine, _ = echo
    with pytest.raises(UnknownAdapterError):
        submit(engine, "nobody", [1])
    assert engine.in_flight == 0


def test_draining_answers_what_is_inside_and_refuses_what_is_new(echo: tuple[Engine, Echo]) -> None:
    engine, backend = echo
    first = held_up(engine, backend)
    second = submit(engine, "a", [20])
    assert not engine.drain(0.01)
    with pytest.raises(DrainingError):
        submit(engine, None, [1])
    backend.go.set()
    assert engine.drain(SOON)
    assert first.done.result(0)[0] == [1]
    assert second.done.result(0)[0] == [20]


def test_an_adapter_whose_answer_is_not_the_stored_one_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    deck = served_adapters.base_deck("classifier")
    deck.load_adapter(served_adapters.saved_adapters("classifier") / "lora-1")
    deck.save("lora-1", tmp_path / "good")
    deck.save("lora-1", tmp_path / "changed")
    file = tmp_path / "changed" / "adapter_model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(file).items()}, file)
    engine = engine_on(tmp_path, batch_backend(served_adapters.base_deck("classifier")), Limits())
    with pytest.raises(td.TunedeckError, match="does not answer its stored probe"):
        submit(engine, "changed", "w4").done.result(SOON)
    assert submit(engine, "good", "w4").done.result(SOON).label
    (tmp_path / "plain").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "plain" / name).write_bytes((tmp_path / "good" / name).read_bytes())
    lease = engine.store.load("plain").result(SOON)
    assert lease.adapter.note == "no stored probe: not tested on load"
    engine.close()
