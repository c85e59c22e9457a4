"""`tunedeck plan` and `tunedeck deploy-cost`, as a person or a program uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.command_line import Command

import tunedeck as td

PLAN = ("plan", "--model", "qwen-7b", "--samples", "10000", "--tokens", "512")
PRICES = """
[[price]]
gpu = "a10"
price = 6
month = 4000
currency = "CNY"
date = "2020-01-01"
source = "an old letter"

[[price]]
gpu = "a100-80gb"
price = 25
currency = "CNY"

[[price]]
gpu = "a100-80gb"
price = 12
currency = "CNY"
billing = "spot"
"""
WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "accelerate", "datasets", "safetensors"):
    sys.modules[name] = None  # importing it raises
from tunedeck.cli.main import main
main()
"""


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """One offer of the A10 and two of the A100, so that no test depends on a market."""
    path = tmp_path / "prices.toml"
    path.write_text(PRICES, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        (*PLAN, "--json"),
        (*PLAN, "--gpu", "a10,t4"),
        ("deploy-cost", "--model", "qwen2.5-7b", "--rate", "1", "--json"),
        ("--help",),
    ],
    ids=["plan --json", "plan", "deploy-cost", "--help"],
)
def test_the_planner_answers_without_torch(arguments: tuple[str, ...]) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout


def test_the_table_recommends_one_row_with_its_reason(tunedeck: Command) -> None:
    said = tunedeck(*PLAN, "--gpu", "t4")
    assert said.code == 0
    assert "qlora" in said.out
    assert "use qlora on t4-16gb: LoRA fits none of these GPUs; qlora does" in said.err
    assert "no native bfloat16" in said.err


def test_json_has_every_method_on_every_offer(tunedeck: Command, prices: Path) -> None:
    found = json.loads(tunedeck(*PLAN, "--gpu", "a10,a100", "--prices", prices, "--json").out)
    rows = found["rows"]
    assert {row["method"] for row in rows} == {"lora", "qlora", "prompt_tuning", "ia3", "bias", "full"}
    assert {row["gpu"] for row in rows} == {"a10-24gb", "a100-80gb"}
    assert len(rows) == 6 * 3  # one offer of the A10, two of the A100
    assert found["recommendation"]["reason"].startswith("LoRA is the sound default, and a100-80gb is the cheapest")
    (old,) = {(row["price"]["source"], row["price_is_stale"]) for row in rows if row["gpu"] == "a10-24gb"}
    assert old == ("an old letter", True)


def test_everything_that_moves_the_answer_can_be_said(tunedeck: Command) -> None:
    said = tunedeck(
        "plan",
        "--model",
        "mistral-7b",
        "--samples",
        "1000",
        "--tokens",
        "4096",
        "--method",
        "lora",
        "--r",
        "16",
        "--target-modules",
        "q_proj,k_proj,v_proj,o_proj",
        "--gpu",
        "a100-80gb",
        "--micro-batch",
        "4",
        "--gradient-accumulation-steps",
        "8",
        "--gradient-checkpointing",
        "--loss",
        "eager",
        "--attention",
        "flash",
        "--dtype",
        "bf16",
        "--json",
    )
    row = json.loads(said.out)["rows"][0]
    assert (row["micro_batch"], row["accumulation"], row["checkpointing"]) == (4, 8, True)
    assert (row["loss"], row["attention"], row["dtype"]) == ("eager", "flash", "bfloat16")
    # fms-acceleration measured 24.87 GiB for this run with PEFT, which keeps float32 copies that Tunedeck does not
    assert row["peak_allocated_bytes"]["expected"] / 2**30 == pytest.approx(24.87, rel=0.03)


