"""An adapter whose values are no numbers fails its own requests; whoever shares its passes answers as alone."""

from __future__ import annotations

import pytest
import torch
from support import served_adapters
from support.queued_generation import queued, solo_deck

import tunedeck as td
from tunedeck.core.errors import AdapterError, ModelError
from tunedeck.generation.choosing import choose_tokens
from tunedeck.generation.decode import decode
from tunedeck.generation.sequence import Sequence
from tunedeck.server.errors import failure_of
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.workers.generate import GenerateWorker, GenerationLimits

HEALTHY = ["lora-2", None, "bottleneck-1", "prompt-1", "lora-2", "bottleneck-2"]
TEXT = "w5 w6 w7"


def prepared(deck: td.Deck, sampling: td.Sampling) -> Sequence:
    return Sequence([5], sampling).prepare(deck, None, [5])


def spoil(deck: td.Deck, key: str | None, value: float) -> None:
    assert key is not None
    with torch.inference_mode():
        for placement in deck.adapter(key).built.placements.values():
            placement.layer.lora_A.fill_(value)
            placement.layer.lora_B.fill_(value)


def spoil_cache(worker: GenerateWorker, key: str | None, value: float) -> None:
    """What an adapter whose values overflow at a later token leaves in the keys of its row."""
    batch = next(batch for (weights, _), batch in worker._batches.items() if weights is None)
    place = [row.adapter for row in batch.sequences].index(key)
    with torch.inference_mode():
        batch.cache.cache.layers[-1].keys[place] = value  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("late", [False, True])
def test_rows_beside_one_that_is_not_finite_answer_as_alone(value: float, temperature: float, late: bool) -> None:
    backend, queue = GenerateBackend(served_adapters.base_deck("causal")), FairQueue()
    requests = queued(["lora-1", *HEALTHY], [TEXT] * 7, backend, queue)
    for number, request in enumerate(requests):
        request.content = Sequence(TEXT, td.Sampling(max_tokens=8, temperature=temperature, seed=number))
        (request.ids,) = backend.encode([request.content], request.key)
    worker = GenerateWorker(backend, queue, GenerationLimits(prefill_positions=1000))
    if late:
        worker.step()  # the rows have said two tokens
        assert len(worker._running) == 7
        spoil_cache(worker, requests[0].key, value)
    else:
        spoil(backend.deck, requests[0].key, value)
    while worker.step():
        pass
    with pytest.raises(AdapterError, match="adapter 'lora-1' returned values that are not numbers"):
        requests[0].done.result(0)
    deck = solo_deck()
    for number, request in enumerate(requests[1:], 1):
        sampling = td.Sampling(max_tokens=8, temperature=temperature, seed=number)
        ids = deck.tokenizer(TEXT)["input_ids"]
        alone = "".join(chunk.text for chunk in decode(deck, [ids], [request.adapter], sampling))
        assert request.done.result(0).text == alone, request.adapter


def test_logits_that_are_not_finite_fail_their_row_alone() -> None:
    deck = served_adapters.base_deck("causal")
    samplings = [td.Sampling(), td.Sampling(temperature=1.0), td.Sampling(repetition_penalty=1.1), td.Sampling()]
    rows = [prepared(deck, one) for one in samplings]
    logits = torch.zeros(4, 120)
    logits[0, 7], logits[1, 3], logits[2, 4], logits[3, :] = 1.0, float("nan"), float("inf"), -float("inf")
    chosen = choose_tokens(logits, rows, deck.tokenizer)
    assert chosen[0] == 7
    assert all(isinstance(one, ModelError) for one in chosen[1:])


def test_a_quotient_by_a_small_temperature_that_leaves_float32_fails_its_row_alone() -> None:
    deck = served_adapters.base_deck("causal")
    rows = [prepared(deck, td.Sampling(temperature=one)) for one in (1e-5, 1.0)]
    logits = torch.zeros(2, 120)
    logits[0, 7], logits[1, 8] = 3e37, 100.0
    chosen = choose_tokens(logits, rows, deck.tokenizer)
    assert isinstance(chosen[0], ModelError)
    assert chosen[1] == 8


def test_some_tokens_that_a_model_rules_out_are_no_failure() -> None:
    deck = served_adapters.base_deck("causal")
    logits = torch.full((1, 120), -float("inf"))
    logits[0, 9] = 0.5
    for sampling in (td.Sampling(), td.Sampling(temperature=1.0)):
        assert choose_tokens(logits, [prepared(deck, sampling)], deck.tokenizer) == [9]


def test_an_unsound_adapter_is_422_and_an_unsound_base_is_500() -> None:
    deck = served_adapters.base_deck("causal")
    found = []
    for name in ("lora-9", None):
        row = prepared(deck, td.Sampling())
        row.adapter_name = name
        error = choose_tokens(torch.full((1, 120), float("nan")), [row], deck.tokenizer)[0]
        assert isinstance(error, Exception)
        found.append(failure_of(error).status)
    assert found == [422, 500]


def test_a_deck_says_that_its_adapter_is_unsound() -> None:
    deck = solo_deck()
    spoil(deck, "lora-1", float("nan"))
    with pytest.raises(AdapterError, match="'lora-1' returned values that are not numbers"):
        deck.generate([TEXT], "lora-1")
