"""What LoRA+ and other first weights of LoRA bring, beside plain LoRA at its best rate.

    python bench/lora_starts.py                          # resumes; results/lora_starts.jsonl
    python bench/lora_starts.py --table

400 commands for a home in English train a default LoRA of all-minilm-l6-v2, 1,000 others measure it at the end, by
which nothing is chosen. A draw is of examples and first weights. Nothing of this is in the package, as it does not pay:

- LoRA+ (arXiv 2402.12354): the learning rate of B is a multiple of that of A.
- PiSSA (arXiv 2404.02948): B A begins as the largest singular directions of W, and W without them stays. Here the base
  is not changed: W x + s (B A x - B0 A0 x) is the same, and as a LoRA of twice the rank other programs read it.
- EVA (arXiv 2410.07170): A begins as the main directions of the layer's inputs, of 128 training texts.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

import tunedeck as td
from tunedeck.deck.adapter import Adapter
from tunedeck.methods.linears import dense_weight
from tunedeck.training import trainer

OUT = Path(__file__).parent / "results" / "lora_starts.jsonl"
MODEL, SET = "bundled:all-minilm-l6-v2", "bundled:home-intents-en"
DRAWS = 3
CASES = (
    ("plain", 1, 1e-3),
    ("LoRA+", 4, 1e-3),
    ("PiSSA", 1, 1e-3),
    ("EVA", 1, 1e-3),
    ("plain", 1, 3e-3),
    ("LoRA+", 16, 3e-4),
    ("plain", 1, 3e-4),
    ("PiSSA", 1, 3e-4),
    ("EVA", 1, 3e-4),
)
"""First weights, ratio of B's learning rate, learning rate."""


class Pissa(nn.Module):
    """A LoRA layer whose first product is subtracted; to the rest of the package a LoRA of twice the rank."""

    lora_magnitude_vector = None
    dropout = 0.0

    def __init__(self, a: torch.Tensor, b: torch.Tensor, scaling: float) -> None:
        super().__init__()
        self.a, self.b, self.scaling = nn.Parameter(a), nn.Parameter(b), scaling
        self.register_buffer("a0", a.clone())
        self.register_buffer("b0", b.clone())

    @property
    def lora_A(self) -> torch.Tensor:  # noqa: N802 - the name of the layer's tensor
        return torch.cat([self.a, self.a0])

    @property
    def lora_B(self) -> torch.Tensor:  # noqa: N802
        return torch.cat([self.b, -self.b0], 1)


def start_pissa(deck: td.Deck, name: str) -> None:
    adapter, placements = deck.adapter(name), {}
    for path, place in adapter.built.placements.items():
        layer: Any = place.layer
        u, values, v = torch.linalg.svd(dense_weight(deck.model.get_submodule(path)).float(), full_matrices=False)
        r = len(layer.lora_A)
        root = (values[:r] / layer.scaling).sqrt()
        placements[path] = replace(place, layer=Pissa(root[:, None] * v[:r], u[:, :r] * root, layer.scaling))
    built = replace(adapter.built, placements=placements)
    deck.remove(name)
    deck.attach(Adapter(name, adapter.config, adapter.task, built, adapter.head, adapter.manifest))


def start_eva(deck: td.Deck, name: str, texts: list[str]) -> None:
    layers: dict[str, Any] = {path: place.layer for path, place in deck.adapter(name).built.placements.items()}
    seen: dict[str, list[torch.Tensor]] = {path: [] for path in layers}
    hooks = [
        deck.model.get_submodule(path).register_forward_pre_hook(
            lambda _, args, path=path: seen[path].append(args[0].flatten(0, -2))
        )
        for path in layers
    ]
    with torch.inference_mode():
        for text in texts:
            deck(deck.tokenizer(text, return_tensors="pt", truncation=True, max_length=64)["input_ids"])
    for hook in hooks:
        hook.remove()
    for path, layer in layers.items():
        x = torch.cat(seen[path])
        directions = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0))).eigenvectors.flip(1)
        with torch.no_grad():
            layer.lora_A.copy_(directions[:, : len(layer.lora_A)].T)


def with_faster_b(ratio: float) -> Any:
    """Return the trainer's optimizer with a learning rate of its own for B."""
    plain = trainer.adamw

    def adamw(adapter: Adapter, settings: td.TrainingSettings) -> torch.optim.Optimizer:
        optimizer = plain(adapter, settings)
        its = {id(place.layer.lora_B) for place in adapter.built.placements.values()}
        for group in list(optimizer.param_groups):
            faster = [one for one in group["params"] if id(one) in its]
            group["params"] = [one for one in group["params"] if id(one) not in its]
            if faster:
                optimizer.add_param_group({**group, "params": faster, "lr": ratio * group["lr"]})
        return optimizer

    return adamw


def measure(deck: td.Deck, data: Any, seed: int, how: str, ratio: float, rate: float) -> dict[str, Any]:
    began, last = time.process_time(), dict[str, float]()
    deck.add("it", td.LoraConfig(), labels=data.labels, seed=seed)
    if how == "PiSSA":
        start_pissa(deck, "it")
    if how == "EVA":
        start_eva(deck, "it", [one.text for one in random.Random(seed).sample(data.train, 128)])
    start_s = time.process_time() - began
    settings = td.TrainingSettings(learning_rate=rate, seed=seed, eval_steps=10**6, early_stopping_patience=0)

    def keep(metrics: dict[str, float]) -> bool:
        last.update({key: round(metrics[key], 4) for key in ("accuracy", "loss")})
        return False

    plain = trainer.adamw
    trainer.adamw = plain if ratio == 1 else with_faster_b(ratio)
    try:
        td.train(deck, "it", data, settings=settings, progress=False, should_stop=keep)
    finally:
        trainer.adamw = plain
    deck.remove("it")
    return {"case": [seed, how, ratio, rate], **last, "start_s": round(start_s, 2)}


def read() -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    return {tuple(row["case"]): row for row in rows}


def table() -> None:
    known = read()
    for case in CASES:
        rows = [row for seed in range(DRAWS) if (row := known.get((seed, *case)))]
        if rows:
            found = {key: round(fmean(row[key] for row in rows), 4) for key in ("accuracy", "loss")}
            print(*case, len(rows), found, [row["accuracy"] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print what is known and run nothing")
    if parser.parse_args().table:
        table()
        return
    torch.set_num_threads(1)
    for seed in range(DRAWS):
        source = {"train": f"{SET}:train", "eval": f"{SET}:test", "train_size": 400, "eval_size": 1000}
        data = td.Classify(max_length=64).read(td.DataSettings(**source, split_seed=seed))
        deck = td.Deck.load(MODEL, td.Classify(labels=data.labels, max_length=64), dtype="float32")
        for case in CASES:
            if (seed, *case) not in read():
                row = measure(deck, data, seed, *case)
                with OUT.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
    table()


if __name__ == "__main__":
    main()
