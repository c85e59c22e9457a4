"""An uncalibrated CPU: each term by hand, and bands that widen with what is not known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.planner_setups import setup

from tunedeck.core.measurement import Machine
from tunedeck.planner import processor as processors
from tunedeck.planner import uncalibrated
from tunedeck.planner.cost import KEPT_S, SOLUTION_NUMBERS, SOLUTION_S, start_s
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.machine import machine_card, predict
from tunedeck.planner.memory import layer_bytes_per_token, memory_parts
from tunedeck.planner.processor import Processor, bfloat16_instructions, other_load, product_shape, usable_cores
from tunedeck.planner.throughput import (
    floor_s,
    forward_flops_per_token,
    optimizer_s,
    training_flops_per_token,
)
from tunedeck.planner.uncalibrated import (
    BESIDE_PRODUCTS,
    FIRST_USE_S,
    KERNEL_BYTES,
    PROCESS_BYTES,
    WAITS_S,
    band,
    first_use_s,
    process_bytes,
    update_s,
    waits_s,
)

MACHINE = Machine("Linux x86_64", "a processor", 2, 16 * 10**9)
QUIET, BUSY = Processor(6e10, load=0.0), Processor(3e10, load=3.0)


def test_an_update_is_its_products_what_goes_on_beside_them_its_layers_and_adamw() -> None:
    run = setup("all-minilm-l6-v2", rows=16, tokens=32, dtype="float32", accumulation=2)
    gpu = replace(machine_card(MACHINE, None), cpu_cores=2)
    products = 512 * training_flops_per_token(run) / 6e10
    beside = BESIDE_PRODUCTS * 512 * 6 * layer_bytes_per_token(run) / 6e10
    expected = 2 * (products + beside + floor_s(run)) + optimizer_s(run, gpu)
    assert update_s(run, gpu, QUIET) == pytest.approx(expected)
    faster = replace(QUIET, flops_per_s=6e13)  # however fast products are, layers are begun one by one
    assert update_s(run, gpu, faster) > 2 * floor_s(run)
    assert update_s(run, gpu, replace(QUIET, load=3.0)) == pytest.approx(2 * expected)


def test_beside_products_in_16_bits_the_rest_is_as_fast_as_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    run = setup("all-minilm-l6-v2", rows=16, tokens=32, dtype="bfloat16")
    gpu = replace(machine_card(MACHINE, None), cpu_cores=2)
    monkeypatch.setattr(uncalibrated, "bfloat16_gain", lambda dtype: 1.0)
    plain = update_s(run, gpu, QUIET)
    monkeypatch.setattr(uncalibrated, "bfloat16_gain", lambda dtype: 4.0)
    native = update_s(run, gpu, replace(QUIET, flops_per_s=2.4e11))
    saved = 512 * training_flops_per_token(run) * (1 / 6e10 - 1 / 2.4e11)
    assert native == pytest.approx(plain - saved)


def test_threads_wait_for_each_other_where_another_program_has_a_core() -> None:
    run = setup("all-minilm-l6-v2", rows=16, tokens=32, accumulation=2)
    two, one = (replace(machine_card(MACHINE, None), cpu_cores=cores) for cores in (2, 1))
    assert waits_s(run, two, replace(QUIET, load=0.2)).high == 0.0  # less than half a thread is noise
    assert waits_s(run, two, replace(QUIET, load=0.5)) == WAITS_S.scaled(2 * 6)
    assert waits_s(run, two, BUSY) == WAITS_S.scaled(2 * 6)  # another thread more is waited for no longer
    assert waits_s(run, one, BUSY).high == waits_s(run, two, None).high == 0.0
    busy, alone = (predict(None, "all-minilm-l6-v2", run, run, two, now).step_s for now in (BUSY, QUIET))
    assert busy.high > alone.high + WAITS_S.high


def test_layers_below_a_head_are_computed_in_the_first_epoch_alone() -> None:
    gpu = machine_card(MACHINE, None)
    once, often = (
        setup("all-minilm-l6-v2", "full", rows=16, tokens=32, settings={"layers": "head"}, epochs=epochs)
        for epochs in (1.0, 4.0)
    )
    assert training_flops_per_token(often) == pytest.approx(training_flops_per_token(once) / 4)
    assert update_s(often, gpu, QUIET) == pytest.approx(update_s(once, gpu, QUIET) / 4, rel=0.01)
    every = setup("all-minilm-l6-v2", rows=16, tokens=32, epochs=4.0)
    assert training_flops_per_token(every) == training_flops_per_token(replace(every, epochs=1.0))


def test_a_classifiers_start_is_a_forward_pass_over_all_examples_and_a_solution() -> None:
    lora = setup("all-minilm-l6-v2", rows=16, tokens=32, epochs=4.0)
    share = forward_flops_per_token(lora) / training_flops_per_token(lora)
    assert 0.4 < share < 0.5  # of forward, backward through activations, and LoRA's own products
    step = Estimate.exactly(2.0)
    solution = SOLUTION_S.scaled(1 + 160 * 2 * 384 / SOLUTION_NUMBERS)
    found = start_s(lora, step, 40, QUIET)
    assert found.expected == pytest.approx(10 * share * 2.0 + solution.expected)
    assert start_s(lora, step, 40, BUSY).expected == pytest.approx(found.expected + 3 * solution.expected)
    more = start_s(lora, step, 40, QUIET, evaluation_share=20.0)
    assert more.expected == pytest.approx(10 * share * 2.0 * 21 + solution.expected)
    head = setup("all-minilm-l6-v2", "full", rows=16, tokens=32, settings={"layers": "head"}, epochs=4.0)
    gpu = machine_card(MACHINE, None)
    one_epoch = 10 * update_s(replace(head, epochs=1.0), gpu, QUIET)
    started = start_s(head, Estimate.exactly(update_s(head, gpu, QUIET)), 40, QUIET)
    assert started.expected == pytest.approx(one_epoch + solution.expected, rel=0.01)


def test_a_solution_takes_longer_for_more_labels_and_for_examples_up_to_those_of_the_cross_validation() -> None:
    run = setup("all-minilm-l6-v2", rows=16, tokens=32)
    nothing = Estimate.exactly(0.0)
    two, twenty = (start_s(replace(run, labels=labels), nothing, 40, QUIET).expected for labels in (2, 20))
    assert (twenty - SOLUTION_S.expected) == pytest.approx(10 * (two - SOLUTION_S.expected))
    many, more = (start_s(run, nothing, steps, QUIET) for steps in (400, 4000))
    assert many == more


def test_a_start_that_an_earlier_run_left_on_disk_takes_next_to_nothing() -> None:
    run = setup("all-minilm-l6-v2", rows=16, tokens=32)
    assert start_s(run, Estimate.exactly(2.0), 40, QUIET, kept=True) == KEPT_S


def test_memory_counts_the_process_and_in_16_bits_the_kernels() -> None:
    for dtype, kernels in (("float32", 0.0), ("bfloat16", KERNEL_BYTES[True])):
        run = setup("all-minilm-l6-v2", rows=16, tokens=32, dtype=dtype)
        found = predict(None, "all-minilm-l6-v2", run, run, machine_card(MACHINE, None), QUIET)
        assert found.parts.context == PROCESS_BYTES + kernels
        assert process_bytes(replace(run, data_tokens=1e6)) == PROCESS_BYTES + kernels + 48e6
        assert found.memory_bytes.expected == pytest.approx(memory_parts(run).allocated + PROCESS_BYTES + kernels)
    head = setup("all-minilm-l6-v2", "full", rows=16, tokens=32, settings={"layers": "head"}, dtype="bfloat16")
    assert process_bytes(head) == PROCESS_BYTES + KERNEL_BYTES[False]


def test_the_busier_the_machine_the_wider_the_band() -> None:
    (low, high), (busy_low, busy_high), (guess_low, guess_high) = map(band, (QUIET, BUSY, None))
    assert (busy_low, busy_high) == (pytest.approx(low / 2), pytest.approx(high * 2))
    assert guess_high / guess_low > high / low


def test_first_steps_matter_to_short_runs_and_more_where_kernels_are_built_for_each_length() -> None:
    plain, bfloat = (setup("all-minilm-l6-v2", tokens=64, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert first_use_s(plain, QUIET) == FIRST_USE_S
    assert first_use_s(bfloat, QUIET).expected == pytest.approx(0.1 + 8 * 0.01)  # eight lengths up to 64
    assert first_use_s(plain, BUSY).high == pytest.approx(4 * FIRST_USE_S.high)
    assert first_use_s(plain, BUSY).low == FIRST_USE_S.low


def test_the_load_of_others_is_the_threads_that_run_besides_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(processors, "LOOK_S", 0.0)
    monkeypatch.setattr(Path, "read_text", lambda self, **more: "cpu 1 2 3\nprocs_running 4\nprocs_blocked 0\n")
    assert other_load() == 1.5
    monkeypatch.setattr(Path, "read_text", lambda self, **more: "procs_running 1\n")
    assert other_load() == 0.0


def test_where_threads_are_not_counted_the_load_is_the_average_without_ones_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processors, "running_threads", lambda: None)
    monkeypatch.setattr("os.getloadavg", lambda: (3.0, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(processors, "usable_cores", lambda: 2)
    assert other_load() == 1.5
    assert other_load(60.0) == pytest.approx((3 - 2 * 0.6321) / 2, abs=1e-3)  # 1 - 1/e of two own threads
    assert other_load(3600.0) == pytest.approx(0.5)
    monkeypatch.setattr("os.getloadavg", lambda: (1.0, 0.0, 0.0))
    assert other_load(3600.0) == 0.0


def test_threads_are_those_of_openmp_where_they_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert usable_cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    assert usable_cores() < 1000


def test_a_timed_product_has_the_shape_of_the_run_and_is_never_large() -> None:
    assert product_shape(setup("all-minilm-l6-v2", rows=4, tokens=32)) == (128, 384, 1536)
    assert product_shape(setup("qwen-7b", rows=64, tokens=512)) == (1024, 1024, 2048)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx2 fma", None),
        ("flags : fpu avx2 avx512f avx512_bf16", "avx512_bf16"),
        ("flags : fpu avx512_bf16 amx_bf16 amx_tile", "amx_bf16"),
    ],
)
def test_the_fastest_bfloat16_is_read_from_the_processors_flags(
    flags: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self, **more: f"model name : a processor\n{flags}\n")
    assert bfloat16_instructions.__wrapped__() == expected
