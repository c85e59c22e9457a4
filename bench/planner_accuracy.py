"""Predictions of `tunedeck plan` against every measured row of bench/planner_rows.csv.

    python bench/planner_accuracy.py [--rows] [--json PATH]

Rows with an even number were used to set the planner's constants; odd ones were held out, and are reported apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunedeck.core.model_spec import ModelSpec
from tunedeck.methods.registry import config_of
from tunedeck.planner.catalogue import find_gpu
from tunedeck.planner.fit import fits
from tunedeck.planner.memory import Setup, TrainingStack, memory_parts, method_facts
from tunedeck.planner.models import find_planned_model
from tunedeck.planner.serving import PlannedService, Precision, request_s
from tunedeck.planner.throughput import step_s

ROWS = Path(__file__).with_name("planner_rows.csv")
STACKS = {
    "transformers": TrainingStack("transformers", full_copies=False, lora_inputs_in_float32=True),
    "fast-kernels": TrainingStack("fast-kernels", full_copies=False, lora_inputs_in_float32=True, speed=1.15),
    "kbit": TrainingStack("kbit", full_copies=False, lora_inputs_in_float32=True, float32_hidden=True),
}
OTHER_MODELS: dict[str, dict[str, Any]] = {
    "llama-2-70b": {
        "model_type": "llama",
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 28672,
        "vocab_size": 32000,
    },
    "powerlm-3b": {
        "model_type": "llama",
        "hidden_size": 2304,
        "num_hidden_layers": 40,
        "num_attention_heads": 36,
        "num_key_value_heads": 36,
        "intermediate_size": 9216,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "llama-2-7b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    },
    "qwen-1.8b": {
        "model_type": "qwen",
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 11008,
        "kv_channels": 128,
        "vocab_size": 151936,
    },
}


SERVING: tuple[tuple[str, str, Precision, int, int, int, float, str], ...] = (
    ("a100-80gb", "qwen2.5-7b", "16-bit", 1, 6, 2048, 84.3 / 2048, "Qwen2.5 speed_benchmark.rst, vLLM"),
    ("a100-80gb", "qwen2.5-7b", "4-bit", 1, 6, 2048, 154.1 / 2048, "Qwen2.5 speed_benchmark.rst, vLLM"),
    ("a100-40gb", "llama-3.1-8b", "16-bit", 1, 1024, 128, 75 / 128, "johnmusgrave.com, vLLM 0.23"),
    ("a10-24gb", "llama-2-7b", "16-bit", 1, 32, 128, 37 / 128, "InternLM/lmdeploy#210"),
    ("t4-16gb", "mistral-7b", "4-bit", 1, 32, 128, 34 / 128, "AutoAWQ PR#92"),
    ("h20-96gb", "qwen3-8b", "16-bit", 1, 6, 2048, 81.7 / 2048, "Qwen3 speed_benchmark.md, SGLang"),
    ("rtx-4090", "mistral-7b", "16-bit", 4, 256, 128, 2.09, "mushfiqrahman.dev, vLLM"),
    ("rtx-4090", "mistral-7b", "16-bit", 8, 256, 128, 3.78, "mushfiqrahman.dev, vLLM"),
    ("rtx-4090", "mistral-7b", "16-bit", 16, 256, 128, 6.44, "mushfiqrahman.dev, vLLM"),
    ("rtx-4090", "mistral-7b", "16-bit", 32, 256, 128, 9.73, "mushfiqrahman.dev, vLLM"),
    ("rtx-4090", "mistral-7b", "16-bit", 48, 256, 128, 11.87, "mushfiqrahman.dev, vLLM"),
)
"""Card, model, precision, requests at once, tokens in and out, measured requests per second, source."""


def spec_of(name: str) -> ModelSpec:
    """A model of the catalogue, or one that only the measured rows need."""
    other = OTHER_MODELS.get(name)
    return ModelSpec.from_config(other) if other else find_planned_model(name).spec


def serving_errors() -> list[tuple[str, float]]:
    """Relative errors of the requests per second that `tunedeck deploy-cost` expects."""
    found = []
    for gpu, model, precision, at_once, inputs, outputs, measured, source in SERVING:
        service = PlannedService(spec_of(model), 0, 0, inputs, outputs, None)
        rate = at_once / request_s(service, find_gpu(gpu), precision, at_once)
        found.append((f"{model} {precision} on {gpu}, {at_once} at once ({source})", rate / measured - 1))
    return found


def setup_of(row: dict[str, str], tokens: str) -> Setup:
    """A row as the planner's formulae take it, at the length that stands in the column `tokens`."""
    spec = spec_of(row["model"])
    values: dict[str, Any] = {}
    if row["r"]:
        values = {"r": int(row["r"]), "target_modules": row["target_modules"].split()}
    if row["virtual_tokens"]:
        values = {"num_virtual_tokens": int(row["virtual_tokens"])}
    method = config_of({"qlora": "lora"}.get(row["method"], row["method"]), values)
    return Setup(
        spec=spec,
        method=method,
        facts=method_facts(spec, method),
        micro_batch=int(row["micro_batch"]),
        tokens=int(row[tokens] or row["tokens"]),
        generate=True,
        four_bit=row["method"] == "qlora",
        checkpointing=row["checkpointing"] == "1",
        loss=row["loss"],
        attention=row["attention"],
        accumulation=int(row["accumulation"]),
        stack=STACKS[row["stack"]],
    )  # type: ignore[arg-type]


