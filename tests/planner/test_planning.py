"""`td.plan` and `td.deploy_cost`: what the commands do, from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.core.run_length import default_epochs, steps_per_epoch, total_steps
from tunedeck.training.config import TrainingSettings, run_config


def test_a_plan_recommends_one_of_its_rows() -> None:
    plan = td.plan("qwen-7b", samples=10_000, tokens=512, gpus="t4", methods=["lora", "qlora"])
    assert [row.method for row in plan.rows] == ["qlora", "lora"]
    assert plan.recommendation is not None
    assert plan.recommendation.row is plan.rows[0]
    assert plan.to_json()["recommendation"]["row"] == 0
    assert plan.changes() == []


def test_settings_count_for_the_methods_that_have_them() -> None:
    plan = td.plan("qwen-7b", samples=10, gpus=["a100"], methods="lora,full", settings={"r": 64})
    methods = {row.method: row.setup.method for row in plan.rows}
    assert methods == {"lora": td.LoraConfig(r=64), "full": td.FullConfig()}


def test_where_nothing_fits_the_changes_and_no_run_are_given() -> None:
    plan = td.plan("llama-3.1-8b", samples=100, tokens=4096, methods="lora", gpus="a10")
    assert plan.recommendation is None
    assert "--method qlora --micro-batch 1 --gradient-checkpointing" in [change.flags for change in plan.changes()]
    with pytest.raises(ConfigError, match="there is no run to write"):
        plan.run_values()


def test_the_values_of_the_recommended_run_are_a_run_file(tmp_path: Path) -> None:
    data = tmp_path / "train.csv"
    data.write_text("text,label\n" + "\n".join(f"text {n},{n % 2}" for n in range(40)))
    plan = td.plan("bundled:all-minilm-l6-v2", str(data), gpus="t4", methods="lora", gradient_checkpointing=True)
    assert plan.request.workload.samples == 36  # of 40 different texts, a tenth held out
    config = run_config(plan.run_values())
    assert config.model == "bundled:all-minilm-l6-v2"
    assert config.training.gradient_checkpointing is True
    assert config.training.gradient_accumulation_steps == 1


def test_a_deadline_is_hours_or_text() -> None:
    hours = [td.plan("qwen-7b", samples=10, gpus="t4", deadline=text).request.deadline_h for text in (6, "6h", "360m")]
    assert hours == [6.0, 6.0, 6.0]


def test_a_deployment_names_its_cheapest_row() -> None:
    found = td.deploy_cost("qwen2.5-7b", adapters=20, rate=2, gpus="a10")
    assert found.cheapest is found.rows[0]
    assert found.service.output_tokens == 128
    pays = found.to_json(training_cost=30)["cheapest"]
    assert pays["training_break_even_days"] == pytest.approx(30 / (found.rows[0].month.expected * 12 / 365), rel=0.01)
    assert td.deploy_cost("bge-large-zh", gpus="cpu").service.output_tokens == 0
    with pytest.raises(ConfigError, match="rate must be above 0, got -1"):
        td.deploy_cost("qwen-7b", rate=-1)


@pytest.mark.parametrize("samples", [10, 300, 10_000])
def test_without_epochs_a_plan_takes_the_steps_of_a_training_run(samples: int) -> None:
    plan = td.plan("bundled:all-minilm-l6-v2", samples=samples, tokens=32, gpus="t4", methods="lora")
    settings = TrainingSettings()
    per_epoch = steps_per_epoch(samples, settings.batch_size, settings.gradient_accumulation_steps)
    assert plan.request.workload.epochs == default_epochs(per_epoch)
    assert round(plan.request.workload.epochs * per_epoch) == total_steps(settings.epochs, per_epoch)
