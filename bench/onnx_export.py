"""MiniLM with LoRA, bottleneck and prompt adapters: accuracy, latency and throughput of torch and of ONNX Runtime,
float32 and int8.

The sides take turns in one process with the same number of threads; medians and ratios are printed and written to
bench/results/onnx.json. Adapters are trained on bundled:tweets when `--runs` does not hold them yet; the held-out
tweets are the examples.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

import tunedeck as td
from tunedeck.core.measurement import this_machine
from tunedeck.data.labelled import Example
from tunedeck.export.onnx.measure import Measured, measure
from tunedeck.export.onnx.multi import save_onnx_multi
from tunedeck.export.onnx.save import save_onnx
from tunedeck.methods.base import MethodConfig

RESULTS = Path(__file__).parent / "results" / "onnx.json"
BASE, DATA = "bundled:all-minilm-l6-v2", "bundled:tweets"
METHODS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=8, lora_alpha=32, target_modules=("query", "value")),
    "bottleneck": td.BottleneckConfig("seq_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench-onnx"))
    parser.add_argument("--examples", type=int, default=1500)
    parser.add_argument("--train-only", action="store_true")
    asked = parser.parse_args()
    dataset = td.Classify().read(td.DataSettings(train=DATA, train_size=4000, eval_size=1500))
    task = td.Classify(labels=dataset.labels)
    for name, config in METHODS.items():
        if not (asked.runs / name / "adapter").exists():
            deck = td.Deck.load(BASE, task)
            deck.add(name, config)
            td.train(deck, name, dataset, epochs=1, out=asked.runs / name)
    if asked.train_only:
        return
    decks = {f"torch {dtype}": td.Deck.load(BASE, task, dtype=dtype) for dtype in ("float32", "bfloat16")}
    for deck in decks.values():
        for name in METHODS:
            deck.load_adapter(asked.runs / name / "adapter", name)
    found = {name: one(decks, name, dataset.evaluation[: asked.examples]) for name in METHODS}
    RESULTS.parent.mkdir(exist_ok=True)
    machine = this_machine()
    report = {"cpu": machine.cpu, "threads": torch.get_num_threads(), "examples": asked.examples, "adapters": found}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def one(decks: dict[str, td.Deck], name: str, examples: list[Example]) -> dict[str, object]:
    """Sizes, differences and every side's numbers for one adapter; LoRA in a shared graph too."""
    deck = decks["torch float32"]
    with tempfile.TemporaryDirectory() as place:
        folders = {"ONNX": Path(place) / "alone"}
        written = save_onnx(deck, name, folders["ONNX"], int8=True)
        if name == "lora":
            folders["ONNX --multi"] = Path(place) / "multi"
            save_onnx_multi(deck, [name], folders["ONNX --multi"], int8=True)
        rows = measure(decks, name, folders, examples)
    for row in rows:
        print(f"{name}: {described(row, rows[0])}")
    return {"written": asdict(written), "sides": [asdict(row) for row in rows]}


def described(row: Measured, first: Measured) -> str:
    """One side's numbers, and how many times torch float32's speed it has."""
    alone, together = first.latency_ms / row.latency_ms, row.texts_per_s / first.texts_per_s
    return (
        f"{row.name}: accuracy {row.metrics['accuracy']:.4f}, one text {row.latency_ms:.2f} ms ({alone:.2f}x), "
        f"{row.texts_per_s:.0f} texts/s ({together:.2f}x)"
    )


if __name__ == "__main__":
    main()