def test_a_data_file_is_counted_and_repeats_are_left_out(tunedeck: Command, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    rows = [{"text": f"example number {n % 50} with some words", "label": str(n % 2)} for n in range(100)]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    found = json.loads(tunedeck("plan", "--model", "bge-large-zh", "--data", data, "--gpu", "t4", "--json").out)
    assert found["workload"]["samples"] == 45  # 50 different texts, a tenth held out
    assert found["task"] == "classify"


@pytest.mark.parametrize("task", ["tag", "score"])
def test_a_task_with_another_head_is_planned_and_its_run_file_is_of_that_task(task: str, tmp_path: Path) -> None:
    data = tmp_path / "train.csv"
    data.write_text("text,score\n" + "\n".join(f"text {n},{n % 5}" for n in range(40)))
    found = td.plan("bge-large-zh", str(data), task=task, gpus="t4")  # type: ignore[arg-type]
    assert found.to_json()["task"] == found.run_values()["task"]["kind"] == task


def test_the_run_file_that_carries_out_the_plan_is_written_and_valid(tunedeck: Command, tmp_path: Path) -> None:
    from tunedeck.training.config import read_run_file, run_config

    data, out = tmp_path / "train.csv", tmp_path / "run.yaml"
    data.write_text("text,label\n" + "\n".join(f"text {n},{n % 2}" for n in range(40)))
    said = tunedeck(
        "plan", "--model", "bundled:all-minilm-l6-v2", "--data", data, "--gpu", "t4", "--method", "lora", "--write", out
    )
    assert said.code == 0
    config = run_config(read_run_file(out))
    assert config.model == "bundled:all-minilm-l6-v2"
    assert config.training.batch_size == 32
    assert yaml.safe_load(out.read_text())["method"]["kind"] == "lora"


def test_nothing_is_written_where_nothing_can_be_carried_out(tunedeck: Command, tmp_path: Path) -> None:
    out = tmp_path / "run.yaml"
    assert "give --data FILE" in tunedeck(*PLAN, "--gpu", "a100", "--write", out).err
    assert not out.exists()


def test_a_budget_that_nothing_meets_names_the_cheapest_and_the_fastest(tunedeck: Command) -> None:
    said = tunedeck(*PLAN, "--gpu", "a10,h100", "--budget", "0.5")
    assert said.code == 0
    assert "nothing that fits is within your limits; the cheapest is" in said.err


def test_where_nothing_fits_the_changes_are_named(tunedeck: Command) -> None:
    said = tunedeck(
        "plan", "--model", "llama-3.1-8b", "--samples", "100", "--tokens", "4096", "--method", "lora", "--gpu", "a10"
    )
    assert "nothing fits. What would:" in said.err
    assert "on a10-24gb: --method qlora --micro-batch 1 --gradient-checkpointing" in said.err


def test_old_prices_are_flagged(tunedeck: Command, prices: Path) -> None:
    said = tunedeck(*PLAN, "--gpu", "a10", "--prices", prices)
    assert "prices older than 90 days or undated" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "qwen-7x", "--samples", "10"), "does not know the model 'qwen-7x' (did you mean 'qwen-7b'?)"),
        (("--model", "qwen-7b", "--samples", "-5"), "samples must be above 0, got -5"),
        (("--model", "qwen-7b"), "give either --data FILE, or --samples N"),
        (("--model", "qwen-7b", "--samples", "10", "--gpu", "a1000"), "unknown GPU 'a1000' (did you mean 'a100'?)"),
        (("--model", "qwen-7b", "--samples", "10", "--tokens", "99999"), "takes at most 32768 tokens"),
        (
            ("--model", "qwen-7b", "--samples", "10", "--method", "lroa"),
            "does not know the method 'lroa' (did you mean 'lora'?)",
        ),
        (("--model", "qwen-7b", "--samples", "10", "--deadline", "soon"), "--deadline takes a time such as 90m"),
        (("--model", "qwen-7b", "--samples", "10", "--dtype", "bf17"), "dtype must be one of"),
        (("--model", "qwen-7b", "--samples", "10", "--loss", "chunky"), "loss must be one of eager, fused, chunked"),
        (("--model", "qwen-7b", "--samples", "10", "--target-modules", "q_projj"), "'q_projj' matches no linear layer"),
        (("--model", "qwen-7b", "--samples", "10", "--currency", "EUR"), "no rate from"),
        (("--model", "bge-large-zh", "--samples", "10", "--task", "generate"), "is an encoder and cannot generate"),
        (("--model", "qwen-7b", "--samples", "10", "--epochs", "0"), "epochs must be above 0"),
        (("--model", "qwen-7b", "--data", "missing.csv"), "there is no file or folder missing.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(tunedeck: Command, arguments: tuple[str, ...], message: str) -> None:
    said = tunedeck("plan", *arguments)
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_deployment_is_costed_by_load_and_compared(tunedeck: Command, prices: Path) -> None:
    said = tunedeck(
        "deploy-cost",
        "--model",
        "qwen2.5-7b",
        "--adapters",
        "20",
        "--rate",
        "2",
        "--gpu",
        "a10",
        "--training-cost",
        "30",
        "--api-price",
        "2",
        "--endpoint-price",
        "12",
        "--prices",
        prices,
    )
    assert said.code == 0
    assert "1 x a10-24gb, 4,000 CNY a month" in said.err
    assert "20 adapters on one base: 4,000 CNY a month; as 20 deployments: 80,000 on 20 GPUs" in said.err
    assert "days the deployment has cost as much as the training" in said.err
    assert "requests a day a10-24gb is cheaper than 2 per million tokens" in said.err
    assert "a rented endpoint at 12 an hour is more expensive than a10-24gb from" in said.err


def test_a_deployment_in_json_has_its_break_even_points(tunedeck: Command) -> None:
    said = tunedeck(
        "deploy-cost", "--model", "bge-large-zh", "--gpu", "cpu,t4", "--rate", "5", "--training-cost", "20", "--json"
    )
    found = json.loads(said.out)
    assert found["cheapest"]["training_break_even_days"] > 0
    assert {row["gpu"] for row in found["rows"]} == {"cpu-16-cores", "t4-16gb"}
    assert {row["precision"] for row in found["rows"]} == {"int8", "16-bit"}


def test_a_latency_that_nothing_meets_is_said(tunedeck: Command) -> None:
    assert (
        "no GPU holds this model within the latency target"
        in tunedeck("deploy-cost", "--model", "qwen2.5-7b", "--latency", "0.01").err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "bge-large-zh", "--output-tokens", "5"), "is an encoder and answers with no tokens"),
        (("--model", "qwen-7b", "--rate", "-1"), "rate must be above 0"),
        (("--model", "qwen-7b", "--input-tokens", "40000"), "takes at most 32768 tokens"),
        (("--model", "qwen-7b", "--adapters", "-2"), "--adapters must be 0 or more"),
    ],
)
def test_bad_deployments_are_one_line_and_exit_code_two(
    tunedeck: Command, arguments: tuple[str, ...], message: str
) -> None:
    said = tunedeck("deploy-cost", *arguments)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert message in said.err
