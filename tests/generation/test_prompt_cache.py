"""Prompts that begin alike: their beginning is computed once for each adapter, and the answers are what they were."""

from __future__ import annotations

import pytest
import torch
from support import served_adapters
from support.queued_generation import queued, solo_deck, tokens_of

import tunedeck as td
from tunedeck.generation.kv_cache import Tensors
from tunedeck.generation.prefill import Prefill
from tunedeck.generation.prompt_cache import BLOCK_TOKENS, PromptCache, concatenated
from tunedeck.generation.sequence import Sequence
from tunedeck.methods.base import MethodConfig
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.workers.generate import GenerateWorker, GenerationLimits

SYSTEM = " ".join(f"w{number}" for number in range(30, 30 + BLOCK_TOKENS + 3))
NAMES = [None, "lora-1", "bottleneck-1", "prompt-1", "full-1"]
IDS = list(range(3 * BLOCK_TOKENS))


def layers(positions: int) -> Tensors:
    return torch.randn(3, 2, positions, 4), torch.randn(3, 2, positions, 4)


def block_bytes() -> int:
    cache = PromptCache(1 << 20)
    cache.put(None, IDS[:BLOCK_TOKENS], layers(BLOCK_TOKENS))
    return cache.bytes


def test_a_prompt_is_found_up_to_where_it_differs() -> None:
    cache, stored = PromptCache(1 << 20), layers(len(IDS))
    cache.put("de", IDS, stored)
    other = [*IDS[: 2 * BLOCK_TOKENS + 5], 99, *IDS]
    found = concatenated(cache.get("de", other))
    for layer, (keys, values) in enumerate(found):
        assert torch.equal(keys[0], stored[0][layer, :, : 2 * BLOCK_TOKENS])
        assert torch.equal(values[0], stored[1][layer, :, : 2 * BLOCK_TOKENS])
    assert cache.matching("de", [99, *IDS]) == 0
    assert cache.matching("en", IDS) == cache.matching(None, IDS) == 0


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    cache = PromptCache(1 << 20)
    cache.put(None, IDS, layers(len(IDS)))
    assert cache.matching(None, IDS) == 2 * BLOCK_TOKENS
    assert cache.matching(None, [*IDS, 1]) == 3 * BLOCK_TOKENS


def test_prompts_with_a_common_beginning_store_it_once() -> None:
    cache = PromptCache(1 << 20)
    cache.put(None, IDS, layers(len(IDS)))
    cache.put(None, [*IDS[: 2 * BLOCK_TOKENS], *IDS[:BLOCK_TOKENS]], layers(len(IDS)))
    assert len(cache) == 4
    assert cache.bytes == 4 * block_bytes()


def test_what_was_used_longest_ago_goes_first_and_beginnings_stay() -> None:
    cache, first, second = PromptCache(3 * block_bytes()), IDS[: 2 * BLOCK_TOKENS], [7] * (2 * BLOCK_TOKENS)
    cache.put(None, first, layers(len(first)))
    cache.put(None, second, layers(len(second)))
    assert [cache.matching(None, [*ids, 0]) for ids in (first, second)] == [BLOCK_TOKENS, 2 * BLOCK_TOKENS]
    cache.get(None, [*first, 0])
    cache.put(None, IDS[3:][:BLOCK_TOKENS], layers(BLOCK_TOKENS))
    assert [cache.matching(None, [*ids, 0]) for ids in (first, second)] == [BLOCK_TOKENS, BLOCK_TOKENS]
    assert cache.bytes <= cache.max_bytes


def test_an_adapter_that_is_removed_leaves_nothing() -> None:
    cache = PromptCache(1 << 20)
    for name in ("de", "en"):
        cache.put(name, IDS, layers(len(IDS)))
    cache.forget("de")
    assert (cache.matching("de", [*IDS, 0]), cache.matching("en", [*IDS, 0])) == (0, 3 * BLOCK_TOKENS)
    assert cache.bytes == 3 * block_bytes()


def answered(backend: GenerateBackend, texts: list[str], names: list[str | None], chunk: int) -> list[Request]:
    """The requests for each text by each adapter, those of the first text before those of the second."""
    queue = FairQueue()
    worker = GenerateWorker(backend, queue, GenerationLimits(prefill_positions=chunk))
    requests = queued(names * len(texts), [text for text in texts for _ in names], backend, FairQueue())
    for number, request in enumerate(requests):
        queue.put(request)
        while (number + 1) % len(names) == 0 and (worker.step() or len(queue)):
            pass
    return requests


@pytest.mark.parametrize("chunk", [6, 200])
def test_a_common_beginning_is_computed_once_for_each_adapter_and_changes_no_answer(chunk: int) -> None:
    backend = GenerateBackend(served_adapters.base_deck("causal"), prompt_cache_bytes=1 << 20)
    texts = [f"{SYSTEM} w5", f"{SYSTEM} w6 w7 w8", "w9"]
    requests = answered(backend, texts, NAMES, chunk)
    cached = [request.content.cached_tokens for request in requests]
    assert cached == [0] * 5 + [BLOCK_TOKENS] * 5 + [0] * 5
    deck = solo_deck()
    for request in requests:
        sampling = td.Sampling(max_tokens=tokens_of(request.adapter))
        assert request.done.result(0).text == deck.generate([request.content.prompt], request.adapter, sampling)[0]


def test_nothing_is_kept_where_the_cache_has_no_memory_and_after_an_adapter_is_removed() -> None:
    backend = GenerateBackend(served_adapters.base_deck("causal"))
    assert all(not one.content.cached_tokens for one in answered(backend, [SYSTEM, SYSTEM], [None], 200))
    backend = GenerateBackend(served_adapters.base_deck("causal"), prompt_cache_bytes=1 << 20)
    (request,) = answered(backend, [SYSTEM], ["lora-1"], 200)
    assert backend.to_compute(request.content) < len(request.ids)
    assert request.key is not None
    backend.remove(request.key)
    assert backend.to_compute(request.content) == len(request.ids)


@pytest.mark.parametrize("config", [None, td.PrefixTuningConfig(num_virtual_tokens=3), td.PromptTuningConfig(4)])
def test_logits_after_a_cached_beginning_are_those_of_the_whole_prompt(config: MethodConfig | None) -> None:
    deck = served_adapters.base_deck("causal")
    if config is not None:
        deck.add("de", config)
    name = None if config is None else "de"
    backend = GenerateBackend(deck, prompt_cache_bytes=1 << 20)
    begin = list(range(20, 20 + BLOCK_TOKENS))
    first, second, other = (
        Sequence(ids, td.Sampling()).prepare(deck, name, ids) for ids in ([*begin, 5], [*begin, 6, 7], [8, 9])
    )
    computed = Prefill(deck, [first], [backend.beginning(first)])
    computed.advance()
    backend.keep_prompt(computed, 0)
    cached = Prefill(deck, [second, other], [backend.beginning(one) for one in (second, other)])
    assert (second.cached_tokens, other.cached_tokens) == (BLOCK_TOKENS, 0)
    assert backend.to_compute(second) == 2
    whole = Prefill(deck, [second, other])
    for prefill in (cached, whole):
        prefill.advance()
    assert cached.logits is not None
    assert whole.logits is not None
    torch.testing.assert_close(cached.logits, whole.logits)
