"""Rows of unlike room lie in several tensors and decode in one step; answers do not show which rows lie together."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import served_adapters, tiny_models
from support.queued_generation import NAMES, solo_deck
from transformers import DynamicCache

import tunedeck as td
from tunedeck.generation import kv_cache
from tunedeck.generation.buckets import BucketedCache, can_bucket, room, wide_room
from tunedeck.generation.decode import DecodingBatch
from tunedeck.generation.kv_cache import BLOCK
from tunedeck.generation.prefill import Prefill
from tunedeck.generation.sequence import Sequence

WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 6},
    "gemma3_text": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
}
LENGTHS = [3, 1, 12, 7, 3, 20, 1, 9]
TOKENS = [3, 20, 9, 1, 20, 12, 7, 16]
MIXED = [name for name in NAMES if name is None or not name.startswith("full")]


def prepared(deck: td.Deck) -> list[Sequence]:
    """Prompts and answers of many lengths, by every kind of adapter that can share a batch."""
    sequences = []
    for number, (length, tokens) in enumerate(zip(LENGTHS, TOKENS, strict=True)):
        ids = [5 + (7 * number + place) % 100 for place in range(length)]
        made = Sequence(ids, td.Sampling(max_tokens=tokens), index=number)
        sequences.append(made.prepare(deck, MIXED[number % len(MIXED)], ids))
    return sequences


def deck_on(folder: Path, model_type: str, **sizes: Any) -> td.Deck:
    tiny_models.tiny_model(model_type, "causal", **sizes).save_pretrained(folder)
    tiny_models.tiny_tokenizer(model_type).save_pretrained(folder)
    deck = td.Deck.load(str(folder), td.Generate(), dtype="float32")
    deck.model.generation_config.eos_token_id = None  # every answer has all its tokens
    return deck


def answers(deck: td.Deck, bucket: Callable[[Sequence], int]) -> list[list[int]]:
    """The tokens of sequences that join in three parts; one of them is dropped on the way."""
    sequences, batch = prepared(deck), DecodingBatch(deck)
    for one in sequences:
        one.room = bucket(one)
    for together in (sequences[:3], sequences[3:4], sequences[4:]):
        prefill = Prefill(deck, together)
        prefill.advance()
        batch.join(prefill)
        batch.step()
    batch.drop(lambda one: one.index == 5)
    while batch.sequences:
        batch.step()
    assert batch.cache.positions == 0
    return [one.token_ids for one in sequences]


def test_room_is_one_two_three_four_six_eight_or_twelve_blocks() -> None:
    assert [room(BLOCK * blocks) // BLOCK for blocks in range(1, 14)] == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16]
    assert [room(100), room(2000)] == [128, 2048]
    assert [wide_room(length) for length in (1, 512, 513, 2000, 2049)] == [512, 512, 1024, 2048, 4096]


@given(st.integers(1, 1_000_000), st.integers(0, 1000))
def test_room_is_enough_never_half_more_than_needed_and_grows_with_the_length(positions: int, more: int) -> None:
    whole_blocks = -(-positions // BLOCK) * BLOCK
    assert positions <= whole_blocks <= room(positions) < 1.5 * whole_blocks
    assert room(positions) <= room(positions + more)


def test_rows_may_change_their_bucket_between_two_steps_and_answers_stay_the_same() -> None:
    deck, chooser = solo_deck(), random.Random(0)
    sequences, batch = prepared(deck), DecodingBatch(deck)
    for together in (sequences[:5], sequences[5:]):
        prefill = Prefill(deck, together)
        prefill.advance()
        batch.join(prefill)
    seen = set()
    while batch.sequences:
        for one in batch.sequences:
            one.room = chooser.randint(1, 3)
        batch.arrange()
        seen.add(len(batch.cache))
        batch.step()
    assert {1, 2, 3} == seen
    expected = answers(deck, lambda _: 0)
    assert [one.token_ids for one in sequences if one.index != 5] == expected[:5] + expected[6:]


@pytest.mark.parametrize("block", [2, 64])
@pytest.mark.parametrize("bucket", [lambda one: room(one.max_length), lambda one: one.index, lambda one: one.index % 2])
def test_answers_are_those_of_one_bucket(
    block: int, bucket: Callable[[Sequence], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "BLOCK", block)
    deck = solo_deck()
    got, expected = answers(deck, bucket), answers(deck, lambda _: 0)
    assert got == expected
    assert len({tuple(tokens) for tokens in got}) > 5


@pytest.mark.parametrize("model_type", ["gpt2", "gemma2", "mistral", "gemma3_text"])
def test_models_with_other_attention_and_sliding_windows_answer_as_from_one_bucket(
    model_type: str, tmp_path: Path
) -> None:
    deck = deck_on(tmp_path, model_type, **WINDOWED.get(model_type, {}))

    def logits(room_of: Callable[[int], int]) -> torch.Tensor:
        prompts = [list(range(5, 5 + length)) for length in LENGTHS]
        steps: list[torch.Tensor] = []
        batch, sampling = DecodingBatch(deck), td.Sampling(max_tokens=12)
        made = [Sequence(ids, sampling, room=room_of(len(ids))).prepare(deck, None, ids) for ids in prompts]
        deck.model.register_forward_hook(lambda _, args, output: steps.append(output.logits[:, -1]))
        for together in (made[:5], made[5:]):
            prefill = Prefill(deck, together)
            prefill.advance()
            batch.join(prefill)
        steps.clear()
        for _ in range(8):
            batch.step()
        return torch.stack(steps)

    assert can_bucket(deck)
    torch.testing.assert_close(logits(lambda length: length), logits(lambda _: 0))


def test_a_long_row_takes_no_room_of_short_ones() -> None:
    heads, size = 2, 4

    def rows(count: int, positions: int) -> DynamicCache:
        cache = DynamicCache()
        cache.update(torch.randn(count, heads, positions, size), torch.randn(count, heads, positions, size), 0)
        return cache

    cache = BucketedCache()
    cache.join(rows(15, 90), rooms=[128] * 15, lengths=[90] * 15, max_lengths=[100] * 15)
    cache.join(rows(1, 1900), rooms=[2048], lengths=[1900], max_lengths=[2000])
    assert (len(cache), cache.positions) == (2, 15 * 100 + 1920)
    cache.keep([15, *range(3)], [1900, 90, 90, 90])
    assert (len(cache), cache.positions) == (2, 3 * 100 + 1920)
    cache.keep([1, 2, 3], [90] * 3)
    assert (len(cache), cache.positions) == (1, 3 * 100)


def test_a_model_whose_layers_compute_with_what_the_cache_returns_keeps_its_rows_in_one_bucket(tmp_path: Path) -> None:
    sizes = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "kv_lora_rank": 8, "q_lora_rank": 8}
    deck = deck_on(tmp_path, "deepseek_v3", **sizes, num_key_value_heads=4, first_k_dense_replace=2)
    assert not can_bucket(deck)
    assert can_bucket(served_adapters.base_deck("causal"))
