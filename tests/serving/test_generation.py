"""Continuous batching: whoever joins or leaves, whenever, each answer is token for token the one of a solo run."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial

import pytest
from support import served_adapters, tiny_models
from support.queued_generation import NAMES, asked, queued, solo_deck, tokens_of
from support.waiting import SOON, eventually

import tunedeck as td
from tunedeck.core.errors import ConfigError, DeadlineError
from tunedeck.generation import kv_cache
from tunedeck.generation.sequence import Chunk, Sequence
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.engine import Engine
from tunedeck.serving.factory import open_engine
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.workers.generate import GenerateWorker, GenerationLimits


def engine_on(deck: td.Deck, limits: GenerationLimits | None = None) -> tuple[Engine, GenerateWorker, GenerateBackend]:
    limits = limits or GenerationLimits(prefill_positions=6)
    engine = open_engine(deck, served_adapters.saved_adapters("causal"), adapter_bytes=10_000_000, generation=limits)
    return engine, engine._worker, engine._backend  # type: ignore[return-value]


@pytest.fixture
def engine() -> Iterator[Engine]:
    made, _, _ = engine_on(served_adapters.base_deck("causal"))
    yield made
    made.close()


def random_text(chooser: random.Random) -> str:
    return " ".join(f"w{chooser.randint(4, 119)}" for _ in range(chooser.randint(1, 20)))


def keep_text(pieces: list[str], chunk: Chunk) -> None:
    pieces.append(chunk.text)


def test_rows_that_join_at_any_time_say_what_they_say_alone(engine: Engine) -> None:
    deck, chooser, requests = solo_deck(), random.Random(0), []
    for number in range(36):
        name, text, tokens = NAMES[number % len(NAMES)], random_text(chooser), chooser.randint(1, 16)
        pieces: list[str] = []
        request = Request(name, asked(text, tokens), on_piece=partial(keep_text, pieces))
        engine.submit(request)
        requests.append((request, text, tokens, pieces))
        time.sleep(chooser.choice([0, 0, 0.002, 0.01]))
    answers = set()
    for request, text, tokens, pieces in requests:
        got = request.done.result(SOON)
        alone = deck.generate([text], request.adapter, td.Sampling(max_tokens=tokens))[0]
        assert got.text == alone, request.adapter
        assert "".join(pieces) == alone
        assert got.finish_reason == ("length" if got.completion_tokens == tokens else "stop")
        answers.add(alone)
    assert len(answers) > 20


def test_a_sampled_answer_repeats_by_its_seed_whatever_runs_beside_it(engine: Engine) -> None:
    sampling = td.Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=5)
    prompt = [{"role": "user", "content": "w4 w5 w6"}]
    requests = [Request("lora-1", Sequence(prompt, sampling)), *(Request(None, asked(f"w{n}")) for n in range(9, 14))]
    for request in requests:
        engine.submit(request)
    alone = solo_deck().generate([prompt], "lora-1", sampling)[0]
    assert requests[0].done.result(SOON).text == alone


def test_virtual_tokens_are_computed_once_for_each_adapter() -> None:
    engine, _, backend = engine_on(served_adapters.base_deck("causal"))
    seen: list[int] = []
    embedding = backend.deck.model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(
        lambda _, args: seen.append(int((args[0] >= tiny_models.VOCAB).sum())), prepend=True
    )
    requests = [Request("prompt-1", asked(f"w{number}")) for number in range(5, 11)]
    for request in requests:
        engine.submit(request)
    for request in requests:
        request.done.result(SOON)
    handle.remove()
    probe = 5  # loading asks the adapter its stored probe, virtual tokens and all
    assert sum(seen) == probe + 5
    assert backend.prefix_positions == 5
    engine.store.unload("prompt-1")
    eventually(lambda: backend.prefix_positions == 0)
    engine.close()


def test_one_step_computes_short_prompts_until_most_of_its_positions_are_spent() -> None:
    backend, queue = GenerateBackend(served_adapters.base_deck("causal")), FairQueue()
    requests = queued(["full-1"] * 4, [f"w{number}" for number in range(5, 9)], backend, queue)
    worker = GenerateWorker(backend, queue, GenerationLimits(prefill_positions=4 * len(requests[0].ids)))
    begun = []
    for _ in range(2):
        worker.step()
        begun.append(sum(request.first_token_s is not None for request in requests))
    assert begun == [3, 4]
    worker.stop()


def test_prompts_of_unlike_lengths_share_a_pass_with_and_without_virtual_tokens() -> None:
    backend, queue = GenerateBackend(served_adapters.base_deck("causal")), FairQueue()
    names = ["prompt-1", None, "lora-1", "prompt-2", "prompt-1"]
    texts = ["w5", "w6 w7 w8 w9 w10", "w11 w12", "w13 w14 w15 w16", "w17 w18"]
    requests = queued(names, texts, backend, queue)
    worker = GenerateWorker(backend, queue, GenerationLimits(prefill_positions=200))
    for name in ("prompt-1", "prompt-2"):
        backend.prefix(next(request.key for request in requests if request.adapter == name))
    seen = []
    embedding = backend.deck.model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])), prepend=True)
    while worker.step():
        pass
    handle.remove()
    assert seen[0] == 5
    alone = [
        solo_deck().generate([text], name, td.Sampling(max_tokens=tokens_of(name)))[0]
        for name, text in zip(names, texts, strict=True)
    ]
    assert [request.done.result(0).text for request in requests] == alone


def test_the_key_value_cache_stays_within_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "BLOCK", 4)
    deck = served_adapters.base_deck("causal")
    _, measuring, _ = engine_on(deck)
    a_position = (1 << 30) // measuring.kv_positions
    engine, worker, _ = engine_on(deck, GenerationLimits(kv_bytes=a_position * 60, prefill_positions=6))
    most = 0

    def watch(_: Chunk) -> None:
        nonlocal most
        most = max(most, sum(batch.cache.positions for batch in worker._batches.values()))

    requests = [Request(None, asked(f"w{number} w{number}", 12), on_piece=watch) for number in range(5, 25)]
    for request in requests:
        engine.submit(request)
    for request in requests:
        request.done.result(SOON)
    assert 20 < most <= 60
    engine.close()


def test_a_cancelled_row_leaves_and_the_others_say_what_they_would(engine: Engine) -> None:
    long = [Request("lora-1", asked("w4 w5", 40), on_piece=lambda _: None) for _ in range(3)]
    for request in long:
        engine.submit(request)
    eventually(lambda: all(request.first_token_s is not None for request in long))
    long[1].cancel()
    with pytest.raises(CancelledError):
        long[1].done.result(SOON)
    alone = solo_deck().generate(["w4 w5"], "lora-1", td.Sampling(max_tokens=40))[0]
    assert long[0].done.result(SOON).text == long[2].done.result(SOON).text == alone
    eventually(lambda: engine.in_flight == 0)
    assert all(resident.users == 0 for resident in engine.store.cached())


def test_an_answer_that_takes_too_long_fails_and_leaves(engine: Engine) -> None:
    request = Request(None, asked("w4", 50), timeout_s=0.0)
    engine.submit(request)
    with pytest.raises(DeadlineError):
        request.done.result(SOON)


def test_a_prompt_without_room_is_refused_and_says_the_limit(engine: Engine) -> None:
    request = Request("prompt-1", asked(" ".join(["w5"] * 60)))
    engine.submit(request)
    with pytest.raises(ConfigError, match="more than the model's 64 positions"):
        request.done.result(SOON)
    bad = Request(None, Sequence([999], td.Sampling()))
    engine.submit(bad)
    with pytest.raises(ConfigError, match="from 0 to 119"):
        bad.done.result(SOON)


def test_a_failing_step_ends_its_rows_and_not_the_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunedeck.generation import decode

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(decode.DecodingBatch, "_logits", broken)
        request = Request(None, asked("w4"))
        engine.submit(request)
        with pytest.raises(RuntimeError, match="out of memory"):
            request.done.result(SOON)
    after = Request(None, asked("w4"))
    engine.submit(after)
    assert after.done.result(SOON).finish_reason


def test_closing_ends_what_is_under_way(engine: Engine) -> None:
    request = Request(None, asked("w4", 40))
    engine.submit(request)
    assert engine.drain(SOON)
    assert request.done.result(0).text


def test_prompts_that_arrive_at_once_share_a_pass_though_their_adapters_are_loaded_one_by_one() -> None:
    limits = GenerationLimits(prefill_positions=400, gather_s=SOON)
    engine, _, backend = engine_on(served_adapters.base_deck("causal"), limits)
    names = ["lora-1", "lora-2", "bottleneck-1", "bottleneck-2"]
    requests = [Request(name, Sequence([5, 6, 7, 8], td.Sampling(max_tokens=2))) for name in names]
    rows: list[int] = []
    embedding = backend.deck.model.get_input_embeddings()
    with engine:
        engine.store.load("lora-1").result(SOON).close()
        handle = embedding.register_forward_pre_hook(
            lambda _, args: rows.append(len(args[0])) if 5 in args[0] else None, prepend=True
        )
        engine.submit(*requests)
        for request in requests:
            request.done.result(SOON)
        handle.remove()
    assert rows[0] == len(names)


def test_what_waits_is_answered_when_nothing_else_comes_or_it_has_waited_long_enough() -> None:
    queue = FairQueue()
    asked_for: list[int] = []
    queue.gather_coming(SOON)  # nothing waits

    def coming() -> int:
        asked_for.append(len(asked_for))
        return 3 - len(asked_for)

    queue.coming = coming
    queue.put(Request(None, "w4"))
    queue.gather_coming(SOON)
    assert len(asked_for) == 3
    queue.coming = lambda: 1
    queue.gather_coming(0)
