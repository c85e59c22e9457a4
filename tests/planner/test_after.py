"""After a run: predicted beside actual, and the reason where they part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plans import setup

from tunedeck.core.measurement import Machine, Measurement
from tunedeck.methods.registry import config_of
from tunedeck.planner.after import Comparison, compare_with_plan
from tunedeck.planner.machine import Calibration, Law, Profile, plain_settings, write_profile
from tunedeck.planner.memory import memory_parts

MACHINE = Machine("Linux x86_64", "a processor", 2, 16 * 10**9)
RUN = Measurement(
    machine=MACHINE, device="cpu", dtype="bfloat16", model="bundled:all-minilm-l6-v2", method="lora", batch_size=32, steps=100,
    train_s=10.0, eval_s=1.0, step_s=0.1, examples_per_s=320.0, tokens_per_s=8960.0, padded_share=0.125, peak_memory_bytes=600_000_000,
    largest_batch_positions=32 * 64,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured here: a step of 0.1 s at the run's mean of 32 tokens a row, and 600 MB at its largest batch."""
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path))
    run = setup("all-minilm-l6-v2")
    law = Calibration("all-minilm-l6-v2", "lora", plain_settings(run), "bfloat16", False, Law(0.0, 0.1 / 1024, 0.0),
                      Law(500e6, 100e6 / 2048, 0.0), 2e10, ())  # fmt: skip
    write_profile(Profile(MACHINE, "2026-11-24T04:00:00", 9e10, 1e10, (law,)))


def compare(run: Measurement, **more: Any) -> dict[str, Comparison]:
    method = config_of("lora", more.pop("settings", {}))
    return {c.quantity: c for c in compare_with_plan(run, method, generate=False, accumulation=1, **more)}


def test_a_run_as_it_was_measured_has_no_reason() -> None:
    found = compare(RUN)
    assert found["time"].predicted.expected == pytest.approx(10.0)
    assert found["memory"].predicted.expected == pytest.approx(600e6)
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
    assert "tunedeck plan --measured" in compare(slow, settings={"r": 64})["time"].reason


def test_on_a_card_its_formulae_are_used() -> None:
    on_card = replace(RUN, device="cuda:0", machine=replace(MACHINE, gpu="NVIDIA L40S", gpu_memory_bytes=48 * 10**9))
    found = compare(on_card)
    assert found["memory"].predicted.expected == pytest.approx(
        memory_parts(setup("all-minilm-l6-v2", rows=32, tokens=64)).allocated
    )
    assert found["time"].predicted.high / found["time"].predicted.low == pytest.approx(1.3 / 0.8)


@pytest.mark.parametrize("changed", [{"steps": 0}, {"model": "someone/unknown"}, {"largest_batch_positions": 0}])
def test_what_the_planner_cannot_know_is_not_compared(changed: dict[str, Any]) -> None:
    assert compare(replace(RUN, **changed)) == {}
