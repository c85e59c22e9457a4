"""Plans: rows, their order, the recommendation, and what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.planner_setups import WORK, wish

from tunedeck.core.errors import ConfigError, DataError, TargetError
from tunedeck.methods.registry import config_of
from tunedeck.planner.advice import changes, recommend
from tunedeck.planner.catalogue import all_gpus, find_gpu
from tunedeck.planner.estimate import Estimate
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.plan import PlanRequest, PlanRow, make_plan
from tunedeck.planner.prices import Offer, read_prices
from tunedeck.planner.workload import Workload, estimated_tokens, workload_of_texts

OFFER = Offer(find_gpu("a10"), Estimate.exactly(6.0), None, "CNY", "spot", "2026-01-01", "a letter", "test")


def rows_of(asked: PlanRequest, *gpus: str) -> list[PlanRow]:
    book = read_prices()
    return make_plan(asked, [book.convert(offer, "CNY") for name in gpus for offer in book.offers_of(find_gpu(name))])


def test_a_seven_billion_model_in_sixteen_bits_fits_no_t4_and_in_four_bits_does() -> None:
    found = {row.method: row.fits for row in rows_of(wish("qwen-7b", "lora", "qlora"), "t4")}
    assert found == {"lora": False, "qlora": True}


def test_what_fits_comes_first_and_the_cheapest_on_top() -> None:
    rows = rows_of(wish("qwen-7b", "lora", "qlora", "full"), "t4", "a10", "a100", "h100")
    fitting = [row.fits for row in rows]
    costs = [row.cost.expected for row in rows if row.fits]
    assert fitting == sorted(fitting, reverse=True)
    assert costs == sorted(costs)


def test_every_estimate_has_low_expected_and_high_in_order() -> None:
    for row in rows_of(wish("minicpm-2b", "lora", "full"), "t4", "a100"):
        values = row.to_json()
        for name in ("peak_allocated_bytes", "peak_device_bytes", "tokens_per_s", "step_s", "hours", "cost"):
            assert 0 < values[name]["low"] <= values[name]["expected"] <= values[name]["high"]


def test_a_row_in_json_holds_the_setup_the_estimates_and_the_source_of_the_price() -> None:
    values = make_plan(wish("qwen-7b", "qlora"), [OFFER])[0].to_json()
    assert {
        "model",
        "method",
        "gpu",
        "fits",
        "micro_batch",
        "peak_allocated_bytes",
        "peak_device_bytes",
        "memory_parts_bytes",
        "tokens_per_s",
        "step_s",
        "hours",
        "cost",
    } <= set(values)
    assert values["price"] == {"list": "test", "billing": "spot", "source": "a letter", "date": "2026-01-01"}
    assert sum(values["memory_parts_bytes"].values()) == pytest.approx(values["peak_device_bytes"]["expected"])


def test_the_run_takes_its_steps_and_costs_its_hours() -> None:
    row = make_plan(wish("qwen-7b", "qlora", micro_batch=4, accumulation=8), [OFFER])[0]
    assert row.steps == 936  # 312 updates of eight batches of 4 in each of three epochs, as training counts them
    assert row.hours.train.expected == pytest.approx(936 * row.step_s.expected)
    assert row.cost.expected == pytest.approx(6 * row.hours.total_h.expected)
    assert row.hours.total_h.expected > row.hours.train.expected / 3600


def test_a_classifiers_start_is_planned_with_what_is_held_out() -> None:
    none, much, more = (
        rows_of(wish("all-minilm-l6-v2", work=replace(WORK, evaluation_share=share)), "a10")[0].hours.train.expected
        for share in (0.0, 1.0, 2.0)
    )
    assert more - much == pytest.approx(much - none)
    assert much > none


def test_the_longest_batch_sets_the_peak_and_the_mean_the_time() -> None:
    even = rows_of(wish("qwen2.5-1.5b", micro_batch=4), "a10")[0]
    uneven = rows_of(wish("qwen2.5-1.5b", micro_batch=4, work=replace(WORK, mean_tokens=128.0)), "a10")[0]
    assert uneven.parts == even.parts
    assert uneven.step_s.expected < even.step_s.expected


def test_a_tight_budget_or_deadline_sends_rows_down_without_hiding_them() -> None:
    plain = rows_of(wish("qwen-7b", "lora", "qlora"), "a10", "h100")
    cheap = min(row.cost.expected for row in plain)
    rows = rows_of(wish("qwen-7b", "lora", "qlora", budget=1.01 * cheap), "a10", "h100")
    assert len(rows) == len(plain)
    assert [row.within for row in rows].index(False) == sum(row.within for row in rows)
    fast = rows_of(wish("qwen-7b", "lora", deadline_h=1.0), "a10", "h100")
    assert {row.offer.gpu.name for row in fast if row.within} == {"h100-80gb"}


def test_bottleneck_is_left_out_where_it_has_no_sites_and_refused_when_it_is_all_there_is() -> None:
    assert {row.method for row in rows_of(wish("qwen-7b", "lora", "bottleneck"), "a100")} == {"lora"}
    with pytest.raises(TargetError, match="bottleneck adapters are not supported"):
        rows_of(wish("qwen-7b", "bottleneck"), "a100")


def test_target_modules_that_match_nothing_are_refused() -> None:
    methods = {"lora": config_of("lora", {"target_modules": ["q_projj"]}), "full": config_of("full", {})}
    with pytest.raises(TargetError, match="'q_projj' matches no linear layer"):
        rows_of(replace(wish("qwen2.5-7b"), methods=methods), "a100")


def test_old_cards_are_counted_in_float16_and_the_plan_says_so() -> None:
    row = rows_of(wish("minicpm-2b", attention="flash"), "t4")[0]
    assert (row.setup.dtype, row.setup.attention) == ("float16", "sdpa")
    assert row.notes == ("float16-instead-of-bfloat16", "no-flash-attention")


def test_four_bits_on_a_p100_fit_and_are_never_recommended() -> None:
    rows = rows_of(wish("qwen-7b", "qlora"), "p100")
    assert rows[0].fits
    assert {"no-tensor-cores", "four-bit-unsupported"} <= set(rows[0].notes)
    assert recommend(rows) is None


def test_lora_is_recommended_where_it_fits_within_what_was_set() -> None:
    found = recommend(rows_of(wish("minicpm-2b", "prompt_tuning", "lora", "full"), "a10", "a100"))
    assert found is not None
    assert (found.row.method, found.reason) == ("lora", "default")


def test_qlora_is_recommended_where_lora_does_not_fit() -> None:
    found = recommend(rows_of(wish("qwen-7b", "lora", "qlora"), "t4"))
    assert found is not None
    assert (found.row.method, found.reason) == ("qlora", "only-this-fits")


def test_nothing_is_recommended_beyond_the_budget() -> None:
    assert recommend(rows_of(wish("qwen-7b", "lora", budget=0.01), "a100")) is None


def test_where_nothing_fits_each_change_named_does_what_it_says() -> None:
    long = wish("llama-3.1-8b", work=replace(WORK, mean_tokens=4096.0, longest_tokens=4096))
    row = rows_of(replace(long, loss="eager"), "a10")[0]
    found = {change.flags for change in changes(row, list(all_gpus().values()))}
    assert not row.fits
    assert "--micro-batch 1 --gradient-checkpointing --loss chunked" in found
    assert "--method qlora --micro-batch 1 --gradient-checkpointing" in found
    assert any(flags.startswith("--gpu ") for flags in found)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"samples": 0}, "samples must be above 0"), ({"epochs": -1.0}, "epochs"), ({"longest_tokens": 10**9}, "tokens")],
)
def test_absurd_numbers_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(WORK, **changed)


def test_lengths_of_texts_are_estimated_by_their_script() -> None:
    assert estimated_tokens("a" * 40, causal=True) == 2 + 10
    assert estimated_tokens("微调" * 10, causal=False) == 2 + 20
    assert estimated_tokens("微调" * 10, causal=True) == 2 + 14


def test_a_workload_of_texts_knows_its_mean_and_its_longest() -> None:
    model = find_planned_model("bge-large-zh")
    work = workload_of_texts(["a" * 40] * 9 + ["a" * 4000], "texts", model, 2, None)
    assert (work.samples, work.longest_tokens, work.counted) == (9, 512, False)  # 512 is the model's own limit
    assert work.mean_tokens < 100
    assert workload_of_texts(["a" * 4000], "texts", model, 2, 64).longest_tokens == 64
    with pytest.raises(DataError, match="holds no texts"):
        workload_of_texts(["", " "], "empty.csv", model, 2, None)


def test_estimated_lengths_widen_the_estimate() -> None:
    counted = rows_of(wish("minicpm-2b"), "a10")[0].step_s
    guessed = rows_of(wish("minicpm-2b", work=Workload(10_000, 3.0, 512.0, 512, 0.1, "x", counted=False)), "a10")[
        0
    ].step_s
    assert guessed.high / guessed.low > counted.high / counted.low
