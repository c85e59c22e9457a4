"""Memory formulae against hand-computed numbers, identities and readings of other programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.planner_setups import TRANSFORMERS, setup

from tunedeck.planner.catalogue import GIB, find_gpu
from tunedeck.planner.fit import fits, largest_micro_batch
from tunedeck.planner.memory import (
    MemoryParts,
    layer_bytes_per_token,
    layers_with_backward,
    linear_parameters,
    logits_bytes,
    memory_parts,
    stored_bytes,
    trainable_bytes,
    trainable_parameters,
    weights_bytes,
)

ATTENTION = {"r": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
ALL_LINEAR = {"r": 16, "target_modules": "all-linear"}


def test_lora_of_mistral_trains_13_631_488_parameters() -> None:  # fms-acceleration, r 16 on q, k, v, o
    assert trainable_parameters(setup("mistral-7b", settings=ATTENTION)) == 13_631_488


@pytest.mark.parametrize(
    ("model", "weights", "lora", "qlora", "full"),
    [
        ("qwen-7b", 14.38, 14.83, 5.88, 71.9),
        ("qwen2.5-7b", 14.19, 14.64, 5.62, 70.9),
        ("mistral-7b", 13.49, 13.96, 4.31, 67.4),
        ("minicpm-2b", 5.08, 5.38, 2.01, 25.4),
        ("llama-3.1-8b", 14.96, 15.43, 5.78, 74.8),
        ("chatglm3-6b", 11.63, 12.02, 4.13, 58.2),
    ],
)
def test_static_sizes_are_those_of_the_reference_table(
    model: str, weights: float, lora: float, qlora: float, full: float
) -> None:
    """GiB: 16-bit weights; with resident LoRA r 16 on all linears; in NF4; full fine-tuning in pure bf16 at its step.

    The table counts ChatGLM's and Qwen's fused projections as if they were split, which is 0.06 GiB of LoRA more.
    """
    off = 0.07 if model in ("qwen-7b", "chatglm3-6b") else 0.01
    plain = setup(model, settings=ALL_LINEAR)
    in_four_bits = replace(plain, four_bit=True)
    resident = 12 * trainable_parameters(plain)
    in_place = setup(model, "full", stack=TRANSFORMERS)
    _, gradients, moments, in_step = trainable_bytes(in_place)
    assert weights_bytes(plain) / GIB == pytest.approx(weights, abs=0.01)
    assert (weights_bytes(plain) + resident) / GIB == pytest.approx(lora, abs=off)
    assert (weights_bytes(in_four_bits) + resident) / GIB == pytest.approx(qlora, abs=0.02 + off)
    assert (weights_bytes(in_place) + gradients + moments + in_step) / GIB == pytest.approx(full, abs=0.1)


def test_four_bits_leave_embeddings_norms_and_the_output_layer_at_sixteen() -> None:
    plain, quantized = setup("qwen2.5-7b"), setup("qwen2.5-7b", four_bit=True)
    linears = linear_parameters(plain.spec)
    assert weights_bytes(plain) - weights_bytes(quantized) == pytest.approx(linears * (2 - 0.5 - 0.127 / 8))
    assert weights_bytes(quantized) / GIB > 5.0  # two embeddings of a 152 k vocabulary


def test_checkpointing_keeps_one_input_a_layer() -> None:
    kept = stored_bytes(setup("mistral-7b", rows=4, tokens=4096, checkpointing=True))
    assert kept == 2 * 32 * 4096 * 4 * 4096


def test_eager_logits_take_twelve_bytes_each_and_chunked_ones_none() -> None:
    eager, chunked = (setup("llama-3.1-8b", rows=4, tokens=1024, loss=loss) for loss in ("eager", "chunked"))
    assert logits_bytes(eager) - logits_bytes(chunked) == 12 * 4096 * 128_256


def test_eager_attention_grows_with_the_square_of_the_length_and_sdpa_does_not() -> None:
    def growth(attention: str) -> float:
        short, long = (stored_bytes(setup("mistral-7b", tokens=n, attention=attention)) for n in (1024, 2048))
        return long / short

    assert growth("sdpa") == pytest.approx(2)
    assert growth("eager") > 2.5


def test_lora_on_every_linear_keeps_the_activations_of_full_fine_tuning_and_those_of_its_own_rank() -> None:
    lora = layer_bytes_per_token(setup("llama-3.1-8b", settings=ALL_LINEAR))
    full = layer_bytes_per_token(setup("llama-3.1-8b", "full", stack=TRANSFORMERS))
    assert lora - full == 2 * 7 * 16  # bytes, linears of a layer, rank


def test_lora_on_queries_and_values_keeps_one_input_of_a_layer_more_than_the_base_does() -> None:
    some = layer_bytes_per_token(setup("llama-3.1-8b", settings={"r": 16, "target_modules": ["q_proj", "v_proj"]}))
    full = layer_bytes_per_token(setup("llama-3.1-8b", "full", stack=TRANSFORMERS))
    # full keeps the inputs of attention and of both feed-forward products; LoRA keeps that of attention and two of rank
    # 16
    assert full - some == 2 * (2 * 4096 + 14_336) - 2 * (4096 + 2 * 16)


def test_only_layers_above_the_lowest_trained_one_keep_activations() -> None:
    top = setup("bert-base-uncased", "full", settings={"layers": 3})
    head = setup("bert-base-uncased", "full", settings={"layers": "head"})
    assert layers_with_backward(top) == 3
    assert layers_with_backward(head) == 0
    assert stored_bytes(head) == 0


def test_virtual_tokens_lengthen_every_row() -> None:
    prompt = setup("mistral-7b", "prompt_tuning", rows=2, tokens=100, settings={"num_virtual_tokens": 20})
    assert prompt.batch_tokens == 240


def test_the_parts_add_up_to_what_the_card_must_hold() -> None:
    parts = memory_parts(setup("qwen-7b", rows=4))
    assert sum(parts.to_json().values()) == pytest.approx(parts.device)
    assert parts.allocated + parts.context + parts.fragmentation == pytest.approx(parts.device)


@pytest.mark.parametrize("kind", ["lora", "bottleneck", "prompt_tuning", "full"])
def test_more_rows_longer_rows_and_no_checkpointing_never_take_less(kind: str) -> None:
    def peak(**more: Any) -> float:
        return memory_parts(setup("smollm2-1.7b", kind, **more)).allocated

    assert peak(rows=1) <= peak(rows=2) <= peak(rows=2, tokens=1024)
    assert peak(rows=2, checkpointing=True) <= peak(rows=2)


def test_accumulated_gradients_stand_beside_the_loss() -> None:
    once, twice = (setup("smollm2-135m", "full", rows=8, accumulation=n) for n in (1, 2))
    assert memory_parts(twice).allocated >= memory_parts(once).allocated


def test_the_largest_micro_batch_fits_and_twice_as_many_do_not() -> None:
    gpu, bare = find_gpu("a10"), setup("qwen2.5-1.5b")
    most = largest_micro_batch(bare, gpu)
    assert fits(memory_parts(replace(bare, micro_batch=most)), gpu)
    assert not fits(memory_parts(replace(bare, micro_batch=2 * most)), gpu)


def test_a_model_too_large_for_the_card_has_no_micro_batch() -> None:
    assert largest_micro_batch(setup("qwen-7b"), find_gpu("t4")) == 0


def test_a_part_is_named_once() -> None:
    assert set(memory_parts(setup("bge-large-zh")).to_json()) == set(MemoryParts.__slots__)