def examine(row: dict[str, str], number: int) -> dict[str, Any]:
    """One row's predictions and relative errors; a reading that the row lacks has none."""
    setup, gpu = setup_of(row, "tokens"), find_gpu(row["gpu"])
    parts = memory_parts(setup)
    found: dict[str, Any] = {
        "row": number,
        "held_out": number % 2 == 1,
        "set": row["set"],
        "model": row["model"],
        "method": row["method"],
        "gpu": row["gpu"],
        "micro_batch": setup.micro_batch,
        "tokens": setup.tokens,
        "loss": row["loss"],
        "stack": row["stack"],
        "fits": fits(parts, gpu),
        "ran": row["ran"] == "1",
    }
    for reading, predicted in (
        ("peak_allocated_bytes", parts.allocated),
        ("peak_reserved_bytes", parts.allocated + parts.fragmentation),
    ):
        if row[reading]:
            found["memory_error"] = predicted / float(row[reading]) - 1
            found["memory_gib"] = [predicted / 2**30, float(row[reading]) / 2**30]
    at_mean = setup_of(row, "mean_tokens")
    seconds = step_s(at_mean, gpu)
    measured_s = float(row["step_s"] or 0)
    if row["tokens_per_s"]:
        measured_s = at_mean.micro_batch * at_mean.tokens * at_mean.accumulation / float(row["tokens_per_s"])
    if measured_s:
        found["time_error"] = seconds / measured_s - 1
        found["step_s"] = [seconds, measured_s]
    return found


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median and worst absolute errors, and how often fitting was told right."""
    values: dict[str, Any] = {"rows": len(rows), "fits_right": sum(row["fits"] == row["ran"] for row in rows)}
    for name in ("memory_error", "time_error"):
        errors = [abs(row[name]) for row in rows if name in row]
        if errors:
            values[name] = {"rows": len(errors), "median": statistics.median(errors), "worst": max(errors)}
    return values


def grouped(rows: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> dict[str, Any]:
    """A summary for each value of a key."""
    return {name: summary([row for row in rows if key(row) == name]) for name in dict.fromkeys(map(key, rows))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = [examine(row, number) for number, row in enumerate(csv.DictReader(file))]
    fms = [row for row in rows if row["set"].startswith("fms")]
    result = {
        "all": summary(rows),
        "constants set on": summary([row for row in rows if not row["held_out"]]),
        "held out": summary([row for row in rows if row["held_out"]]),
        "fms, held out": summary([row for row in fms if row["held_out"]]),
        **grouped(rows, lambda row: row["set"]),
        **grouped(rows, lambda row: f"{row['method']} on {row['gpu']}"),
    }
    print(
        f"{'rows':62} {'n':>4} {'memory median':>14} {'worst':>7} {'time median':>12} {'worst':>7} {'fits right':>11}"
    )
    for name, values in result.items():
        cells = [name[:62].ljust(62), f"{values['rows']:4}"]
        for reading, width in (("memory_error", 14), ("time_error", 12)):
            error = values.get(reading)
            cells += [f"{error['median']:{width}.1%} {error['worst']:7.1%}" if error else " " * (width + 8)]
        print(" ".join(cells), f"{values['fits_right']:>5}/{values['rows']}")
    print("\nrequests per second of deployments, expected against measured")
    for name, error in serving_errors():
        print(f"{name:100} {error:+7.1%}")
    if arguments.rows:
        for row in rows:
            print({name: value for name, value in row.items() if name != "held_out"})
    if arguments.json:
        arguments.json.write_text(json.dumps({"summary": result, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
