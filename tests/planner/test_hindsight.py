"""After a run: predicted beside actual, and the reason where they part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.planner_setups import setup

from tunedeck.comparison import hindsight
from tunedeck.core.measurement import Machine, Measurement, this_machine
from tunedeck.core.plan_shape import PlanShape
from tunedeck.methods.registry import config_of
from tunedeck.planner.cost import KEPT_S
from tunedeck.planner.hindsight import PredictedAndActual, compare_with_plan
from tunedeck.planner.machine import Calibration, CostModel, Profile, machine_card, plain_settings, write_profile
from tunedeck.planner.memory import Setup, memory_parts, trainable_parameters
from tunedeck.planner.processor import Processor, product_shape
from tunedeck.planner.throughput import forward_flops_per_token, training_flops_per_token
from tunedeck.planner.uncalibrated import FIRST_USE_S, WAITS_S, update_s
from tunedeck.training.config import run_config

MACHINE = Machine("Linux x86_64", "a processor", 2, 16 * 10**9)
RUN = Measurement(
    machine=MACHINE,
    device="cpu",
    dtype="bfloat16",
    model="bundled:all-minilm-l6-v2",
    method="lora",
    batch_size=32,
    steps=100,
    train_s=10.0,
    eval_s=1.0,
    step_s=0.1,
    examples_per_s=320.0,
    tokens_per_s=8960.0,
    padded_share=0.125,
    peak_memory_bytes=575_000_000,
    largest_batch_positions=32 * 48,
)


@pytest.fixture(autouse=True)
def _calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured here: a step of 0.1 s at the run's mean of 32 tokens a row, and 575 MB at its largest batch."""
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path))
    run = setup("all-minilm-l6-v2")
    law = Calibration(
        "all-minilm-l6-v2",
        "lora",
        plain_settings(run),
        "bfloat16",
        False,
        CostModel(0.0, 0.1 / 1024, 0.0),
        CostModel(500e6, 100e6 / 2048, 0.0),
        2e10,
        (),
    )
    write_profile(Profile(MACHINE, "2026-11-24T04:00:00", 9e10, 1e10, (law,)))


def compare(run: Measurement, **more: Any) -> dict[str, PredictedAndActual]:
    method = config_of("lora", more.pop("settings", {}))
    return {c.quantity: c for c in compare_with_plan(run, method, **{"shape": PlanShape(), "accumulation": 1, **more})}


def test_a_run_as_it_was_measured_has_no_reason() -> None:
    found = compare(RUN)
    assert found["time"].predicted.expected == pytest.approx(10.0)
    assert found["memory"].predicted.expected == pytest.approx(575e6)
    assert [c.reason for c in found.values()] == ["", ""]
    assert found["time"].to_json()["inside"]


def test_money_is_time_at_the_price() -> None:
    cost = compare(RUN, price_per_hour=36.0, currency="CNY")["cost"]
    assert (cost.actual, cost.unit) == (pytest.approx(0.1), "CNY")
    assert cost.predicted.expected == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changed", "quantity", "reason"),
    [
        ({"train_s": 20.0, "tokens_per_s": 4480.0}, "time", "some steps took far longer than most"),
        ({"train_s": 20.0, "tokens_per_s": 4480.0, "step_s": 0.2}, "time", "other programs were running"),
        ({"steps": 5, "train_s": 2.0, "tokens_per_s": 2240.0}, "time", "mostly first steps"),
        ({"peak_memory_bytes": 900_000_000}, "memory", "leave memory in pieces"),
        ({"peak_memory_bytes": 300_000_000}, "memory", "kept less between batches"),
    ],
)
def test_outside_its_band_a_value_has_the_likeliest_reason(changed: dict[str, Any], quantity: str, reason: str) -> None:
    assert reason in compare(replace(RUN, **changed))[quantity].reason


def test_what_was_not_measured_here_says_so() -> None:
    slow = replace(RUN, train_s=40.0, tokens_per_s=2240.0)
    assert "tunedeck plan --calibrate" in compare(slow, settings={"r": 64})["time"].reason


def test_on_a_card_its_formulae_are_used() -> None:
    on_card = replace(RUN, device="cuda:0", machine=replace(MACHINE, gpu="NVIDIA L40S", gpu_memory_bytes=48 * 10**9))
    found = compare(on_card)
    assert found["memory"].predicted.expected == pytest.approx(
        memory_parts(setup("all-minilm-l6-v2", rows=32, tokens=48)).allocated
    )
    assert found["time"].predicted.high / found["time"].predicted.low == pytest.approx(1.3 / 0.8)


@pytest.mark.parametrize("changed", [{"steps": 0}, {"model": "someone/unknown"}, {"largest_batch_positions": 0}])
def test_what_the_planner_cannot_know_is_not_compared(changed: dict[str, Any]) -> None:
    assert compare(replace(RUN, **changed)) == {}


