"""Serving classifiers: a deck beside what `tunedeck export onnx` wrote of the same adapters, through the same engine.

MiniLM with LoRA adapters, tweets as requests, no HTTP. A round sends every side the same requests: one after the other,
all at once to one adapter, all at once to eight in turn. The sides take turns; medians go to
bench/results/serve_onnx.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

import tunedeck as td
from tunedeck.core.measurement import this_machine
from tunedeck.export.onnx.multi import save_onnx_multi
from tunedeck.export.onnx.save import save_onnx
from tunedeck.server.run import ServerSettings, open_onnx_service, open_service
from tunedeck.server.service import Service
from tunedeck.serving.request import Request

RESULTS = Path(__file__).parent / "results" / "serve_onnx.json"
BASE, DATA = "bundled:all-minilm-l6-v2", "bundled:tweets"
ADAPTERS = 8
PAUSE_S = 0.3
"""Both libraries' idle threads spin for a while, and would slow the next side down."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/bench-serve-onnx"), help="adapters and exports, written when missing"
    )
    parser.add_argument("--write-only", action="store_true")
    asked = parser.parse_args()
    dataset = td.Classify().read(td.DataSettings(train=DATA, train_size=4000, eval_size=1500))
    texts = [example.text for example in dataset.evaluation[: asked.requests]]
    names = [f"a{number}" for number in range(ADAPTERS)]
    root = asked.folder
    if not (root / "multi").exists():
        write(root, names, td.Classify(labels=dataset.labels))
    if asked.write_only:
        return
    settings = ServerSettings(adapter_bytes=1 << 34)
    sides: dict[str, tuple[Service, list[str]]] = {}
    for dtype in ("float32", "bfloat16"):
        deck = td.Deck.load(BASE, td.Classify(labels=dataset.labels), dtype=dtype)
        sides[f"deck {dtype}"] = open_service(deck, root / "adapters", settings, "base"), names
    for precision in ("float32", "int8"):
        alone, multi = (open_onnx_service(root / kind, precision, settings, "base") for kind in ("alone", "multi"))
        sides[f"ONNX {precision}"] = alone, names
        sides[f"ONNX --multi {precision}"] = multi, [f"all/{name}" for name in names]
    taken = measured(sides, texts, asked.rounds)
    for service, _ in sides.values():
        service.engine.close()
    machine = this_machine()
    result = {"cpu": machine.cpu, "threads": torch.get_num_threads(), "requests": len(texts), "sides": taken}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def write(root: Path, names: list[str], task: td.Classify) -> None:
    """The same adapters as folders for a deck, as a graph each, and as one graph."""
    deck = td.Deck.load(BASE, task, dtype="float32")
    for seed, name in enumerate(names):
        deck.add(name, td.LoraConfig(r=8, lora_alpha=32, target_modules=("query", "value")), seed=seed)
        with torch.no_grad():
            for parameter in deck.adapter(name).parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        deck.save(name, root / "adapters" / name)
        save_onnx(deck, name, root / "alone" / name, int8=True)
    save_onnx_multi(deck, names, root / "multi" / "all", int8=True)


def measured(sides: dict[str, tuple[Service, list[str]]], texts: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds for a request alone, and requests a second of each side."""
    seconds: dict[str, list[tuple[float, float, float]]] = {label: [] for label in sides}
    for _ in range(rounds + 1):  # the first loads the adapters and is not counted
        for label, (service, names) in sides.items():
            time.sleep(PAUSE_S)
            took = (
                sum(spent(service, names[:1], [text]) for text in texts[:48]) / 48,
                spent(service, names[:1], texts),
                spent(service, names, texts),
            )
            seconds[label].append(took)
    found = {}
    for label, turns in seconds.items():
        alone, one, many = (median(values) for values in zip(*turns[1:], strict=True))
        found[label] = {
            "a request alone, ms": round(1000 * alone, 2),
            "one adapter, requests/s": round(len(texts) / one, 1),
            f"{ADAPTERS} adapters, requests/s": round(len(texts) / many, 1),
        }
    return found


def spent(service: Service, names: list[str], texts: list[str]) -> float:
    """Seconds until all are answered."""
    requests = [Request(names[number % len(names)], text) for number, text in enumerate(texts)]
    began = time.perf_counter()
    for request in requests:
        service.engine.submit(request)
    for request in requests:
        request.done.result()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
