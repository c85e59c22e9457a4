"""What was measured on a machine: cost models through points, profiles kept and found again, predictions from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.planner_setups import setup

from tunedeck.core.measurement import Machine
from tunedeck.planner.machine import (
    Calibration,
    CostModel,
    Profile,
    fit_cost_model,
    machine_card,
    plain_settings,
    predict,
    profile_path,
    read_profile,
    write_profile,
)

MACHINE = Machine("Linux x86_64", "a processor", 2, 16 * 10**9)
POINTS = ((8, 16), (32, 16), (16, 64), (32, 64), (32, 128))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path))


def calibrated() -> Profile:
    law = CostModel(0.01, 1e-4, 1e-7)
    run = setup("all-minilm-l6-v2")
    calibration = Calibration(
        "all-minilm-l6-v2",
        "lora",
        plain_settings(run),
        "bfloat16",
        False,
        law,
        CostModel(5e8, 1e5, 0.0),
        2e10,
        ((8, 16, 0.02, 5e8),),
    )
    return Profile(MACHINE, "2026-11-24T04:00:00", 9e10, 1e10, (calibration,))


@pytest.mark.parametrize("law", [CostModel(0.01, 1e-4, 1e-7), CostModel(0.0, 2e-4, 0.0), CostModel(5e8, 0.0, 30.0)])
def test_points_on_a_law_give_the_law_back(law: CostModel) -> None:
    found = fit_cost_model(
        [(r, s, law.constant + law.per_token * r * s + law.per_score * r * s * s) for r, s in POINTS]
    )
    rounding = 1e-12 * max(1.0, law.constant)
    for name in ("constant", "per_token", "per_score"):
        assert getattr(found, name) == pytest.approx(getattr(law, name), rel=1e-6, abs=rounding)


def test_noise_never_makes_a_coefficient_negative() -> None:
    found = fit_cost_model([(r, s, value) for (r, s), value in zip(POINTS, (3.0, 2.0, 4.0, 3.5, 9.0), strict=True)])
    assert min(found.constant, found.per_token, found.per_score) >= 0


def test_a_profile_is_read_back_as_it_was_written_and_belongs_to_its_machine() -> None:
    write_profile(calibrated())
    assert read_profile(MACHINE) == calibrated()
    assert read_profile(replace(MACHINE, cpu_cores=4)) is None


def test_a_damaged_profile_counts_as_none() -> None:
    path = profile_path(MACHINE)
    path.parent.mkdir(parents=True)
    path.write_text('{"machine": {}}')
    assert read_profile(MACHINE) is None


def test_a_new_calibration_replaces_the_old_one_of_the_same_settings() -> None:
    profile = calibrated()
    again = replace(profile.calibrations[0], flops_per_s=3e10)
    other = replace(profile.calibrations[0], method="full", settings={})
    assert profile.add(again).calibrations == (again,)
    assert len(profile.add(other).calibrations) == 2


def test_a_measured_model_and_method_are_predicted_by_their_law_tightly() -> None:
    run = setup("all-minilm-l6-v2", rows=16, tokens=32)
    found = predict(calibrated(), "all-minilm-l6-v2", run, run, machine_card(MACHINE, calibrated()))
    assert found.exact
    assert found.step_s.expected == pytest.approx(0.01 + 1e-4 * 512 + 1e-7 * 512 * 32)
    assert found.step_s.high / found.step_s.expected == pytest.approx(1.15)
    assert found.memory_bytes.expected == pytest.approx(5e8 + 1e5 * 512)
    assert found.parts.device == pytest.approx(found.memory_bytes.expected)


def test_large_batches_take_the_memory_of_the_pieces_they_are_cut_into() -> None:
    profile, card = calibrated(), machine_card(MACHINE, calibrated())
    whole, piece = (setup("all-minilm-l6-v2", rows=rows, tokens=128) for rows in (36, 12))
    found, of_piece = (predict(profile, "all-minilm-l6-v2", run, run, card) for run in (whole, piece))
    assert found.memory_bytes == of_piece.memory_bytes
    assert found.step_s.expected > 2 * of_piece.step_s.expected
    texts = (replace(run, labels=0) for run in (whole, piece))  # embeddings: contrasted whole
    most, least = (predict(profile, "all-minilm-l6-v2", run, run, card).memory_bytes.expected for run in texts)
    assert most > least


def test_other_settings_of_a_measured_method_are_predicted_with_a_wider_band() -> None:
    run = setup("all-minilm-l6-v2", rows=16, tokens=32, settings={"r": 64})
    found = predict(calibrated(), "all-minilm-l6-v2", run, run, machine_card(MACHINE, calibrated()))
    assert not found.exact
    assert found.step_s.high / found.step_s.expected == pytest.approx(1.7)


def test_another_model_is_predicted_by_the_arithmetic_the_machine_reached() -> None:
    run = setup("bert-base-uncased", rows=16, tokens=32)
    found = predict(calibrated(), "bert-base-uncased", run, run, machine_card(MACHINE, calibrated()))
    nobody = predict(None, "bert-base-uncased", run, run, machine_card(MACHINE, None))
    assert not found.exact
    assert nobody.step_s.high / nobody.step_s.low > found.step_s.high / found.step_s.low
