"""Deployments: what cards hold, what they answer, what it costs; against hand-computed numbers and measured rates."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from tunedeck.core.errors import ConfigError
from tunedeck.planner.catalogue import find_gpu
from tunedeck.planner.deploy import (
    DeployRow,
    cards_needed,
    cost_per_1000,
    deploy_rows,
    even_hours_per_day,
    even_requests_per_day,
    training_days,
)
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.prices import Offer
from tunedeck.planner.serving import (
    PlannedService,
    best_at_once,
    request_s,
    requests_per_s,
    served_bytes,
    slots,
    step_s,
)

QWEN = PlannedService(find_planned_model("qwen2.5-7b").spec, 20, 40_370_176, 256, 128, None)
BGE = PlannedService(find_planned_model("bge-large-zh").spec, 1, 0, 128, 0, None)


def row(service: PlannedService, gpu: str, rate: float | None = None) -> DeployRow:
    """On a GPU at 6 CNY an hour or 4,000 a month, which is less than 730 hours."""
    prices = Estimate.exactly(6.0), Estimate.exactly(4000.0)
    return deploy_rows(
        service, rate, [Offer(find_gpu(gpu), *prices, "CNY", "on-demand", "2026-01-01", "a test", "test")]
    )[0]


def test_served_weights_are_two_bytes_each_and_adapters_beside_them() -> None:
    assert served_bytes(replace(QWEN, adapters=0), "16-bit") == 2 * 7_615_616_512
    assert served_bytes(QWEN, "16-bit") - served_bytes(replace(QWEN, adapters=0), "16-bit") == 20 * 2 * 40_370_176


def test_sixteen_bits_of_a_seven_billion_model_leave_a_t4_no_room_and_four_bits_do() -> None:
    assert slots(QWEN, find_gpu("t4"), "16-bit") == 0
    assert slots(QWEN, find_gpu("t4"), "4-bit") > 10


def test_more_requests_at_once_take_longer_each_and_answer_more_in_all() -> None:
    gpu = find_gpu("a100")
    times = [request_s(QWEN, gpu, "16-bit", n) for n in (1, 8, 64)]
    rates = [n / t for n, t in zip((1, 8, 64), times, strict=True)]
    assert times == sorted(times)
    assert rates == sorted(rates)


def test_a_latency_target_is_kept_by_the_largest_number_that_keeps_it() -> None:
    gpu = find_gpu("a100")
    target = replace(QWEN, latency_s=3.0)
    most = best_at_once(target, gpu, "16-bit")
    assert request_s(target, gpu, "16-bit", most) <= 3.0 < request_s(target, gpu, "16-bit", most + 1)
    assert best_at_once(replace(QWEN, latency_s=0.01), gpu, "16-bit") == 0


def test_cards_are_counted_at_seventy_percent_of_their_capacity() -> None:
    assert [cards_needed(rate, 10.0) for rate in (None, 1.0, 7.0, 7.1, 70.0)] == [1, 1, 1, 2, 10]
    assert cards_needed(1.0, 0.0) == 0


def test_a_month_its_requests_and_its_tokens_fit_together() -> None:
    found = row(QWEN, "a10", rate=2.0)
    requests = 2.0 * 730 * 3600
    assert found.cards == 1
    assert found.month.expected == 4000
    assert found.per_1000 is not None
    assert found.per_1000.expected == pytest.approx(4000 / requests * 1000)
    assert found.per_million_tokens is not None
    assert found.per_million_tokens.expected == pytest.approx(4000 / (requests * 384) * 1e6)
    assert cost_per_1000(found, 2.0) == pytest.approx(found.per_1000.expected)
    assert cost_per_1000(found, 0.2) == pytest.approx(10 * found.per_1000.expected)


def test_one_base_with_twenty_adapters_costs_a_twentieth_of_twenty_deployments() -> None:
    found = row(QWEN, "a10", rate=2.0)
    assert found.separate_cards == 20
    assert found.separate_month.expected == pytest.approx(20 * found.month.expected)


def test_break_even_points_are_where_both_sides_cost_the_same() -> None:
    found = row(QWEN, "a10", rate=2.0)
    day = found.month.expected * 24 / 730
    assert training_days(found, day * 3) == pytest.approx(3)
    requests = even_requests_per_day(found, QWEN, 2.0)
    assert requests * 384 / 1e6 * 2.0 == pytest.approx(day)
    assert math.isinf(even_requests_per_day(found, QWEN, 0.001))
    assert even_hours_per_day(found, day / 24) == pytest.approx(24)


@pytest.mark.parametrize(
    ("gpu", "model", "precision", "measured"),
    [
        ("a100", "qwen2.5-7b", "16-bit", 84.3),
        ("a100", "qwen2.5-7b", "4-bit", 154.1),
        ("a100-40", "llama-3.1-8b", "16-bit", 75),
        ("t4", "mistral-7b", "4-bit", 34),
    ],
)
def test_single_request_rates_lie_within_the_band_of_published_ones(
    gpu: str, model: str, precision: Literal["16-bit", "4-bit"], measured: float
) -> None:
    service = PlannedService(find_planned_model(model).spec, 0, 0, 32, 128, None)
    assert 0.65 < measured * step_s(service, find_gpu(gpu), precision, 1) < 1.4


def test_an_encoder_on_a_rented_cpu_answers_what_was_measured_per_core() -> None:
    base = PlannedService(find_planned_model("roberta-base").spec, 1, 0, 128, 0, None)
    assert requests_per_s(base, find_gpu("cpu"), "int8") == pytest.approx(15.4 * 8 / 2 * 0.8, rel=0.15)


def test_an_encoder_does_not_decode() -> None:
    found = row(BGE, "t4")
    assert found.single_tokens_per_s == 0
    assert found.precision == "16-bit"
    assert row(BGE, "cpu").precision == "int8"


def test_absurd_services_are_refused() -> None:
    with pytest.raises(ConfigError, match="--input-tokens must be 1 or more, got 0"):
        replace(QWEN, input_tokens=0)
    with pytest.raises(ConfigError, match="--adapters must be 0 or more, got -1"):
        replace(QWEN, adapters=-1)


@pytest.mark.figures
def test_the_figure_is_drawn_for_what_fits_and_refused_for_nothing(tmp_path: Path) -> None:
    from tunedeck.planner.deploy_figure import draw

    rows = [row(QWEN, name) for name in ("t4", "a10", "a100")]
    draw(tmp_path / "new" / "cost.png", rows, QWEN, 2.0, "title")
    assert (tmp_path / "new" / "cost.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="no figure to draw"):
        draw(tmp_path / "x.png", [row(replace(QWEN, latency_s=1e-3), "a10")], QWEN, None, "title")
