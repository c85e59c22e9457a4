"""A base in 16 bits, in int8 and in NF4: bytes of each part, a LoRA step, a batch without gradients and one token.

The bases take turns in one process (OMP_NUM_THREADS=1 on a busy machine); medians and ratios are printed and written to
bench/results/quantized.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

import tunedeck as td
from tunedeck.core.measurement import this_machine

RESULTS = Path(__file__).parent / "results" / "quantized.json"
MODELS = {"bundled:all-minilm-l6-v2": (32, 32), "bundled:smollm2-135m-instruct": (8, 64)}  # rows, tokens
SCHEMES = (None, "int8", "nf4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    results = {reference: measure(reference, *shape, rounds) for reference, shape in MODELS.items()}
    RESULTS.parent.mkdir(exist_ok=True)
    machine = this_machine()
    RESULTS.write_text(
        json.dumps({"cpu": machine.cpu, "threads": torch.get_num_threads(), "models": results}, indent=2) + "\n",
        encoding="utf-8",
    )


def measure(reference: str, rows: int, tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """Bytes of the linears and of the whole base, and median milliseconds of each piece of work, by scheme;
    bfloat16.
    """
    task = td.Classify(labels=("a", "b")) if "minilm" in reference else td.Generate()
    decks = {
        str(scheme): td.Deck.load(reference, task, dtype="bfloat16", quantize=scheme)  # type: ignore[arg-type]
        for scheme in SCHEMES
    }
    work = {
        f"{scheme} {name}": act for scheme, deck in decks.items() for name, act in works(deck, rows, tokens).items()
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, act in work.items():
            began = time.perf_counter()
            act()
            times[name].append((time.perf_counter() - began) * 1e3)
    found: dict[str, dict[str, float]] = {}
    for scheme, deck in decks.items():
        parts = {part.name: part.bytes for part in deck.base_parts()}
        own = {name: median(times[f"{scheme} {name}"][1:]) for name in works(deck, rows, tokens)}
        found[scheme] = {"linears_bytes": parts["linears"], "base_bytes": sum(parts.values()), **own}
        ratios = ", ".join(f"{name} {value:.1f} ({value / found['None'][name]:.2f})" for name, value in own.items())
        print(f"{reference} {scheme}: linears {parts['linears']:,} B, base {sum(parts.values()):,} B; ms: {ratios}")
    return found


def works(deck: td.Deck, rows: int, tokens: int) -> dict[str, Callable[[], object]]:
    """The pieces of work that are timed."""
    if not deck.adapters:
        deck.add("lora", td.LoraConfig(target_modules="all-linear"))
    ids = torch.randint(100, 20000, (rows, tokens), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        deck(ids, adapter="lora").logits.float().square().mean().backward()

    def without_gradients(batch: torch.Tensor) -> None:
        with torch.inference_mode():
            deck(batch, adapter="lora")

    return {"step": step, "batch": lambda: without_gradients(ids), "token": lambda: without_gradients(ids[:1, :1])}


if __name__ == "__main__":
    main()