def test_embeddings_are_planned_as_texts_without_a_head() -> None:
    pairs = replace(
        RUN,
        device="cuda:0",
        machine=replace(MACHINE, gpu="NVIDIA L40S"),
        texts_per_example=2.0,
        largest_batch_positions=64 * 40,
    )
    found = compare(pairs, shape=PlanShape(labels=0))
    as_texts = setup("all-minilm-l6-v2", rows=64, tokens=40, labels=0)
    assert found["memory"].predicted.expected == pytest.approx(memory_parts(as_texts).allocated)
    assert as_texts.head_parameters == 0
    assert trainable_parameters(as_texts) == as_texts.facts.parameters


def test_chunks_of_an_embedding_batch_take_less_memory_and_one_more_pass() -> None:
    whole, chunked = (setup("all-minilm-l6-v2", rows=256, tokens=32, labels=0, chunk=chunk) for chunk in (None, 32))
    few = setup("all-minilm-l6-v2", rows=32, tokens=32, labels=0)
    assert memory_parts(whole).activations > 7 * memory_parts(chunked).activations
    assert memory_parts(chunked).activations == pytest.approx(memory_parts(few).activations)
    # forward, backward through activations, and the forward again; LoRA's own products beside them
    extra = training_flops_per_token(chunked) - training_flops_per_token(whole)
    assert extra == pytest.approx(forward_flops_per_token(whole))
    assert training_flops_per_token(replace(few, chunk=32)) == training_flops_per_token(few)


def test_a_calibration_is_read_at_what_lies_in_memory_at_once() -> None:
    pairs = replace(RUN, batch_size=128, texts_per_example=2.0, largest_batch_positions=256 * 32, steps=25)
    whole, chunked = (compare(pairs, shape=PlanShape(labels=0, chunk=chunk)) for chunk in (None, 64))
    assert whole["memory"].predicted.expected == pytest.approx(500e6 + 100e6 * 4)
    assert chunked["memory"].predicted.expected == pytest.approx(500e6 + 100e6)
    assert 1.3 < chunked["time"].predicted.expected / whole["time"].predicted.expected < 1.5


def test_a_processor_that_was_never_measured_is_predicted_by_a_product_taken_now_and_says_so() -> None:
    elsewhere = replace(RUN, machine=replace(MACHINE, cpu="another"), dtype="float32")
    shapes = []

    def look(run: Setup) -> Processor:
        shapes.append(product_shape(run))
        return Processor(5e10, load=1.0)

    found = compare(elsewhere, processor=look)["time"]
    assert shapes == [(32 * 32, 384, 1536)]
    run = setup("all-minilm-l6-v2", rows=32, tokens=32, dtype="float32")
    card = machine_card(MACHINE, None)
    step_s = update_s(run, card, Processor(5e10, load=1.0))
    step_s += 6 * WAITS_S.expected * (card.cpu_cores > 1)
    assert found.predicted.expected == pytest.approx(100 * step_s + 2 * FIRST_USE_S.expected)
    assert "a matrix product timed just now: 50 GFLOP/s in float32, with 1.0 threads of other programs" in found.basis
    guessed = compare(elsewhere)["time"]
    assert "a guess of" in guessed.basis
    alone = compare(elsewhere, processor=lambda run: Processor(5e10, load=0.0))["time"].predicted
    assert guessed.predicted.high / guessed.predicted.low > alone.high / alone.low
    assert found.predicted.high > alone.high
    assert found.predicted.low == pytest.approx(alone.low)  # the other programs may end
    assert compare(RUN)["time"].basis == ""


def test_a_start_whose_vectors_were_kept_is_expected_without_a_pass_over_the_texts() -> None:
    elsewhere = replace(RUN, machine=replace(MACHINE, cpu="another"), dtype="float32", start_s=0.05)
    cold, kept = (compare(replace(elsewhere, start_kept=kept))["time"].predicted for kept in (False, True))
    without = compare(replace(elsewhere, start_s=0.0))["time"].predicted
    assert kept.expected == pytest.approx(without.expected + KEPT_S.expected)
    assert cold.expected > kept.expected + 10 * KEPT_S.expected


def test_a_start_takes_longer_the_more_is_held_out() -> None:
    elsewhere = replace(RUN, machine=replace(MACHINE, cpu="another"), dtype="float32", start_s=0.05)
    without, little, much = (
        compare(replace(elsewhere, evaluation_share=share))["time"].predicted.expected for share in (0.0, 0.1, 1.0)
    )
    assert much - without == pytest.approx(10 * (little - without))
    assert little > without


def test_the_product_is_timed_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hindsight, "_products_rate", lambda dtype, shape: 7e10)
    config = run_config({"model": RUN.model, "data": {"train": "x"}})
    here = replace(RUN, machine=this_machine())
    assert "70 GFLOP/s" in hindsight.predicted_and_actual(here, config)[1].basis
    assert (
        "a guess"
        in hindsight.predicted_and_actual(replace(here, machine=replace(here.machine, cpu="another")), config)[1].basis
    )
    write_profile(Profile(this_machine(), "2026-11-24T04:00:00", 9e10, 1e10, ()))
    assert hindsight.predicted_and_actual(here, config)[1].basis == ""
