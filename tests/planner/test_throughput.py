"""Time formulae: hand-computed floating-point operations and how a step behaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.planner_setups import setup

from tunedeck.planner.catalogue import find_gpu
from tunedeck.planner.memory import linear_parameters
from tunedeck.planner.throughput import (
    floor_s,
    forward_flops_per_token,
    micro_batch_s,
    optimizer_s,
    step_s,
    training_flops_per_token,
)

A100 = find_gpu("a100-80gb")


def test_a_forward_pass_costs_two_operations_a_weight_and_attention() -> None:
    mistral = setup("mistral-7b", tokens=4096)
    products = 2 * (linear_parameters(mistral.spec) + 32_000 * 4096)
    attention = 4 * 4096 * 4096 * 32 / 2  # causal
    assert forward_flops_per_token(mistral) == pytest.approx(products + attention)


@pytest.mark.parametrize(
    ("kind", "checkpointing", "passes"), [("full", False, 3), ("full", True, 4), ("lora", False, 2), ("lora", True, 3)]
)
def test_training_is_six_n_full_and_four_n_with_a_frozen_base_and_two_more_with_checkpointing(
    kind: str, checkpointing: bool, passes: int
) -> None:
    run = setup("mistral-7b", kind, checkpointing=checkpointing)
    assert training_flops_per_token(run) == pytest.approx(passes * forward_flops_per_token(run), rel=0.01)


def test_training_the_head_alone_costs_a_forward_pass() -> None:
    run = setup("bert-base-uncased", "full", settings={"layers": "head"})
    assert training_flops_per_token(run) == pytest.approx(forward_flops_per_token(run))


def test_short_micro_batches_cost_the_floor_and_long_ones_their_arithmetic() -> None:
    short, long, longer = (micro_batch_s(setup("qwen-7b", tokens=n), A100) for n in (16, 8192, 16384))
    assert short == pytest.approx(floor_s(setup("qwen-7b", tokens=16)), rel=0.01)
    assert longer / long > 1.95


def test_the_floor_of_four_bits_is_two_to_three_times_that_of_sixteen() -> None:
    plain = setup("qwen-7b", tokens=64)
    assert 2 <= floor_s(replace(plain, four_bit=True)) / floor_s(plain) <= 3


def test_accumulation_repeats_the_micro_batch_and_not_the_update() -> None:
    once = setup("qwen-7b", "full")
    four = replace(once, accumulation=4)
    update = optimizer_s(once, A100)
    assert step_s(four, A100) - update == pytest.approx(4 * (step_s(once, A100) - update))


def test_full_fine_tuning_pays_for_the_optimizers_traffic() -> None:
    # 60 bytes for each of 3.2 billion parameters at 864 GB/s; measured rows give 50 (PEFT) to 77 bytes
    assert optimizer_s(setup("llama-3.2-3b", "full"), find_gpu("l40s")) == pytest.approx(60 * 3_212_749_824 / 864e9)


def test_a_faster_card_is_faster() -> None:
    run = setup("qwen2.5-7b", rows=4)
    assert micro_batch_s(run, find_gpu("h100")) < micro_batch_s(run, A100) < micro_batch_s(run, find_gpu("t4"))
