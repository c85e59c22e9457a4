"""Keys and values with room at the end: a step writes one position, and answers do not show how the room grows."""

from __future__ import annotations

import pytest
import torch
from support import served_adapters
from transformers import DynamicCache

import tunedeck as td
from tunedeck.generation import kv_cache
from tunedeck.generation.decode import DecodingBatch
from tunedeck.generation.kv_cache import PreallocatedLayer, preallocate
from tunedeck.generation.prefill import Prefill
from tunedeck.generation.sequence import Sequence

ADAPTERS = ["lora-1", "prompt-1", "bottleneck-1", "lora-2"]
NAMES = [None, *ADAPTERS]
PROMPTS = ["w10 w11", "w20 w30 w40 w50 w60", "w7", "w9 w8 w7 w6 w5", "w44 w45 w46"]


def loaded_deck() -> td.Deck:
    deck = served_adapters.base_deck("causal")
    for name in ADAPTERS:
        deck.load_adapter(served_adapters.saved_adapters("causal") / name)
    return deck


def tensors(positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 3, positions, 4), torch.randn(2, 3, positions, 4)


@pytest.mark.parametrize("block", [1, 3, 8])
def test_answers_are_the_same_however_the_room_grows(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    deck, sampling = loaded_deck(), td.Sampling(max_tokens=20)
    expected = deck.generate(PROMPTS, NAMES, sampling)
    monkeypatch.setattr(kv_cache, "BLOCK", block)
    assert deck.generate(PROMPTS, NAMES, sampling) == expected
    assert len(set(expected)) > 3


def test_plain_products_and_torchs_own_kernel_say_the_same_and_the_base_keeps_its_setting() -> None:
    deck, sampling = loaded_deck(), td.Sampling(max_tokens=20)
    expected = deck.generate(PROMPTS, NAMES, sampling)
    deck.model.config._attn_implementation = "eager"
    assert deck.generate(PROMPTS, NAMES, sampling) == expected
    assert deck.model.config._attn_implementation == "eager"


def test_a_step_copies_no_keys_until_the_room_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "BLOCK", 10)
    deck = loaded_deck()
    prefill = Prefill(deck, [Sequence([5, 6, 7], td.Sampling(max_tokens=30)).prepare(deck, "lora-1", [5, 6, 7])])
    prefill.advance()
    batch = DecodingBatch(deck)
    batch.join(prefill)
    places: list[int] = []
    while batch.sequences and len(places) < 12:
        batch.step()
        assert batch.cache.cache is not None
        places.append(batch.cache.cache.layers[0].keys.data_ptr())
    assert len(places) == 12
    assert places.index(places[-1]) == 7  # 3 + 7 are 10
    assert len(set(places)) == 2


def test_the_output_layer_reads_whole_rows_for_a_product_of_parts_copies_its_weights() -> None:
    deck, seen = loaded_deck(), []
    deck.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    deck.generate(PROMPTS, NAMES, td.Sampling(max_tokens=2))
    assert [one.shape[:2] for one in seen] == [(5, 1), (5, 1)]
    assert all(one.is_contiguous() for one in seen)


def test_the_room_never_exceeds_what_the_rows_may_come_to_have() -> None:
    keys, values = tensors(5)
    layer = PreallocatedLayer((keys, values), max_length=8)
    assert layer.keys.shape[2] == layer.get_mask_sizes(1)[0] == 8
    assert torch.equal(layer.keys[:, :, :5], keys)
    assert not layer.values[:, :, 5:].any()


def test_a_written_position_is_found_behind_the_others() -> None:
    cache = DynamicCache()
    keys, values = tensors(5)
    cache.update(keys, values, 0)
    grown, (key, value) = preallocate(cache, max_length=100), tensors(1)
    all_keys, all_values = grown.update(key, value, 0)
    assert grown.get_seq_length() == 6
    assert torch.equal(all_keys[:, :, :6], torch.cat([keys, key], dim=2))
    assert torch.equal(all_values[:, :, :6], torch.cat([values, value], dim=2))
    assert cache.get_seq_length() == 5
